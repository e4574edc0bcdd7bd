"""One job at a time beside a notebook: in a thread that ends with the job, can be cancelled, and never dies unseen."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from threading import Event, Lock

Cancel = Callable[[], bool]
WAITING = 0.1  # seconds between two looks at whether a waiting job was cancelled


class Worker:
    """Runs jobs in the background; workers that share a lock take turns."""

    def __init__(self, lock: Lock):
        """Take the lock that is held while a job works."""
        self._lock = lock
        self._cancelled = Event()
        self._future: Future | None = None

    @property
    def is_busy(self) -> bool:
        """Return whether a job is running or waiting for the lock."""
        return self._future is not None and not self._future.done()

    def start(self, job: Callable[[Cancel], None], finish: Callable[[BaseException | None], None]) -> None:
        """Run a job.

        Args:
            job: gets a function that says whether it was cancelled, to be called now and then.
            finish: called in the job's thread when it has ended, with the error that it raised, or None.

        Raises:
            RuntimeError: while another job of this worker runs.
        """
        if self.is_busy:
            raise RuntimeError("a run is still going; cancel it, or wait for its end")
        self._cancelled = cancelled = Event()

        def run() -> None:
            while not self._lock.acquire(timeout=WAITING):
                if cancelled.is_set():
                    return
            try:
                job(cancelled.is_set)
            finally:
                self._lock.release()

        # The pool keeps an exception for us; shut down at once, its thread ends with the job.
        pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="medv-lab")
        self._future = pool.submit(run)
        self._future.add_done_callback(lambda future: finish(future.exception()))
        pool.shutdown(wait=False)

    def cancel(self) -> None:
        """Ask the job to end; a run ends before its next pass."""
        self._cancelled.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the job's end, at most so many seconds; return whether it has ended."""
        return self._future is None or not wait([self._future], timeout).not_done

"""Jobs run beside, end when asked, say what went wrong, and leave no thread."""

import threading
import time
from threading import Event, Lock

import pytest

from medv_lab.explorer.worker import Worker

PATIENCE = 20


def own_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("medv-lab")]


def no_own_threads() -> bool:
    """A pool's thread ends a moment after its job."""
    deadline = time.monotonic() + PATIENCE
    while own_threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    return not own_threads()


def until_cancelled(cancel) -> None:
    deadline = time.monotonic() + PATIENCE
    while not cancel() and time.monotonic() < deadline:
        time.sleep(0.005)


def test_a_job_runs_beside_and_its_thread_ends_with_it():
    worker, go, ended = Worker(Lock()), Event(), []
    worker.start(lambda cancel: go.wait(PATIENCE), ended.append)
    assert worker.is_busy
    assert not worker.wait(0.01)
    assert len(own_threads()) == 1
    go.set()
    assert worker.wait(PATIENCE)
    assert no_own_threads()
    assert ended == [None]
    assert not worker.is_busy


@pytest.mark.parametrize("error", [ValueError("bad"), KeyError("x"), SystemExit(3), MemoryError()])
def test_what_a_job_raises_is_handed_over_and_the_next_one_runs(error):
    worker, ended = Worker(Lock()), []

    def fail(cancel):
        raise error

    for job in (fail, lambda cancel: None):
        worker.start(job, ended.append)
        assert worker.wait(PATIENCE)
        assert no_own_threads()
    assert ended == [error, None]


def test_a_job_sees_that_it_was_cancelled_and_the_next_one_does_not():
    worker, ended, states = Worker(Lock()), [], []
    worker.start(until_cancelled, ended.append)
    worker.cancel()
    assert worker.wait(PATIENCE)
    worker.start(lambda cancel: states.append(cancel()), ended.append)
    assert worker.wait(PATIENCE)
    assert no_own_threads()
    assert (ended, states) == ([None, None], [False])


def test_a_second_job_is_refused_while_one_runs():
    worker = Worker(Lock())
    worker.start(until_cancelled, lambda error: None)
    with pytest.raises(RuntimeError, match="still going"):
        worker.start(until_cancelled, lambda error: None)
    worker.cancel()
    assert worker.wait(PATIENCE)


def test_workers_with_one_lock_take_turns_and_a_waiting_job_can_be_cancelled():
    lock, done = Lock(), []
    first, second, third = Worker(lock), Worker(lock), Worker(lock)
    first.start(until_cancelled, lambda error: done.append("first"))
    second.start(lambda cancel: done.append("second works"), lambda error: done.append("second"))
    third.start(lambda cancel: done.append("third works"), lambda error: done.append("third"))
    third.cancel()
    assert third.wait(PATIENCE)
    assert not second.wait(0.05)
    first.cancel()
    assert first.wait(PATIENCE) and second.wait(PATIENCE)
    assert no_own_threads()
    assert sorted(done) == ["first", "second", "second works", "third"]

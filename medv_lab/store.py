"""One keyed, crash-safe store of records, under answers, a judge's replies, rows of studies and ablation cells.

A record is a JSON object under a key, which is a hash of all that the record depends on (`content_key`): what is
there need not be computed again, whoever computed it. A store is a folder of append-only files, one for each writer:

    NAME-<time>-<random>.jsonl      {"key": ..., ...}, one line per record, on the disk when `put` returns

Every writer has a file of its own, so nothing is locked, and processes and machines that share nothing but a folder can
write at once. A reader takes the union of all files; where two writers computed one key, the record of the file that
was begun first stands. A process that is killed leaves at most one line without its line break, which is no record.

Files of lines, not SQLite: a database file needs locks, which network file systems do not keep, and one that is damaged
is lost as a whole. Here a damaged line is named and can be deleted, folders of several machines are merged by copying,
and people and git read the records as they are. What a folder is to show for good (answers in the order of questions,
tables) is written beside the store by whoever knows the order, in one piece (`write_lines`, `replace_text`).
"""

import hashlib
import io
import json
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from medv_lab.limits import open_file, parse_json

PAUSE = 0.5  # seconds between two looks at what other processes have written
PATIENCE = 1.0  # seconds; another process may hold a lock for an instant, to see whether it is free
ROOM = 1_000_000  # bytes that must be free where something is to be written
_PROBE = bytes(1 << 16)


class StoreError(ValueError):
    """A file or folder that cannot be written to or read as it is; the text says why and what to do."""


class InUseError(StoreError):
    """Work that a living process has in hand."""


def content_key(*parts: Any) -> str:
    """Hash JSON-able parts to a key: SHA-256 in hexadecimal, the same whatever the order of a mapping's entries."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def share_of_process() -> tuple[int, int]:
    """Return the number of this process and how many there are; 0 and 1 where it is alone.

    RANK and WORLD_SIZE say so: `accelerate launch` and `torchrun` set them, and a task of an array may.
    """
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


class Store(Mapping[str, dict[str, Any]]):
    """Records by key in a folder that any number of processes and machines may write to at the same time.

    Threads may share one. What others wrote is seen after `refresh`.

    Args:
        folder: made when the first record is put.
        name: of the kind of records; a folder may hold several kinds.
        check: raises a ValueError, KeyError or TypeError for a record that is none of its kind.

    Raises:
        StoreError: if a whole line of a file is no record.
    """

    def __init__(
        self,
        folder: Path,
        name: str = "records",
        check: Callable[[Mapping[str, Any]], None] = lambda record: None,
    ) -> None:
        self.folder, self.name, self._check = folder, name, check
        self._records: dict[str, dict[str, Any]] = {}
        self._file: io.FileIO | None = None
        self._guard = threading.Lock()
        self._read: dict[Path, tuple[int, int]] = {}  # bytes and lines of every file that were read
        self._rank: dict[str, str] = {}  # key: name of the file whose record stands
        self.refresh()

    def refresh(self) -> None:
        """Read what was written since the last look, by this process or by others."""
        with self._guard:
            for path in sorted(filter(Path.is_file, self.folder.glob(f"{self.name}-*.jsonl"))):
                start, known = self._read.get(path, (0, 0))
                lines, end = _whole_lines(path, start)
                self._read[path] = end, known + len(lines)
                for number, line in enumerate(lines, known + 1):
                    record = _parse(line, f"line {number} of {path.name}")
                    if not isinstance(record.get("key"), str):
                        raise StoreError(
                            f"line {number} of {path.name} has no key; delete the line, or name another folder"
                        )
                    try:
                        self._check(record)
                    except (ValueError, KeyError, TypeError) as error:
                        raise StoreError(
                            f"line {number} of {path.name} is no record of {self.name} ({error!r:.200}); delete the "
                            "line, or name another folder"
                        ) from error
                    self._take(record, path.name)

    def put(self, key: str, record: Mapping[str, Any]) -> None:
        """Keep a record, on the disk when this returns; a key that is there already keeps the record it has."""
        self.put_all({key: record})

    def put_all(self, records: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep records by key, all on the disk when this returns; keys that are there keep the records they have."""
        with self._guard:
            new = {key: record for key, record in records.items() if key not in self._records}
            if not new:
                return
            file = self._file or self._open()
            path = Path(file.name)
            start, known = self._read.get(path, (0, 0))
            lines = [_to_line({"key": key, **new[key]}) for key in new]
            content = b"".join(lines)
            try:
                left = memoryview(content)
                while left:
                    left = left[file.write(left) :]
                os.fsync(file.fileno())
            except OSError:
                self._close()  # e.g. a full disk: a torn line is no record, and nothing may be written behind it
                raise
            self._read[path] = start + len(content), known + len(lines)
            for line in lines:
                self._take(json.loads(line), path.name)

    def wait_for(self, keys: Iterable[str]) -> None:
        """Look again and again until other processes have put every key."""
        keys = list(keys)
        while any(key not in self._records for key in keys):
            time.sleep(PAUSE)
            self.refresh()

    def __getitem__(self, key: str) -> dict[str, Any]:
        return self._records[key]

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._records))

    def __len__(self) -> int:
        return len(self._records)

    def close(self) -> None:
        """Close this writer's file; a later `put` begins another."""
        with self._guard:
            self._close()

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> io.FileIO:
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"{self.name}-{time.time_ns():020d}-{uuid.uuid4().hex[:12]}.jsonl"
        self._file = (self.folder / name).open("xb", buffering=0)
        return self._file

    def _take(self, record: dict[str, Any], file: str) -> None:
        key = record["key"]
        if key not in self._rank or file < self._rank[key]:
            self._records[key], self._rank[key] = record, file


class ExclusiveAccess:
    """The right to work in a folder, held by one process and given back by the system when that process ends.

    Only for work that must not be done twice at once, such as training or calls that are paid for; records need no
    lock.
    `.NAME.lock` is locked, `.NAME.json` says by whom. A holder that was killed leaves its name behind but not its lock:
    the next one takes over.

    Args:
        folder: made if it is absent.
        name: which work is meant.
        patience: seconds to wait for another process that holds it; below 0 without end.
    """

    def __init__(self, folder: Path, name: str, patience: float = PATIENCE) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._name, self._patience = folder, name, patience
        self._holder = folder / f".{name}.json"
        self._lock = FileLock(folder / f".{name}.lock", thread_local=False)

    def __enter__(self) -> "ExclusiveAccess":
        """Take the lock.

        Raises:
            InUseError: if a living process holds it; the text names its process id.
        """
        try:
            self._lock.acquire(timeout=self._patience)
        except Timeout as error:
            raise InUseError(
                f"another run (process {self._holder_id()}) is writing {self._name} in {self._folder.name}; wait until "
                "it ends, or give this run a folder of its own"
            ) from error
        replace_text(self._holder, json.dumps({"pid": os.getpid()}))
        return self

    def __exit__(self, *error: object) -> None:
        self._holder.unlink(missing_ok=True)
        self._lock.release()

    def _holder_id(self) -> int | str:
        try:
            return parse_json(self._holder.read_bytes())["pid"]
        except (OSError, ValueError, KeyError, TypeError):
            return "unknown"


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read a file of JSON Lines; a last line without its break is not read, an absent file has none.

    Raises:
        StoreError: if a whole line is no JSON object.
    """
    if not path.exists():
        return []
    lines, _ = _whole_lines(path, 0)
    return [_parse(line, f"line {number} of {path.name}") for number, line in enumerate(lines, 1)]


def write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write a whole file of JSON Lines at once."""
    replace_text(path, b"".join(map(_to_line, records)).decode())


def replace_text(path: Path, text: str) -> None:
    """Write a whole file at once: a reader sees the old one or the new one, whenever the process dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def require_writable(folder: Path | None = None, *, file: Path | None = None) -> None:
    """Check that a folder, or a file, can be written where it is to be, before that is computed which it shall hold.

    Nothing is left behind: a folder that is not there yet is looked at where it would be made.

    Raises:
        StoreError: for a file in the place of a folder or the other way round, a place that may not be written to, or
            one without room.
    """
    wanted = folder if file is None else file.parent
    try:
        if file is not None and file.exists() and not file.is_file():
            raise StoreError(f"{str(file)!r} is a folder or a device; name a file to write")
        there = next(one for one in (wanted.absolute(), *wanted.absolute().parents) if os.path.lexists(one))
        if not there.is_dir():
            raise StoreError(f"{str(there)!r} is no folder; name another place for {str(file or folder)!r}")
        disk = shutil.disk_usage(there)
        if disk.total and disk.free < ROOM:  # some file systems count nothing
            raise StoreError(
                f"{disk.free} bytes are free for {str(file or folder)!r}; free some space, or name another place"
            )
        probe = there / f".medv-{uuid.uuid4().hex}"
        try:
            with probe.open("xb", buffering=0) as stream:
                if stream.write(_PROBE) < len(_PROBE):
                    raise OSError("there is no room")
                os.fsync(stream.fileno())
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(
            f"{str(file or folder)!r} cannot be written ({error}); name another place, or mend this one"
        ) from error


def _whole_lines(path: Path, start: int) -> tuple[list[bytes], int]:
    """Return the lines behind byte `start` that end in a line break, and the byte where the last of them ends."""
    with open_file(path) as file:
        file.seek(start)
        *lines, torn = file.read().split(b"\n")
        return lines, file.tell() - len(torn)


def _parse(line: bytes, name: str) -> dict[str, Any]:
    try:
        record = parse_json(line)
    except ValueError as error:
        raise StoreError(
            f"{name} is no JSON ({error}): the file was damaged, not cut short; delete the line, and what it held is "
            "done again"
        ) from error
    if not isinstance(record, dict):
        raise StoreError(f"{name} is {record!r:.60}; a JSON object is wanted")
    return record


def _to_line(record: Mapping[str, Any]) -> bytes:
    """Return a record as a line; half a character, which UTF-8 has not, is written as JSON's escape."""
    return (json.dumps(record, ensure_ascii=False) + "\n").encode(errors="backslashreplace")

"""Files that survive a killed process: JSON lines written one by one, and a lock that names its holder.

A line counts once its line break is on the disk. What a killed process left behind the last line break is cut off
before anything is appended, and never read. Anything else that is not JSON is damage, and an error.
"""

import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

_PATIENCE = 1.0  # seconds; another process may hold a lock for an instant, to see whether it is free


class JournalError(ValueError):
    """A file or folder that cannot be written to or read as it is; the text says why and what to do."""


class Journal:
    """A file of JSON lines that is only appended to; every line is on the disk when `append` returns.

    Opening it repairs it; `repaired` is the number of bytes of a torn last line that were cut off. Threads may
    append at the same time, processes may not: hold a `FolderLock`.

    Raises:
        OSError: if the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = path.open("a+b", buffering=0)
        self._guard = threading.Lock()
        self.repaired = self._cut_torn_line()

    def append(self, record: Mapping[str, Any]) -> None:
        """Write a record as one line, to the disk."""
        line = json.dumps(record, ensure_ascii=False).encode() + b"\n"
        with self._guard:
            left = memoryview(line)
            while left:
                left = left[self._file.write(left) :]
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _cut_torn_line(self) -> int:
        self._file.seek(0)
        content = self._file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            self._file.truncate(whole)
            os.fsync(self._file.fileno())
        return len(content) - whole


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The records of a journal; a torn last line is not read, an absent file has none.

    Raises:
        JournalError: if a whole line is no JSON object.
    """
    if not path.exists():
        return []
    records = []
    *lines, _torn = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise JournalError(
                f"line {number} of {path.name} is no JSON ({error}): the file was damaged, not cut short; delete the "
                "line, and what it held is done again"
            ) from error
        if not isinstance(record, dict):
            raise JournalError(f"line {number} of {path.name} is {record!r}; a JSON object is wanted")
        records.append(record)
    return records


def replace_text(path: Path, text: str) -> None:
    """Write a whole file at once: a reader sees the old one or the new one, whenever the process dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with draft.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


class FolderLock:
    """The right to write to a folder, held by one process and given back by the system when that process ends.

    `.NAME.lock` is locked, `.NAME.json` says by whom. A holder that was killed leaves its name behind but not its
    lock: the next one takes over, and `stale` is what the dead one had written.

    Args:
        folder: made if it is absent.
        name: which of the folder's files are meant.
        about: what to say of the holder besides its process id.
    """

    def __init__(self, folder: Path, name: str, about: Mapping[str, Any] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._name = folder, name
        self._holder = folder / f".{name}.json"
        self._lock = FileLock(folder / f".{name}.lock", thread_local=False)
        self._about = {"pid": os.getpid(), **(about or {})}
        self.stale: dict[str, Any] | None = None

    def __enter__(self) -> "FolderLock":
        """Take the lock.

        Raises:
            JournalError: if a living process holds it; the text names its process id.
        """
        try:
            self._lock.acquire(timeout=_PATIENCE)
        except Timeout as error:
            pid = read_holder(self._folder, self._name).get("pid", "unknown")
            raise JournalError(
                f"another run (process {pid}) is writing {self._name} in {self._folder.name}; wait until it ends, or "
                "give this run a folder of its own"
            ) from error
        self.stale = read_holder(self._folder, self._name) or None
        replace_text(self._holder, json.dumps(self._about))
        return self

    def __exit__(self, *error: object) -> None:
        self._holder.unlink(missing_ok=True)
        self._lock.release()


def read_holder(folder: Path, name: str) -> dict[str, Any]:
    """What the last holder of a lock wrote about itself, alive or not; {} if it gave the lock back."""
    holder = folder / f".{name}.json"
    try:
        return json.loads(holder.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}


def is_held(folder: Path, name: str) -> bool:
    """Whether a living process holds a lock."""
    lock = FileLock(folder / f".{name}.lock", thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False

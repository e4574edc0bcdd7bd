"""Whatever moment a process dies at, its whole lines stay, the torn one goes, and its lock is free."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from medv_lab.store import FolderLock, Journal, StoreError, is_held, read_holder, read_lines

RECORDS = [{"text": "Ödem\nund mehr"}, {"number": 1.5}, {"empty": None}]


def test_a_journal_cut_anywhere_keeps_its_whole_lines(tmp_path):
    path = tmp_path / "lines.jsonl"
    with Journal(path) as journal:
        for record in RECORDS:
            journal.append(record)
    content = path.read_bytes()
    for length in range(len(content) + 1):
        path.write_bytes(content[:length])
        whole = content[:length].count(b"\n")
        assert read_lines(path) == RECORDS[:whole]
        with Journal(path) as journal:
            assert journal.repaired == length - (content[:length].rfind(b"\n") + 1)
            journal.append({"new": length})
        assert read_lines(path) == [*RECORDS[:whole], {"new": length}]


@pytest.mark.parametrize("line", [b"{]", b"[1]", b"", b"\xff"])
def test_damage_inside_a_journal_is_an_error_that_names_the_line(tmp_path, line):
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b'{"a": 1}\n' + line + b'\n{"b": 2}\n')
    with pytest.raises(StoreError, match="line 2 of lines.jsonl"):
        read_lines(path)


def test_a_journal_that_is_not_there_has_no_lines(tmp_path):
    assert read_lines(tmp_path / "none.jsonl") == []


HOLD = """
import sys, time
from pathlib import Path
from medv_lab.store import FolderLock
with FolderLock(Path(sys.argv[1]), "answers", {"shards": 2}):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_names_its_holder_and_dies_with_it(tmp_path):
    root = Path(__file__).parents[1]
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=root
    )
    try:
        assert holder.stdout.readline() == "held\n"
        assert is_held(tmp_path, "answers")
        assert not is_held(tmp_path, "reviews")
        with pytest.raises(StoreError, match=f"process {holder.pid}"), FolderLock(tmp_path, "answers"):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert read_holder(tmp_path, "answers") == {"pid": holder.pid, "shards": 2}
        with FolderLock(tmp_path, "answers") as lock:
            assert lock.stale == {"pid": holder.pid, "shards": 2}
            assert json.loads((tmp_path / ".answers.json").read_text()) == {"pid": os.getpid()}
        with FolderLock(tmp_path, "answers") as lock:
            assert lock.stale is None
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()

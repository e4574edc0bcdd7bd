"""Whatever moment a process dies at and whoever else writes, whole records stay and nothing else is one."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medv_lab import store as module
from medv_lab.store import (
    ExclusiveAccess,
    Store,
    StoreError,
    content_key,
    read_lines,
    replace_text,
    require_writable,
    write_lines,
)

ROOT = Path(__file__).parents[1]
RECORDS = {"a": {"text": "Ödem\nund mehr"}, "b": {"number": 1.5}, "c": {"empty": None}}


def start(code: str, *arguments) -> subprocess.Popen:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def fill(folder, records=RECORDS):
    with Store(folder) as store:
        store.put_all(records)
    return store


def files(folder):
    return sorted(folder.glob("records-*.jsonl"))


def test_what_was_put_is_found_again_and_a_key_keeps_its_first_record(tmp_path):
    store = fill(tmp_path)
    assert len(store) == 3 and list(store) == list(RECORDS) and "a" in store and "d" not in store
    store.put("a", {"text": "another"})
    again = Store(tmp_path)
    assert again == {key: {"key": key, **record} for key, record in RECORDS.items()}
    with pytest.raises(KeyError):
        again["d"]
    assert len(Store(tmp_path, "others")) == 0


def test_nothing_is_made_before_there_is_a_record(tmp_path):
    with Store(tmp_path / "new") as store:
        store.put_all({})
    assert not (tmp_path / "new").exists()


def test_keys_are_those_of_the_content():
    assert content_key({"a": 1, "b": [2]}, "x") == content_key({"b": [2], "a": 1}, "x")
    assert len({content_key("ab"), content_key("a", "b"), content_key(["a", "b"]), content_key()}) == 4


def test_a_store_cut_anywhere_keeps_its_whole_records_and_goes_on(tmp_path):
    fill(tmp_path)
    (path,) = files(tmp_path)
    content = path.read_bytes()
    for length in range(len(content) + 1):
        path.write_bytes(content[:length])
        whole = content[:length].count(b"\n")
        store = Store(tmp_path)
        assert list(store) == list(RECORDS)[:whole]
        with store:
            store.put("new", {"length": length})
        assert list(Store(tmp_path)) == [*list(RECORDS)[:whole], "new"]
        (made,) = set(files(tmp_path)) - {path}
        made.unlink()


@pytest.mark.parametrize("line", [b"{]", b"[1]", b"", b"\xff", b'{"text": "no key"}'])
def test_a_damaged_line_is_an_error_that_names_it(tmp_path, line):
    fill(tmp_path)
    (path,) = files(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + line + b"\n" + lines[2])
    with pytest.raises(StoreError, match=f"line 2 of {path.name}"):
        Store(tmp_path)


def test_damage_is_named_by_its_line_in_a_file_that_was_read_in_parts(tmp_path):
    fill(tmp_path)
    store, (path,) = Store(tmp_path), files(tmp_path)
    with path.open("ab") as file:
        file.write(b'{"key": "d"}\n?\n')
    with pytest.raises(StoreError, match="line 5 of"):
        store.refresh()


WRITE = """
import sys
from pathlib import Path
from medv_lab.store import Store
store = Store(Path(sys.argv[1]))
for number in range(100000):
    store.put_all({f"{sys.argv[2]}-{number}-{part}": {"text": "x" * 300} for part in range(3)})
    print(number, flush=True)
"""


def test_a_killed_writer_loses_nothing_that_it_said_was_kept(tmp_path):
    rng = random.Random(1)
    for run in range(4):
        child = start(WRITE, tmp_path, run)
        said = [int(child.stdout.readline())]
        time.sleep(rng.uniform(0, 0.2))
        child.send_signal(signal.SIGKILL)
        said += [int(line) for line in child.stdout.read().splitlines()]
        child.wait()
        child.stdout.close()
        store = Store(tmp_path)
        assert all(f"{run}-{number}-{part}" in store for number in said for part in range(3))
    assert {key.split("-")[0] for key in store} == {"0", "1", "2", "3"}
    assert all(len(store[key]["text"]) == 300 for key in store)


SHARE = """
import sys, time
from pathlib import Path
from medv_lab.store import Store
store = Store(Path(sys.argv[1]))
Path(sys.argv[1], sys.argv[2]).touch()
while len(list(Path(sys.argv[1]).glob("writer-*"))) < 3:
    time.sleep(0.01)
for number in range(60):
    store.put(f"all-{number}", {"by": sys.argv[2]})
    store.put(f"{sys.argv[2]}-{number}", {"by": sys.argv[2]})
store.refresh()
"""


def test_processes_that_share_only_a_folder_write_at_once_and_all_read_the_same(tmp_path):
    names = [f"writer-{number}" for number in range(3)]
    children = [start(SHARE, tmp_path, name) for name in names]
    for child in children:
        child.communicate(timeout=300)
    assert [child.returncode for child in children] == [0, 0, 0]
    assert len(files(tmp_path)) == 3  # one for each writer: nothing is locked
    assert not list(tmp_path.glob(".*lock*"))
    store = Store(tmp_path)
    assert len(store) == 4 * 60
    assert all(store[f"{name}-{number}"]["by"] == name for name in names for number in range(60))
    first = read_lines(files(tmp_path)[0])[0]["by"]  # its file was begun first
    assert {store[f"all-{number}"]["by"] for number in range(60)} == {first}


def test_a_reader_sees_what_others_wrote_and_agrees_with_whoever_comes_later(tmp_path):
    early, late = Store(tmp_path), Store(tmp_path)
    early.put("x", {"by": "early"})
    late.put("x", {"by": "late"})
    late.put("y", {"by": "late"})
    assert late["x"]["by"] == "late" and "y" not in early
    for store in (early, late):
        store.refresh()
        assert (store["x"]["by"], store["y"]["by"]) == ("early", "late")
        store.close()
    assert Store(tmp_path)["x"]["by"] == "early"


FULL = """
import resource, sys
from pathlib import Path
from medv_lab.store import Store
store = Store(Path(sys.argv[1]))
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, most))
kept = []
try:
    for number in range(100):
        store.put(f"before-{number}", {"text": "x" * 150})
        kept.append(number)
except OSError:
    assert f"before-{len(kept)}" not in store
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
store.put("after", {"text": "there is room again"})
print(len(kept))
"""


def test_a_full_disk_is_an_error_and_leaves_a_readable_store(tmp_path):
    child = start(FULL, tmp_path)
    kept = int(child.communicate(timeout=300)[0])
    assert child.returncode == 0 and 0 < kept < 10
    assert list(Store(tmp_path)) == [*(f"before-{number}" for number in range(kept)), "after"]


def test_a_file_of_lines_is_read_but_for_a_torn_end(tmp_path):
    path = tmp_path / "lines.jsonl"
    assert read_lines(path) == []
    write_lines(path, RECORDS.values())
    path.write_bytes(path.read_bytes() + b'{"torn": ')
    assert read_lines(path) == list(RECORDS.values())


HOLD = """
import sys, time
from pathlib import Path
from medv_lab.store import ExclusiveAccess
with ExclusiveAccess(Path(sys.argv[1]), "calls"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_exclusive_access_names_its_holder_and_dies_with_it(tmp_path):
    holder = start(HOLD, tmp_path)
    try:
        assert holder.stdout.readline() == "held\n"
        with ExclusiveAccess(tmp_path, "others"):
            pass
        with pytest.raises(StoreError, match=f"process {holder.pid}"), ExclusiveAccess(tmp_path, "calls"):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with ExclusiveAccess(tmp_path, "calls"):
            assert json.loads((tmp_path / ".calls.json").read_text()) == {"pid": os.getpid()}
        assert not (tmp_path / ".calls.json").exists()
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


def test_half_a_character_is_kept_and_harms_no_reader(tmp_path):
    fill(tmp_path, {"a": {"text": "one \ud83d two"}})
    (path,) = files(tmp_path)
    path.read_text(encoding="utf-8")
    assert Store(tmp_path)["a"]["text"] == "one \ud83d two"
    write_lines(tmp_path / "lines.jsonl", [{"text": "\ud800"}])
    assert read_lines(tmp_path / "lines.jsonl") == [{"text": "\ud800"}]


def test_pipes_and_folders_are_no_files_of_a_store(tmp_path):
    fill(tmp_path)
    os.mkfifo(tmp_path / "records-1.jsonl")
    (tmp_path / "records-2.jsonl").mkdir()
    assert len(Store(tmp_path)) == 3


def test_what_cannot_be_written_is_found_before_it_is_computed(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("kept")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for folder in ("file", "file/below", "loop", "/proc/nowhere"):
        with pytest.raises(StoreError, match="no folder|cannot be written"):
            require_writable(tmp_path / folder)
    for file in (tmp_path, "/dev/full"):
        with pytest.raises(StoreError, match="folder or a device"):
            require_writable(file=Path(file))
    require_writable(tmp_path / "new" / "folder")
    require_writable(file=tmp_path / "new" / "file")
    require_writable(file=tmp_path / "file")
    assert (tmp_path / "file").read_text() == "kept"
    assert sorted(os.listdir(tmp_path)) == ["file", "loop"]  # nothing is left, nothing is made
    monkeypatch.setattr(module, "ROOM", 1 << 62)
    with pytest.raises(StoreError, match="bytes are free"):
        require_writable(tmp_path)


def test_a_draft_that_finds_no_room_is_taken_away(tmp_path, monkeypatch):
    replace_text(tmp_path / "a.txt", "before")

    def no_room(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_room)
    with pytest.raises(OSError, match="No space left"):
        replace_text(tmp_path / "a.txt", "after")
    assert os.listdir(tmp_path) == ["a.txt"] and (tmp_path / "a.txt").read_text() == "before"

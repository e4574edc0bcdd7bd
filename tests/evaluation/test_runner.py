"""A results folder: nothing asked twice, nothing torn, one run at a time, and any number of processes give the same."""

import json
import os
import random
import time

import numpy as np
import pytest
from PIL import Image

from medv_lab.config import GenerationSettings
from medv_lab.evaluation.judges import Case, OverlapJudge
from medv_lab.evaluation.responders import DiffusionResponder, Query, Reply
from medv_lab.evaluation.runner import Answered, Shard, answer_questions, hash_picture, make_key, read_answers
from medv_lab.store import FolderLock, JournalError
from tests.evaluation.children import child_context
from tests.model.tiny import tiny_model, tiny_processor

SETTINGS = GenerationSettings(gen_length=8, block_length=4, steps=4)
QUERIES = [Query(f"q{number}", f"What is {'very ' * (7 * number % 5)}{number}?") for number in range(11)]


class Echo:
    """Answers with the question; counts what it is asked."""

    def __init__(self, name="echo", sha256="0", delay=0.0, **settings):
        self.name, self.delay, self.asked = name, delay, []
        self.identity = {"model": {"name": name, "sha256": sha256, "revision": None}, "settings": settings}

    @property
    def asked_ids(self):
        return [name for batch in self.asked for name in batch]

    def answer(self, queries):
        time.sleep(self.delay)
        self.asked.append([query.id for query in queries])
        return [Reply(f"you asked: {query.text}", 3) for query in queries]


def run(folder, responder=None, queries=QUERIES, **settings):
    return answer_questions(queries, responder or Echo(), folder, progress=False, **settings)


def shape(answers):
    return [(one.id, one.answer, one.passes) for one in answers]


def test_answers_come_in_the_order_of_the_questions_with_their_counts(tmp_path):
    answers = run(tmp_path, batch_size=4)
    assert [one.id for one in answers] == [query.id for query in QUERIES]
    assert all(one.answer == f"you asked: {one.question}" for one in answers)
    assert all(
        one.words == len(one.answer.split()) and one.passes == 3 and one.seconds >= 0 for one in answers
    )
    assert read_answers(tmp_path) == {answers[0].system: answers}


def test_batches_are_alike_in_length(tmp_path):
    echo = Echo()
    run(tmp_path, echo, batch_size=4)
    lengths = {query.id: len(query.text) for query in QUERIES}
    asked = [lengths[name] for batch in echo.asked for name in batch]
    assert asked == sorted(asked)
    assert [len(batch) for batch in echo.asked] == [4, 4, 3]


def test_a_rerun_asks_only_what_is_missing(tmp_path):
    run(tmp_path, queries=QUERIES[:4])
    echo = Echo()
    assert len(run(tmp_path, echo)) == len(QUERIES)
    assert sorted(echo.asked_ids) == sorted(query.id for query in QUERIES[4:])
    again = Echo()
    run(tmp_path, again)
    assert again.asked == []


@pytest.mark.parametrize("changed", [{"sha256": "1"}, {"steps": 2}])
def test_another_model_or_setting_is_another_system_in_the_same_folder(tmp_path, changed):
    run(tmp_path)
    echo = Echo(**changed)
    run(tmp_path, echo)
    assert len(echo.asked_ids) == len(QUERIES)
    assert len(read_answers(tmp_path)) == len(json.loads((tmp_path / "manifest.json").read_text())) == 2


def test_the_manifest_names_model_settings_and_versions(tmp_path):
    run(tmp_path, Echo(seed=7))
    (manifest,) = json.loads((tmp_path / "manifest.json").read_text()).values()
    assert manifest["model"]["sha256"] == "0"
    assert (manifest["seed"], manifest["settings"], manifest["questions"]) == (7, {"seed": 7}, len(QUERIES))
    assert "torch" in manifest["versions"]


def test_the_key_follows_question_picture_model_and_settings(tmp_path):
    black, white = (np.full((2, 2, 3), shade, np.uint8) for shade in (0, 255))
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    for file, pixels in zip(files, (black, white), strict=True):
        Image.fromarray(pixels).save(file)
    queries = [
        Query("q", "?"),
        Query("r", "?"),
        Query("q", "!"),
        *(Query("q", "?", x) for x in (black, white, *files)),
    ]
    queries += [Query("q", "?", [black, white]), Query("q", "?", Image.fromarray(black))]
    keys = [make_key(query, Echo().identity) for query in queries]
    keys += [make_key(queries[0], other.identity) for other in (Echo(sha256="1"), Echo(steps=1))]
    assert len(set(keys)) == len(keys)
    assert hash_picture(files[0]) == hash_picture(files[0].read_bytes()) == hash_picture(str(files[0]))
    with pytest.raises(TypeError, match="int is not a picture"):
        hash_picture(3)


@pytest.mark.parametrize("length", [1, 40, -1])
def test_a_torn_last_line_is_asked_again(tmp_path, length):
    first = run(tmp_path, batch_size=1)
    path = tmp_path / "shard-0.jsonl"
    *lines, last = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines) + last[:length])
    echo = Echo()
    assert shape(run(tmp_path, echo)) == shape(first)
    assert len(echo.asked_ids) == 1
    assert all(Answered(**json.loads(line)) for line in path.read_bytes().splitlines())


def test_another_run_in_the_folder_is_detected(tmp_path):
    with (
        FolderLock(tmp_path, "shard-0", {"shards": 1}),
        pytest.raises(JournalError, match=f"process {os.getpid()}"),
    ):
        run(tmp_path)
    with (
        FolderLock(tmp_path, "shard-1", {"shards": 3}),
        pytest.raises(JournalError, match="3 processes"),
    ):
        run(tmp_path, shard=Shard(0, 2))
    with FolderLock(tmp_path, "shard-1", {"shards": 2}):
        assert run(tmp_path, shard=Shard(0, 2)) is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"queries": [QUERIES[0], QUERIES[0]]}, "'q0'"), ({"batch_size": 0}, "1 or more")],
)
def test_what_cannot_be_run_is_refused(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        run(tmp_path, **settings)
    with pytest.raises(ValueError, match="has no answers"):
        read_answers(tmp_path)


def test_a_shard_must_be_one_of_them(monkeypatch):
    with pytest.raises(ValueError, match="0 to 1"):
        Shard(2, 2)
    assert Shard.from_environment() == Shard(0, 1)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert Shard.from_environment() == Shard(1, 3)


def tiny_responder() -> DiffusionResponder:
    return DiffusionResponder(tiny_model(initializer_range=0.4), tiny_processor(), SETTINGS)


def pictured() -> list[Query]:
    rng = np.random.default_rng(0)
    return [
        Query(query.id, query.text, rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for query in QUERIES
    ]


def answer_as(rank: int, count: int, folder, gate) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(count)}
    responder = tiny_responder()
    gate.wait(300)  # both at work at once
    answer_questions(pictured(), responder, folder, batch_size=3, progress=False)


def test_two_processes_give_the_answers_and_scores_of_one(tmp_path):
    context = child_context()
    gate = context.Barrier(2)
    children = [
        context.Process(target=answer_as, args=(rank, 2, tmp_path / "two", gate)) for rank in range(2)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(300)
    assert [child.exitcode for child in children] == [0, 0]
    one = run(tmp_path / "one", tiny_responder(), pictured(), batch_size=3)
    (two,) = read_answers(tmp_path / "two").values()
    assert [(a.key, a.system) for a in one] == [(a.key, a.system) for a in two]
    assert shape(one) == shape(two)
    assert len({answered.answer for answered in one}) > 1
    assert {answered.passes for answered in one} == {4}
    scores = [
        OverlapJudge().judge([Case(a.id, a.question, "a nodule in the lung", a.answer) for a in answers])
        for answers in (one, two)
    ]
    assert scores[0] == scores[1]
    shares = [len((tmp_path / "two" / f"shard-{rank}.jsonl").read_text().splitlines()) for rank in (0, 1)]
    assert shares == [6, 5]


def answer_slowly(folder, started) -> None:
    echo = Echo(delay=0.08)
    started.set()
    answer_questions([*QUERIES, *MORE], echo, folder, batch_size=2, progress=False)


MORE = [Query(f"more {number}", "?" * (number % 9)) for number in range(60)]


def test_a_killed_run_goes_on_where_it_was(tmp_path):
    rng = random.Random(3)
    context = child_context()
    path, lines = tmp_path / "shard-0.jsonl", [0]

    def count_lines() -> int:
        return path.read_bytes().count(b"\n") if path.exists() else 0

    for _ in range(4):
        started = context.Event()
        child = context.Process(target=answer_slowly, args=(tmp_path, started))
        child.start()
        assert started.wait(300)
        while child.is_alive() and count_lines() <= lines[-1]:  # a busy machine takes its time
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.3))
        child.kill()
        child.join()
        assert child.exitcode == -9
        lines.append(count_lines())
    assert lines == sorted(lines)
    echo = Echo()
    answers = run(tmp_path, echo, [*QUERIES, *MORE])
    assert len(answers) == len(echo.asked_ids) + lines[-1] == len(QUERIES) + len(MORE)
    assert 0 < lines[-1] < len(answers)
    assert len((tmp_path / "shard-0.jsonl").read_bytes().splitlines()) == len(answers)

"""`medv evaluate`: what they print, save, skip and refuse; two processes do what one does."""

import os
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

from medv_lab import evaluation
from medv_lab.config import PRESETS, Threshold
from medv_lab.data.vqa import read_vqa
from medv_lab.evaluation.benchmarks import answer_candidates
from medv_lab.evaluation.model_choice import ModelChoice
from medv_lab.evaluation.responders import FileResponder
from medv_lab.metrics.scoring import LLAVA_MED_VARIANTS, evaluate_vqa
from medv_lab.phantoms.conversation import make_conversation
from medv_lab.records import read_manifest, read_predictions
from tests.cli.console import fails_in_one_line, invoke, succeeds
from tests.data.released import make_chatbot, make_slake, make_vqa_rad, real_folders, write_lines
from tests.evaluation.chat_server import Books, serve
from tests.evaluation.children import child_context
from tests.evaluation.scripted import Scripted
from tests.model.tiny import save_tiny

run, refusal = partial(succeeds, "evaluate"), partial(fails_in_one_line, "evaluate")
TOKENS = re.compile(r"([\d,]+) tokens in, ([\d,]+) tokens out")
SHORT = ["--gen-length", "8", "--block-length", "8", "--steps", "4"]


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDV_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny(folder, initializer_range=0.4)
    return folder


@pytest.fixture(scope="module")
def vqa_rad(tmp_path_factory):
    return make_vqa_rad(tmp_path_factory.mktemp("vqa_rad"))


@pytest.fixture
def loaded(monkeypatch):
    """What was loaded in place of models: choice, settings and a responder that says yes."""
    made = []

    def load(choice, settings):
        made.append((choice, settings, Scripted(choice.model, settings, "yes")))
        return made[-1][-1]

    monkeypatch.setattr("medv_lab.evaluation.loading.load_responder", load)
    return made


def answers_file(path, ids, text="a cyst of the eye"):
    return write_lines(path, [{"question_id": name, "text": text} for name in ids])


def test_vqa_runs_end_to_end_and_a_rerun_asks_nothing(tiny, vqa_rad, tmp_path):
    command = ["vqa", "--data", vqa_rad, "--model", tiny, *SHORT, "--output", tmp_path]
    printed = run(*command)
    assert "differs: 203, 451, 272, 179" in printed  # the made folder is not the release
    assert "2 answers of" in printed and "passes per question 4.000" in printed
    (scores,) = tmp_path.glob("scores-*.csv")
    table = pd.read_csv(scores)
    assert set(table.variant) == {
        *LLAVA_MED_VARIANTS,
        "strict",
        "control (llava_med)",
        "control (strict)",
    }
    assert table[table.metric == "yes/no accuracy"].questions.tolist() == [1, 1, 1]
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.jsonl")}
    run(*command)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.jsonl")} == before


def test_phantoms_that_are_not_there_are_refused():
    assert "compositional" in refusal("phantoms", "--split", "train2")
    assert "shuffled" in refusal("phantoms", "--pictures", "wrong")
    assert "shuffled" in refusal("descriptions", "--pictures", "none")


def test_phantoms_are_scored_and_a_rerun_asks_nothing(loaded, tmp_path):
    command = ["phantoms", "--rounds", 1, "--output", tmp_path / "out"]
    printed = run(*command)
    ((name, predictions),) = read_predictions(tmp_path / "out").items()
    assert {one.text for one in predictions} == {"yes"}
    assert read_manifest(tmp_path / "out")[name]["asked"]["pictures"] == "right"
    scores = pd.read_csv(tmp_path / "out" / f"scores-{name}.csv").set_index(["kind", "group"])
    assert scores.loc[("closed", "all"), "score"] == 50
    row = next(line for line in printed.splitlines() if "closed" in line and "all" in line)
    assert "50.00" in row and str(scores.loc[("closed", "all"), "questions"]) in row
    assert "brain mri" in printed and "presence" in printed
    run(*command)
    assert [len(responder.asked) for *_, responder in loaded] == [len(predictions), 0]


def test_descriptions_are_scored_above_their_controls_and_a_rerun_asks_nothing(loaded, tmp_path):
    command = ["descriptions", "--number", 10, "--length", "brief", "--output", tmp_path / "out"]
    printed = run(*command, "--steps", 24)
    ((name, predictions),) = read_predictions(tmp_path / "out").items()
    asked = {"split": "test", "descriptions": 10, "length": "brief", "pictures": "right"}
    assert read_manifest(tmp_path / "out")[name]["asked"] == asked
    assert loaded[0][1] == replace(PRESETS["embedded-description"], steps=24)
    scores = pd.read_csv(tmp_path / "out" / f"scores-{name}.csv").set_index(["system", "measure"]).score
    assert scores["embedded", "facts"] == scores["embedded", "well-formed"] == 0  # "yes" is no report
    assert scores["reference", "facts"] == 100
    assert list(dict.fromkeys(scores.index.get_level_values("system")))[-1] == "word salad"
    assert "another picture" in printed and "contradictions" in printed
    run(*command, "--steps", 24)
    assert [len(responder.asked) for *_, responder in loaded] == [len(predictions), 0]


def test_the_embedded_model_describes_and_answers_of_a_file_are_scored_as_a_model_s(tmp_path):
    run("descriptions", "--number", 2, "--output", tmp_path / "model")
    ((name, predictions),) = read_predictions(tmp_path / "model").items()
    lines = [{"question_id": one.question_id, "text": one.text} for one in predictions]
    file = write_lines(tmp_path / "embedded.jsonl", lines)
    run("descriptions", "--number", 2, "--answers", file, "--output", tmp_path / "file")
    (again,) = (tmp_path / "file").glob("scores-*.csv")
    first, second = (pd.read_csv(path) for path in (tmp_path / "model" / f"scores-{name}.csv", again))
    pd.testing.assert_frame_equal(first[first.measure != "passes"].reset_index(drop=True), second)
    well_formed = first.set_index(["system", "measure"]).score["embedded", "well-formed"]
    assert well_formed > 90


def test_model_and_every_setting_can_be_given(loaded, vqa_rad, tmp_path):
    command = ["vqa", "--data", vqa_rad, "--model", "x", "--kind", "medv", "--output", tmp_path]
    run(*command)
    run(*command, "--preset", "fast", "--remasking", "threshold:threshold=0.8", "--seed", 3)
    assert [(choice, settings) for choice, settings, _ in loaded] == [
        (ModelChoice("x", "medv"), PRESETS["paper-vqa"]),
        (ModelChoice("x", "medv"), replace(PRESETS["fast"], remasking=Threshold(0.8), seed=3)),
    ]


def test_limit_and_split_choose_the_questions(tiny, vqa_rad, tmp_path):
    printed = run(
        "vqa", "--data", vqa_rad, "--split", "train", "--limit", 2, "--dry-run", "--output", tmp_path
    )
    assert "answers: 2 calls of the model" in printed
    assert not list(tmp_path.iterdir())


def test_answers_of_a_file_get_the_scores_of_both_scripts(vqa_rad, tmp_path):
    file = answers_file(tmp_path / "system.jsonl", [1, 4], "Yes, it is.")
    printed = run("vqa", "--data", vqa_rad, "--answers", file, "--output", tmp_path / "out")
    assert "2 answers of system" in printed
    assert "seconds" not in printed  # they were not made here
    (scores,) = (tmp_path / "out").glob("scores-*.csv")
    closed = pd.read_csv(scores).set_index(["variant", "metric"]).loc[("llava_med", "yes/no accuracy")]
    assert (closed.score, closed.questions) == (100, 1)


@pytest.mark.parametrize("data", real_folders("vqa_rad"), ids=str)
def test_the_real_vqa_rad_has_the_counts_of_table_8(data, tmp_path):
    printed = run("vqa", "--data", data, "--dry-run", "--output", tmp_path)
    rows = [line.split("│")[1:-1] for line in printed.splitlines() if "│ vqa-rad" in line]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["vqa-rad", "train", "313", "1797", "1027", "770", "equal"],
        ["vqa-rad", "test", "203", "451", "272", "179", "equal"],
    ]
    assert "answers: 451 calls of the model" in printed


@pytest.mark.parametrize("answers", real_folders("llava_med_eval"), ids=str)
def test_the_real_answers_get_llava_med_s_scores(answers, tmp_path):
    data, file = answers.parent / "vqa_rad", answers / "vqa_rad_answers_llava_med.jsonl"
    run("vqa", "--data", data, "--answers", file, "--output", tmp_path)
    (scores,) = tmp_path.glob("scores-*.csv")
    found = pd.read_csv(scores).set_index(["variant", "metric"]).score
    questions = read_vqa("vqa-rad", data).questions
    asked = [one for one in questions if one.split == "test"]
    texts = [prediction.text for prediction in FileResponder(file, "x").answer(asked)]
    assert len(texts) == 451
    for variant in LLAVA_MED_VARIANTS:
        expected = evaluate_vqa(asked, texts, variant, answer_candidates(questions))
        assert found[variant].to_dict() == pytest.approx(expected, abs=5e-5)  # the file has four digits
    quoted = [
        found["llava_med", "recall"],
        found["llava_med", "yes/no accuracy"],
        found["llava_med_batch", "yes/no accuracy"],
    ]
    readme = (Path(evaluation.__file__).parent / "README.md").read_text()
    assert all(f"{score:.2f}" in readme for score in quoted)


@pytest.mark.parametrize(
    ("data", "kinds", "domains"),
    [
        pytest.param(None, {"conversation": 1, "detailed_description": 1}, {"histology": 2}, id="made"),
        *(
            pytest.param(
                folder,
                {"conversation": 143, "detailed_description": 50},
                {"chest_xray": 37, "mri": 38, "histology": 44, "gross": 34, "ct_scan": 40},
                id="real",
            )
            for folder in real_folders("llava_med_eval")
        ),
    ],
)
def test_a_judged_dry_run_counts_calls_and_tokens(tmp_path, data, kinds, domains):
    data = data or make_chatbot(tmp_path / "data")
    total = sum(kinds.values())
    command = ["chat", "--data", data, "--judge", "a-judge", "--prices", 0.5, 2, "--dry-run"]
    command += ["--output", tmp_path / "o"]
    first, made_of, of_domains, answering, judging = run(*command).splitlines()
    assert first == f"{total} questions"
    assert dict(part.strip().split() for part in made_of.split(",")) == {k: str(n) for k, n in kinds.items()}
    assert dict(part.strip().split() for part in of_domains.split(",")) == {
        k: str(n) for k, n in domains.items()
    }
    assert answering.startswith(f"answers: {total} calls of the model")
    assert f": {total} calls, " in judging
    tokens_in, tokens_out = (int(number.replace(",", "")) for number in TOKENS.search(judging).groups())
    assert tokens_in > 200 * total
    assert tokens_out == 150 * total
    assert f"cost {(0.5 * tokens_in + 2 * tokens_out) / 1e6:.4f}" in judging
    assert not (tmp_path / "o").exists()
    assert f": {2 * total} calls, " in run(*command, "--swap").splitlines()[-1]


def test_real_answers_shorten_the_estimate(tmp_path):
    data = make_chatbot(tmp_path / "data")
    file = answers_file(tmp_path / "a.jsonl", [0, 1])
    command = ["chat", "--data", data, "--judge", "a-judge", "--dry-run"]
    longest, short = (run(*command, *more).splitlines()[-1] for more in ([], ["--answers", file]))
    counts = [int(TOKENS.search(text)[1].replace(",", "")) for text in (short, longest)]
    assert counts[0] < counts[1]


def test_an_endpoint_judges_once_and_reports_bias_and_spending(tmp_path):
    data, file = make_chatbot(tmp_path / "data"), answers_file(tmp_path / "a.jsonl", [0, 1])
    with serve(Books(usage={"prompt_tokens": 100, "completion_tokens": 10})) as books:
        command = ["chat", "--data", data, "--answers", file, "--judge", "a-judge", "--judge-url", books.url]
        command += ["--swap", "--prices", 1, 10, "--cap", 1, "--output", tmp_path / "out"]
        printed = run(*command)
        assert "points of 10 gained by being shown first: 2.0 [2.0, 2.0]" in printed
        assert "spent: 4 calls, 400 tokens in, 40 tokens out, cost 0.0008; 0 unparsable, 0 lost" in printed
        assert "a-judge (" in printed and "candidate first" in printed
        run(*command)
        assert sum(books.made.values()) == len(books.requests) == 4


def test_refusals_and_odd_parameters_are_told(tmp_path):
    data = make_chatbot(tmp_path / "data")
    texts = ("a cyst", "an ulcer")
    file = write_lines(
        tmp_path / "a.jsonl", [{"question_id": n, "text": text} for n, text in enumerate(texts)]
    )
    command = ["chat", "--data", data, "--answers", file, "--judge", "j", "--output", tmp_path / "out"]
    with serve(Books(refused={"seed": None, "temperature": 1})) as books:
        command += ["--judge-url", books.url]
        assert "seed=none" in refusal(*command)
        command += ["--judge-set", "seed=none", "--judge-set", "temperature=1"]
        books.filtered = "an ulcer"
        assert "1 of 2 unscored (1 refused, 0 without readable scores); means are over the rest" in run(
            *command
        )
        calls = len(books.requests)
        assert "1 of 2 unscored" in run(*command) and len(books.requests) == calls
    (scores,) = (tmp_path / "out").glob("scores-*.csv")
    assert set(pd.read_csv(scores).unscored) == {1}
    assert "no parameter=value" in refusal(*command, "--judge-set", "colour=1")
    for cap in ("nan", "inf", "-1"):
        assert "cap is" in refusal(*command, "--prices", 1, 10, "--cap", cap)


def test_a_judge_that_cannot_be_reached_or_paid_is_one_line(tmp_path):
    data, file = make_chatbot(tmp_path / "data"), answers_file(tmp_path / "a.jsonl", [0, 1])
    command = ["chat", "--data", data, "--answers", file, "--judge", "j", "--output", tmp_path / "out"]
    with serve(Books()) as books:
        message = refusal(*command, "--judge-url", books.url, "--prices", 1, 10, "--cap", 1e-9)
    assert "raise the cap" in message
    assert not books.requests


def test_phantoms_are_judged_by_their_facts(tmp_path):
    asked = make_conversation(pictures=5)
    file = write_lines(
        tmp_path / "a.jsonl", [{"question_id": one.id, "text": one.reference} for one in asked]
    )
    printed = run(
        "chat", "--answers", file, "--pictures", 5, "--judge", "facts", "--output", tmp_path / "out"
    )
    (scores,) = (tmp_path / "out").glob("scores-*.csv")
    assert set(pd.read_csv(scores).score) == {100}
    assert "phantom facts" in printed
    assert "not judged" in run("chat", "--answers", file, "--pictures", 5, "--output", tmp_path / "out")


def test_what_cannot_be_evaluated_is_one_line(tmp_path, vqa_rad, tiny):
    chatbot, slake = make_chatbot(tmp_path / "chat"), make_slake(tmp_path / "slake")
    assert "does not say which data set" in refusal("vqa", "--data", chatbot)
    assert "no questions of split 'validation'" in refusal("vqa", "--data", vqa_rad, "--split", "validation")
    assert "no questions of split 'test' in 'zh'" in refusal("vqa", "--data", slake, "--language", "zh")
    assert "knows phantoms only" in refusal("chat", "--data", chatbot, "--judge", "facts")
    assert "calls nobody" in refusal("chat", "--data", chatbot, "--judge", "overlap", "--swap")
    assert "no prices" in refusal("chat", "--data", chatbot, "--judge", "j", "--cap", 1, "--dry-run")
    assert "RetinalGPT" in refusal("vqa", "--data", vqa_rad, "--model", "RetinalGPT")
    assert "allowed are auto" in refusal("vqa", "--data", vqa_rad, "--model", tiny, "--kind", "ar")
    missing = answers_file(tmp_path / "a.jsonl", [1])
    assert "but not '4'" in refusal(
        "vqa", "--data", vqa_rad, "--answers", missing, "--output", tmp_path / "o"
    )


def test_missing_pictures_are_told_unless_answers_are_given(tmp_path):
    data = make_chatbot(tmp_path / "data")
    (data / "images" / "a.jpg").unlink()
    with pytest.warns(UserWarning, match="broken"):
        result = invoke("evaluate", "chat", "--data", data)
    assert result.exit_code == 2
    assert result.stderr.count("missing image") == 2
    assert "2 answers" in run("chat", "--data", data, "--answers", answers_file(tmp_path / "a.jsonl", [0, 1]))


def evaluate_as(rank: int, arguments: list[str], printed) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
    printed.put((rank, run(*arguments)))


def test_two_processes_answer_and_score_as_one(tiny, vqa_rad, tmp_path):
    command = ["vqa", "--data", vqa_rad, "--split", "train", "--model", tiny, *SHORT, "--output"]
    context = child_context()
    printed = context.Queue()
    children = [
        context.Process(
            target=evaluate_as, args=(rank, list(map(str, [*command, tmp_path / "two"])), printed)
        )
        for rank in range(2)
    ]
    for child in children:
        child.start()
    texts = dict(printed.get(timeout=300) for _ in children)
    for child in children:
        child.join(300)
    assert [child.exitcode for child in children] == [0, 0]
    assert "3 answers of" in texts[0]
    assert "Table 8" in texts[0]
    assert "Table 8" not in texts[1]  # one voice
    run(*command, tmp_path / "one")
    (scores,) = (path.name for path in (tmp_path / "one").glob("scores-*.csv"))
    assert (tmp_path / "one" / scores).read_text() == (tmp_path / "two" / scores).read_text()

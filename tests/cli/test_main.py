"""The command line: what it draws, and one clear line when it cannot."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

import medv_lab.cli.main
from medv_lab.cli.main import app
from tests.data.released import draw, write_json
from tests.data.test_validation import asked
from tests.model.tiny import save_tiny

RUNNER = CliRunner()


def fails_in_one_line(*arguments: str) -> str:
    result = RUNNER.invoke(app, list(arguments))
    assert result.exit_code == 2, result.output
    lines = result.stderr.strip().splitlines()
    return lines[-1] if len(lines) == 1 or "unning on" in lines[0] else pytest.fail(result.stderr)


def test_figures_are_drawn_with_their_gallery(tmp_path):
    arguments = [
        "figures",
        "--only",
        "table",
        "--results",
        str(tmp_path / "none"),
        "--output",
        str(tmp_path / "out"),
    ]
    done = RUNNER.invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "7 drawn, 0 lack results" in done.output
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert len(names) == 7 * 3 + 1 and "index.html" in names


def test_a_figure_without_results_is_one_line(tmp_path):
    arguments = ["figures", "--only", "fig05", "--results", str(tmp_path), "--output", str(tmp_path / "out")]
    assert "medv panels" in fails_in_one_line(*arguments)


def test_a_system_without_a_name_is_one_line(tmp_path):
    message = fails_in_one_line("panels", "--system", "embedded", "--output", str(tmp_path))
    assert "give NAME=CHECKPOINT" in message


def test_panels_are_answered_once(tmp_path):
    save_tiny(tmp_path / "model")
    line = {
        "id": "a",
        "group": "vqa",
        "domain": "ct",
        "question": "Why?",
        "reference": "So.",
        "picture": "x.png",
    }
    draw(tmp_path / "x.png")
    (tmp_path / "questions.jsonl").write_text(json.dumps(line) + "\n")
    arguments = [
        "panels",
        "--system",
        f"V1={tmp_path / 'model'}",
        "--questions",
        str(tmp_path / "questions.jsonl"),
    ]
    arguments += ["--output", str(tmp_path / "panels"), "--device", "cpu"]
    result = RUNNER.invoke(app, arguments)
    assert result.exit_code == 0, result.output
    before = {path.name: path.read_bytes() for path in (tmp_path / "panels").glob("answers-*")}
    assert len(before) == 1 and RUNNER.invoke(app, arguments).exit_code == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "panels").glob("answers-*")} == before


def test_an_unknown_figure_is_one_line(tmp_path):
    assert "fig01_radar" in fails_in_one_line("figures", "--only", "fig99", "--output", str(tmp_path))


def test_impossible_settings_are_one_line():
    message = fails_in_one_line("ask", "x.png", "What?", "--gen-length", "64", "--block-length", "24")
    assert "not divisible" in message


@pytest.mark.parametrize("command", [["ask", "x.png", "What?"], ["evaluate", "phantoms"]])
def test_a_missing_checkpoint_is_one_line(command):
    assert "no_such_folder" in fails_in_one_line(*command, "--model", "./no_such_folder")


def test_an_unknown_device_is_one_line():
    assert "tpu" in fails_in_one_line("ask", "x.png", "What?", "--device", "tpu")


def test_text_in_brackets_survives():
    assert "[x]" in fails_in_one_line("ask", "x.png", "What?", "--device", "[x]")


def test_an_unknown_split_is_one_line():
    assert "compositional" in fails_in_one_line("evaluate", "phantoms", "--split", "train2")


def test_an_unknown_choice_of_pictures_is_one_line():
    assert "shuffled" in fails_in_one_line("evaluate", "phantoms", "--pictures", "wrong")


def test_the_phantom_benchmark_prints_its_scores(tmp_path, monkeypatch):
    def always_yes(pictures, questions):
        return ["yes" for _ in questions]

    monkeypatch.setattr(medv_lab.cli.main, "_load", lambda *_: (None, None))
    monkeypatch.setattr("medv_lab.evaluation.responders.make_respond", lambda *_: always_yes)
    result = RUNNER.invoke(app, ["evaluate", "phantoms", "--rounds", "1", "--output", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    answers = [json.loads(line) for line in (tmp_path / "out" / "answers.jsonl").read_text().splitlines()]
    assert {answer["answer"] for answer in answers} == {"yes"}
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["settings"]["pictures"] == "right"
    closed = [answer["score"] for answer in answers if answer["is_closed"]]
    row = next(line for line in result.output.splitlines() if "closed" in line and "all" in line)
    assert str(len(closed)) in row
    assert f"{100 * sum(closed) / len(closed):.1f}" in row


def test_training_is_the_module_s_own(tmp_path, monkeypatch):
    calls = []

    def rebuild(output, question_only, log):
        log("step")
        calls.append((output, question_only))

    monkeypatch.setattr("medv_lab.training.embedded.rebuild", rebuild)
    result = RUNNER.invoke(app, ["train", "--output", str(tmp_path / "new"), "--question-only"])
    assert result.exit_code == 0, result.output
    assert calls == [(tmp_path / "new", True)]
    assert "step" in result.output


def test_training_data_is_checked(tmp_path):
    images = draw(tmp_path / "images" / "a.png").parent
    file = write_json(tmp_path / "x.json", [asked(), asked(image="b.png", id="7")])
    arguments = ["data", "check", str(file), "--images", str(images), "--output", str(tmp_path / "x.csv")]
    result = RUNNER.invoke(app, arguments)
    assert result.exit_code == 2, result.output
    assert "row 2 (id 7): missing image" in result.stdout
    assert "2 rows, 2 images, 1 broken rows" in result.stdout
    assert (tmp_path / "x.csv").read_text().splitlines()[1].startswith("2,7,missing image,")
    draw(images / "b.png")
    result = RUNNER.invoke(app, [*arguments, "--open-images"])
    assert result.exit_code == 0, result.output
    assert "2 rows, 2 images, 0 broken rows" in result.stdout
    assert "answer characters" in result.stdout


def test_lengths_of_training_data_are_the_model_s(tmp_path):
    images = draw(tmp_path / "images" / "a.png").parent
    save_tiny(tmp_path / "model")
    file = write_json(tmp_path / "x.json", [asked(), asked(answer="why " * 600)])
    arguments = ["data", "check", str(file), "--images", str(images), "--model", str(tmp_path / "model")]
    result = RUNNER.invoke(app, arguments)
    assert result.exit_code == 2, result.output
    assert "row 2: too long" in result.stdout
    assert "512 are allowed" in result.stdout
    assert "1 broken rows" in result.stdout
    result = RUNNER.invoke(app, [*arguments, "--max-length", "5000"])
    assert result.exit_code == 0, result.output
    assert "needs --model" in fails_in_one_line(*arguments[:-2], "--max-length", "5000")
    assert "no usable tokenizer" in fails_in_one_line(*arguments[:-1], str(images))


def test_absent_training_data_is_one_line(tmp_path):
    message = fails_in_one_line("data", "check", str(tmp_path / "absent.json"), "--images", str(tmp_path))
    assert "absent.json" in message


def test_the_dry_run_prints_parameters_and_memory_of_every_stage():
    result = RUNNER.invoke(app, ["train", "--dry-run", "--processes", "4"])
    assert result.exit_code == 0, result.output
    rows = {line[:25].strip(): line[25:].split("  ") for line in result.output.splitlines()}
    tuned = ["8,015,585,280"] * 4
    assert [cell.strip() for cell in rows["language_tower trainable"] if cell.strip()] == ["0", *tuned]
    assert "21,504,000" in rows["projector trainable"]
    assert "24.1 GB" in {cell.strip() for cell in rows["ZeRO-3 optimizer"]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stage", "align"], "alignment, instruct, vqa"),
        (["--stage", "vqa", "--set", "step=3"], "settings are"),
        (["--stage", "all", "--resume"], "single stage"),
        (["--stage", "vqa", "--question-only"], "--stage all"),
        (["--preset", "full"], "phantoms train the preset 'embedded'"),
    ],
)
def test_training_that_is_not_there_is_one_line(tmp_path, arguments, message):
    assert message in fails_in_one_line("train", "--output", str(tmp_path), *arguments)


def test_training_needs_a_folder():
    assert "--output" in fails_in_one_line("train")


def test_a_fault_of_ours_keeps_its_traceback(monkeypatch):
    def fault():
        raise KeyError("a fault")

    monkeypatch.setattr("medv_lab.model.checkpoint_files.doctor", fault)
    assert isinstance(RUNNER.invoke(app, ["doctor"]).exception, KeyError)


def test_the_doctor_names_every_known_checkpoint():
    result = RUNNER.invoke(app, ["doctor"])
    assert result.exit_code == 0
    assert "LLaDA" in result.output


def test_help_needs_no_torch():
    code = (
        "import sys; sys.modules['torch'] = None; sys.argv = ['medv', '--help']\n"
        "from medv_lab.cli.main import app\napp()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "evaluate" in done.stdout


def test_ablations_are_run_shown_and_held_against_what_was_there(tmp_path, monkeypatch):
    def run(self, arm, seed, *, fresh):
        scores = dict.fromkeys(("closed", "open", "facts", "duplicates"), 50.0 + seed)
        about = {"arm": arm.name, "equal": arm.equal, "seed": seed, "steps": arm.steps}
        return about | {"digest": self.digest(arm, seed), "scores": scores}

    monkeypatch.setattr("medv_lab.training.ablations.AblationRunner.run", run)
    places = ["--output", str(tmp_path / "out"), "--cache", str(tmp_path / "cache"), "--only", "V1"]
    result = RUNNER.invoke(app, ["ablations", *places, "--seeds", "2"])
    assert result.exit_code == 0, result.output
    assert "V1, equal in compute, seed 1: closed 51.0" in result.output
    result = RUNNER.invoke(app, ["ablations", *places, "--seeds", "1", "--rerun"])
    assert result.output.count("against what was there") == 2
    assert result.output.count("True") == 6
    assert "there are main, V1" in fails_in_one_line("ablations", "--only", "v3", *places[:4])

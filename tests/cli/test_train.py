"""The commands that train: what goes together, what is printed, and one clear line for what does not."""

import pytest

from medv_lab.training.recipes import EMBEDDED, Budget, Engine, vary
from medv_lab.training.single_stage import PhantomRun
from tests.cli.console import fails_in_one_line, succeeds


def test_training_is_the_module_s_own(tmp_path, monkeypatch):
    calls = []

    def rebuild(output, question_only, budget, device, log):
        log("step")
        calls.append((output, question_only, budget, device))

    monkeypatch.setattr("medv_lab.training.embedded.rebuild", rebuild)
    assert "step" in succeeds("train", "--output", tmp_path / "new", "--question-only")
    succeeds(
        "train",
        "--output",
        tmp_path / "new",
        "--scenes",
        "50",
        "--rounds",
        "2",
        "--seed",
        "1",
        "--device",
        "cpu",
    )
    assert calls == [
        (tmp_path / "new", True, Budget(), "auto"),
        (tmp_path / "new", False, Budget(scenes=50, question_rounds=2, seed=1), "cpu"),
    ]


def test_a_stage_on_phantoms_has_the_settings_that_were_given(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(
        "medv_lab.training.single_stage.train_on_phantoms",
        lambda run, output, *, engine, resume, log: calls.append((run, output, engine, resume)),
    )
    stage = ("train", "--output", tmp_path, "--stage", "vqa")
    succeeds(*stage)
    given = ("--model", "x", "--scenes", "50", "--rounds", "2", "--seed", "1", "--set", "steps=3", "--resume")
    how = (
        "--accumulation",
        "2",
        "--checkpointing",
        "--compile",
        "--save-steps",
        "5",
        "--log-steps",
        "6",
        "--device",
        "cpu",
    )
    succeeds(*stage, *given, *how)
    recipe, engine = EMBEDDED["vqa"], Engine(2, True, True, 5, log_steps=6, device="cpu")
    assert calls == [
        (PhantomRun("vqa", recipe), tmp_path, Engine(save_steps=100), False),
        (PhantomRun("vqa", vary(recipe, ["steps=3"]), "x", 50, 2, 1), tmp_path, engine, True),
    ]


def test_the_dry_run_prints_parameters_and_memory_of_every_stage():
    lines = succeeds("train", "--dry-run", "--processes", "4").splitlines()
    rows = {line[:25].strip(): line[25:].split("  ") for line in lines}
    tuned = ["8,015,585,280"] * 4
    assert [cell.strip() for cell in rows["language_model trainable"] if cell.strip()] == ["0", *tuned]
    assert "21,504,000" in rows["projector trainable"]
    assert "24.1 GB" in {cell.strip() for cell in rows["ZeRO-3 optimizer"]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stage", "align"], "instruct, vqa"),
        (["--stage", "vqa", "--set", "step=3"], "settings are"),
        (["--stage", "all", "--resume"], "single stage"),
        (["--stage", "vqa", "--question-only"], "--stage all"),
        (["--data", "x.json"], "--dataset for a VQA release"),
        (["--data", "x", "--images", "y", "--dataset", "slake"], "--images for an instruction file"),
        (["--preset", "full"], "phantoms train the preset 'embedded'"),
    ],
)
def test_training_that_is_not_there_is_one_line(tmp_path, arguments, message):
    assert message in fails_in_one_line("train", "--output", tmp_path, *arguments)


def test_training_needs_a_folder():
    assert "--output" in fails_in_one_line("train")


def test_ablations_are_run_shown_and_held_against_what_was_there(tmp_path, monkeypatch):
    def run(self, arm, seed, *, fresh):
        outcomes = {name: [40 + seed, 60 + seed] for name in ("closed", "open", "facts", "duplicates")}
        about = {"arm": arm.name, "equal": arm.equal, "seed": seed, "steps": arm.steps}
        return about | {"digest": self.digest(arm, seed), "outcomes": outcomes}

    monkeypatch.setattr("medv_lab.training.ablations.AblationRunner.run", run)
    folders = ["--output", tmp_path / "out", "--cache", tmp_path / "cache"]
    output = succeeds("ablations", *folders, "--only", "V1", "--seeds", "2")
    assert "V1, equal in compute, seed 1: closed 51.0" in output
    assert "50.000 51.000" in output and "comparisons with Table 4" in output
    output = succeeds("ablations", *folders, "--only", "V1", "--seeds", "1", "--rerun")
    assert output.count("against what was there") == 2
    assert output.count("True") == 6
    assert "there are main, V1" in fails_in_one_line("ablations", *folders, "--only", "v3")

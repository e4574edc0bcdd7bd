"""Tables 1 to 3 of the small world: what a run writes, resumes and refuses, and that scores follow from answers."""

import json
from dataclasses import replace

import pandas as pd
import pytest
from typer.testing import CliRunner

from medv_lab.cli.main import app
from medv_lab.metrics.scoring import SAYS_BOTH_NAME
from medv_lab.phantoms.reports import CONTROLS
from medv_lab.studies import table_scores as scoring
from medv_lab.studies import tables
from medv_lab.studies.table_run import TableRun
from medv_lab.studies.table_scores import DIFFERENCES, score_table
from medv_lab.studies.tables import frame_texts, measure_tables, read_run, read_table
from tests.evaluation import scripted

RUN = TableRun(pictures=5, rounds=1, steps=(96, 6))


class Oracle(scripted.Oracle):
    """Right wherever it is shown a picture, silent where it is not; counts what it is asked."""

    def __init__(self, model, settings, name):
        self.name, self.asked, self.model = name, [], {"name": model}
        self.settings = {} if name == "twin" else {"steps": settings.steps}

    def answer(self, questions):
        self.asked += questions
        return super().answer(questions)


@pytest.fixture
def oracles(monkeypatch):
    made = []
    monkeypatch.setattr("os.fsync", lambda file: None)  # what a crash leaves is tested elsewhere

    def load(choice, settings, name):
        made.append(Oracle(choice.model, settings, name))
        return made[-1]

    monkeypatch.setattr(tables, "load_responder", load)
    return made


def measure(folder, *systems, number=(1, 2, 3), run=RUN):
    lines, models = [], {name: f"folder of {name}" for name in systems}
    return measure_tables(models, folder, run, number, lines.append), "\n".join(lines)


def test_all_tables_are_written_and_say_what_is_missing(oracles, tmp_path):
    written, said = measure(tmp_path, "question-only", "diffusion")
    assert [folder.name for folder in written] == ["table1", "table2", "table3"]
    assert "rows missing, since no model was named for them: ours, twin, V1, V2" in said
    for folder in written:
        answers, manifest = read_table(folder)
        assert manifest["missing"] == ["ours", "twin", "V1", "V2"]
        assert read_run(manifest) == RUN
        assert {one.system for one in answers} == {system["system"] for system in manifest["systems"]}
        assert all("versions" in system for system in manifest["systems"])
        for name, text in frame_texts(manifest["table"], RUN, answers).items():
            assert (folder / name).read_text() == text


def test_scores_are_those_of_the_answers(oracles, tmp_path):
    measure(tmp_path, "diffusion", "question-only")
    one, two, three = (pd.read_csv(tmp_path / f"table{number}" / "scores.csv") for number in (1, 2, 3))
    facts = one[one.judge == "phantom facts"].set_index(["system", "group"]).estimate
    assert facts["diffusion", "all"] == 100
    assert facts["question-only", "conversation"] == 10  # 1 of 10 points for silence
    means = two.groupby("system").estimate.mean().to_dict()
    assert 0 < means.pop("says yes no to everything") < 50  # the control, which strict scores give nothing
    assert means == {"diffusion": 100, "question-only": 0}
    assert set(three[three.steps.notna()].system) == {"diffusion"}
    assert set(three.steps.dropna()) == {96, 6}
    passes = three[three.quantity == "passes_per_question"]
    assert (passes.estimate == 3).all() and (passes.low == 3).all()
    gaps = [pd.read_csv(tmp_path / f"table{number}" / "differences.csv") for number in (1, 2, 3)]
    assert [tuple(gap.columns) for gap in gaps] == list(DIFFERENCES.values())
    assert (gaps[1].estimate == 100).all()
    assert set(gaps[0].minus) == {"question-only"}
    assert (gaps[2].estimate == 0).all() and set(gaps[2].minus_steps) == {6}


def test_controls_of_descriptions_need_no_answers(oracles, tmp_path):
    measure(tmp_path, "diffusion", number=(1, 3), run=TableRun(pictures=10, rounds=1, steps=(96,)))
    one, three = (pd.read_csv(tmp_path / f"table{number}" / "scores.csv") for number in (1, 3))
    for table in (one[one.judge == "phantom facts"], three[three.quantity == "relative"]):
        own = table[table.system.isin(CONTROLS)].set_index("system")
        assert tuple(own.index) == CONTROLS
        assert set(own.group) == {"detailed_description"}
        assert own.estimate["reference"] == 100
        assert own.estimate["word salad"] < 20 < own.estimate["another picture"] < 70
    blind = one[(one.judge == "word overlap") & (one.system == "word salad")]
    assert blind.estimate.item() == 100  # that judge sees no order of words
    assert set(three[three.system.isin(CONTROLS)].quantity) == {"words_per_question", "relative"}


def test_a_rerun_asks_only_what_is_missing_and_the_blind_see_nothing(oracles, tmp_path):
    measure(tmp_path, "diffusion", number=(1,))
    first = len(oracles[0].asked)
    measure(tmp_path, "diffusion", "question-only", number=(1, 3))
    asked = {(one.name, one.settings["steps"]): len(one.asked) for one in oracles[1:]}
    assert asked == {("diffusion", 96): 0, ("question-only", 96): first, ("diffusion", 6): first}
    blind = next(one for one in oracles if one.name == "question-only" and one.asked)
    assert {question.image for question in blind.asked} == {None}


def test_equal_budgets_are_compared_with_each_other(oracles, tmp_path):
    measure(tmp_path, "twin", "ours", "diffusion", "V1", number=(1, 2))
    for number in (1, 2):
        gaps = pd.read_csv(tmp_path / f"table{number}" / "differences.csv")
        pairs = list(dict.fromkeys(zip(gaps.system, gaps.minus, strict=True)))
        others = ["ours", "twin", "V1"]
        assert pairs == [("diffusion", name) for name in others] + [("ours", name) for name in others[1:]]


def test_what_cannot_be_measured_is_refused(oracles, tmp_path):
    for systems, number, message in (
        ((), (1,), "systems are none"),
        (("LLaVA",), (1,), "systems are LLaVA"),
        (("twin",), (4,), "allowed are 1, 2 and 3"),
        (("V1",), (3,), "diffusion, ours and twin"),
    ):
        with pytest.raises(ValueError, match=message):
            measure(tmp_path, *systems, number=number)


def test_answers_to_other_questions_are_not_scored(oracles, tmp_path):
    measure(tmp_path, "diffusion", number=(1,))
    answers, _ = read_table(tmp_path / "table1")
    with pytest.raises(ValueError, match="in the order of the questions"):
        score_table(1, RUN, answers[1:])
    with pytest.raises(ValueError, match="in the order of the questions"):
        score_table(1, TableRun(pictures=10, rounds=1), answers)


def test_better_answers_score_higher_in_every_table(oracles, tmp_path):
    measure(tmp_path, "diffusion")
    for number in (1, 2, 3):
        answers, _ = read_table(tmp_path / f"table{number}")
        spoilt = [replace(one, text="two two two small", system="V1") for one in answers]
        scores, gaps = scoring.score_table(number, RUN, [*answers, *spoilt])
        key = {1: ["judge", "group"], 2: ["benchmark", "kind"], 3: ["steps", "group", "quantity"]}[number]
        own = scores[scores.get("quantity", "relative") == "relative"] if number == 3 else scores
        wide = own[~own.system.isin([*CONTROLS, SAYS_BOTH_NAME])].pivot(
            index=key, columns="system", values="estimate"
        )
        assert (wide.diffusion > wide.V1).all()
        if number < 3:
            assert (gaps.estimate > 0).all()


def test_case_1_saying_yes_and_no_to_everything_wins_by_the_script_and_loses_in_whole_words(
    oracles, tmp_path
):
    measure(tmp_path, "diffusion", number=(2,))
    answers, _ = read_table(tmp_path / "table2")
    scores, gaps = scoring.score_table(2, RUN, answers)
    means = scores.groupby(["system", "kind"]).estimate.mean()
    assert means[SAYS_BOTH_NAME].to_dict() == {"closed": 100, "closed, strict": 0, "open": 0}
    assert means["diffusion", "closed, strict"] == means["diffusion", "closed"] == 100
    assert SAYS_BOTH_NAME not in set(gaps.minus)


def test_the_command_prints_every_table(oracles, tmp_path):
    command = [
        "evaluate",
        "tables",
        "--output",
        str(tmp_path),
        *["--twin", "t", "--pictures", "5", "--rounds", "1"],
    ]
    result = CliRunner(env={"COLUMNS": "250"}).invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "rows missing, since no model was named for them: ours, V1, V2, question-only" in result.output
    for word in ("phantom facts", "word overlap", "compositional", "seconds_per_word", "twin"):
        assert word in result.output
    manifest = json.loads((tmp_path / "table1" / "manifest.json").read_text())
    assert [system["model"]["name"] for system in manifest["systems"]] == ["embedded", "t"]
    assert (tmp_path / "table2" / "scores.csv").read_text().startswith("system,benchmark")

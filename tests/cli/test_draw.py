"""The commands that ask for and draw the figures."""

import json

from tests.cli.console import fails_in_one_line, invoke
from tests.data.released import draw
from tests.model.tiny import save_tiny


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
    done = invoke(*arguments)
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
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    before = {path.name: path.read_bytes() for path in (tmp_path / "panels").glob("answers-*")}
    assert len(before) == 1 and invoke(*arguments).exit_code == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "panels").glob("answers-*")} == before


def test_an_unknown_figure_is_one_line(tmp_path):
    assert "fig01_radar" in fails_in_one_line("figures", "--only", "fig99", "--output", str(tmp_path))

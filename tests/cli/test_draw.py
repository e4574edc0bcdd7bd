"""The commands that ask for and draw the figures."""

from tests.cli.console import fails_in_one_line, succeeds
from tests.data.released import draw, write_lines
from tests.model.tiny import save_tiny


def test_figures_are_drawn_with_their_gallery(tmp_path):
    output = tmp_path / "out"
    printed = succeeds("figures", "--only", "table", "--results", tmp_path / "none", "--output", output)
    assert "7 drawn, 0 lack results" in printed
    assert str(output / "index.html") in printed and "medv figures --only table1_open_ended" in printed
    names = {path.name for path in output.iterdir()}
    assert len(names) == 7 * 3 + 1 and "index.html" in names


def test_what_cannot_be_drawn_or_asked_is_one_line(tmp_path):
    output = ("--output", tmp_path)
    assert "medv panels" in fails_in_one_line("figures", "--only", "fig05", "--results", tmp_path, *output)
    assert "fig01_radar" in fails_in_one_line("figures", "--only", "fig99", *output)
    assert "give NAME=CHECKPOINT" in fails_in_one_line("panels", "--system", "embedded", *output)


def test_panels_are_answered_once(tmp_path):
    save_tiny(tmp_path / "model")
    draw(tmp_path / "x.png")
    line = {"id": "a", "group": "vqa", "domain": "ct", "question": "Why?", "reference": "So."}
    file = write_lines(tmp_path / "questions.jsonl", [line | {"picture": "x.png"}])
    arguments = ["panels", "--system", f"V1={tmp_path / 'model'}", "--questions", file]
    arguments += ["--output", tmp_path / "panels", "--device", "cpu"]
    written = []
    for _ in range(2):
        succeeds(*arguments)
        written.append({path.name: path.read_bytes() for path in (tmp_path / "panels").glob("answers-*")})
    assert len(written[0]) == 1 and written[0] == written[1]

"""The command line: what it draws, and one clear line when it cannot."""

from typer.testing import CliRunner

from medv_lab.cli import app

RUNNER = CliRunner()


def test_figures_are_drawn(tmp_path):
    result = RUNNER.invoke(app, ["figures", "--output", str(tmp_path)])
    assert result.exit_code == 0
    assert {path.suffix for path in tmp_path.iterdir()} == {".pdf", ".png", ".csv"}


def test_an_unknown_figure_is_one_line(tmp_path):
    result = RUNNER.invoke(app, ["figures", "--only", "fig99", "--output", str(tmp_path)])
    assert result.exit_code == 2
    assert "fig01_radar" in result.output


def test_impossible_settings_are_one_line():
    result = RUNNER.invoke(app, ["ask", "x.png", "What?", "--gen-length", "64", "--block-length", "24"])
    assert result.exit_code == 2
    assert "not divisible" in result.output


def test_the_doctor_names_every_known_checkpoint():
    result = RUNNER.invoke(app, ["doctor"])
    assert result.exit_code == 0
    assert "LLaDA" in result.output

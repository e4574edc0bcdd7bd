"""Exhibits are drawn anew whenever that is asked, to the same bytes, and what lacks results is said."""

import hashlib
from dataclasses import replace

import pandas as pd
import pytest

from medv_lab.paper.exhibits import draw_exhibits, read_data
from tests.paper.toy_exhibits import BOTH, FIGURE, collect, make_results


@pytest.fixture
def results(tmp_path):
    return make_results(tmp_path / "results")


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_every_run_draws_all_and_gives_the_same_bytes(results, tmp_path):
    said = []
    assert draw_exhibits(BOTH, results, tmp_path / "a", said.append) == {}
    assert said == [
        "[1/2] figure: figure.pdf, figure.png, figure.csv",
        "[2/2] table: table.md, table.tex, table.csv",
    ]
    first = digests(tmp_path / "a")
    assert len(first) == 6
    (tmp_path / "a" / "figure.csv").write_text("edited by hand\n")
    draw_exhibits(BOTH, results, tmp_path / "a")
    assert digests(tmp_path / "a") == first


def test_new_results_are_drawn(results, tmp_path):
    draw_exhibits([FIGURE], results, tmp_path / "out")
    before = digests(tmp_path / "out")
    (results / "own" / "x.csv").write_text("x,text\n1,a\n3,b\n")
    draw_exhibits([FIGURE], results, tmp_path / "out")
    assert all(digest != before[name] for name, digest in digests(tmp_path / "out").items())


def test_missing_results_are_said_with_what_is_left_of_earlier_runs_and_the_rest_is_drawn(results, tmp_path):
    data = pd.DataFrame({"x": [1], "source": ["published t"]})
    other = replace(FIGURE, name="other", collect=lambda _: data)
    draw_exhibits([FIGURE], results, tmp_path / "old")
    (results / "own" / "x.csv").unlink()
    for folder, ending in (("new", "'medv x'"), ("old", "; its files are of an earlier run")):
        said = []
        missing = draw_exhibits([FIGURE, other], results, tmp_path / folder, said.append)
        assert missing.keys() == {"figure"} and "medv x" in missing["figure"]
        assert "not drawn" in said[0] and said[0].endswith(ending)
        assert (tmp_path / folder / "other.png").is_file()


def test_the_csv_is_what_is_shown_and_names_its_sources(results, tmp_path):
    draw_exhibits([FIGURE], results, tmp_path / "out")
    data = read_data(tmp_path / "out" / "figure.csv")
    assert data.attrs["provenance"] == "measured own/x.csv"
    pd.testing.assert_frame_equal(data, collect(results), check_dtype=False)

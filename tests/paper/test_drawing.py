"""What is up to date is left alone; everything else is made again, and what lacks results is said."""

import hashlib
import json
from dataclasses import replace

import pandas as pd
import pytest

from medv_lab.paper import drawing
from medv_lab.paper.drawing import Drawn, draw_exhibits, figures_folder, results_folder
from medv_lab.paper.exhibits import read_data
from tests.paper.toy_exhibits import BOTH, FIGURE, collect, make_results


@pytest.fixture
def results(tmp_path):
    return make_results(tmp_path / "results")


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_a_second_run_does_nothing_and_another_folder_gets_the_same_bytes(results, tmp_path):
    said = []
    first = draw_exhibits(BOTH, results, tmp_path / "a", said.append)
    assert first == Drawn(drawn=["figure", "table"]) and len(said) == 2
    second = draw_exhibits(BOTH, results, tmp_path / "a", said.append)
    assert second == Drawn(kept=["figure", "table"]) and len(said) == 2
    draw_exhibits(BOTH, results, tmp_path / "b")
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    names = {"figure.pdf", "figure.png", "figure.csv", "table.md", "table.tex", "table.csv", "manifest.json"}
    assert set(digests(tmp_path / "a")) == names


def change_input(results, folder):
    (results / "own" / "x.csv").write_text("x,text\n1,a\n3,b\n")


def change_another_input(results, folder):
    (results / "own" / "picture.png").write_bytes(b"new")


def change_output(results, folder):
    (folder / "figure.csv").write_text("edited by hand\n")


def delete_output(results, folder):
    (folder / "figure.pdf").unlink()


@pytest.mark.parametrize("change", [change_input, change_another_input, change_output, delete_output])
def test_what_changed_is_made_again(results, tmp_path, change):
    draw_exhibits([FIGURE], results, tmp_path / "out")
    change(results, tmp_path / "out")
    assert draw_exhibits([FIGURE], results, tmp_path / "out").drawn == ["figure"]
    assert draw_exhibits([FIGURE], results, tmp_path / "out").kept == ["figure"]


@pytest.mark.parametrize("what", ["caption", "code", "versions"])
def test_another_caption_drawing_code_or_library_makes_it_again(results, tmp_path, monkeypatch, what):
    draw_exhibits([FIGURE], results, tmp_path / "out")
    exhibit = replace(FIGURE, caption="another") if what == "caption" else FIGURE
    if what == "code":
        monkeypatch.setattr(drawing, "_hash_code", lambda: "other")
    if what == "versions":
        monkeypatch.setattr(drawing, "_versions", lambda: ["matplotlib 99"])
    assert draw_exhibits([exhibit], results, tmp_path / "out").drawn == ["figure"]


def test_missing_results_are_said_and_the_rest_is_drawn(results, tmp_path):
    other = replace(
        FIGURE, name="other", collect=lambda _: pd.DataFrame({"x": [1], "source": ["published t"]})
    )
    (results / "own" / "x.csv").unlink()
    said = []
    done = draw_exhibits([FIGURE, other], results, tmp_path / "out", said.append)
    assert done.drawn == ["other"] and "medv x" in done.missing["figure"]
    assert "not drawn" in said[0]


def test_the_csv_is_what_is_shown_and_names_its_sources(results, tmp_path):
    draw_exhibits([FIGURE], results, tmp_path / "out")
    data = read_data(tmp_path / "out" / "figure.csv")
    assert data.attrs["provenance"] == "measured own/x.csv"
    pd.testing.assert_frame_equal(data, collect(results), check_dtype=False)


def test_the_manifest_holds_the_hash_of_every_file(results, tmp_path):
    draw_exhibits(BOTH, results, tmp_path / "out")
    records = json.loads((tmp_path / "out" / "manifest.json").read_text())
    found = digests(tmp_path / "out")
    assert {name: found[name] for one in records.values() for name in one["files"]} == {
        name: digest for one in records.values() for name, digest in one["files"].items()
    }


def test_the_drawing_code_is_that_of_the_room_and_the_views_it_uses():
    before = drawing._hash_code.__wrapped__()
    assert before == drawing._hash_code.__wrapped__() and len(before) == 64


def test_presets_have_folders_of_their_own():
    assert results_folder("embedded") != results_folder("full")
    assert figures_folder("embedded") != figures_folder("full")
    with pytest.raises(ValueError, match="allowed are embedded, full"):
        results_folder("huge")

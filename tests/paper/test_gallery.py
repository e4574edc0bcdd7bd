"""The gallery is one page, needs nothing from elsewhere, and names what every number comes from."""

import json
import re
from dataclasses import replace

import pytest

from medv_lab.paper.exhibits import draw_exhibits
from medv_lab.paper.gallery import find_manifests, write_gallery
from tests.paper.toy_exhibits import BOTH, FIGURE, make_results
from tests.views.test_page import Reader


@pytest.fixture
def page(tmp_path):
    results = make_results(tmp_path / "results")
    manifest = {"versions": {}, "commit": "c0ffee" * 7, "model": {"name": "m<x>", "sha256": "ab" * 32}}
    (results / "own" / "manifest.json").write_text(json.dumps(manifest))
    draw_exhibits(BOTH, results, tmp_path / "out")
    absent = replace(FIGURE, name="absent")
    return write_gallery([*BOTH, absent], tmp_path / "out", results).read_text()


def test_nothing_is_loaded_from_elsewhere(page, tmp_path):
    Reader(page)
    assert not re.search(r"(?:src|href)=[\"']?(?:https?:|//)|@import|url\(", page)
    assert re.findall(r'src="data:image/webp;base64,', page) and "<script" not in page
    loaded = set(re.findall(r'src="(?!data:)([^"]+)"', page))
    assert loaded == {f"{FIGURE.name}.png"} and 'loading="lazy"' in page  # when it is shown large
    links = set(re.findall(r'href="([^"#]+)"', page))
    assert links == {path.name for one in BOTH for path in one.output_files(tmp_path)}


def test_a_click_shows_each_large_and_leads_on_and_back(page):
    targets = set(re.findall(r'href="#([^"]+)"', page))
    assert targets == set(re.findall(r'id="([^"]+)"', page)) == {"sheet", *(one.name for one in BOTH)}


def test_tables_are_formatted_and_provenance_is_folded(page):
    assert "<tr><th>name</th><th class=number>x</th></tr>" in page
    assert "<tr><td>a|b</td><td class=number><b>1 [0, 2]</b></td></tr>" in page
    assert "<td>c&lt;d</td>" in page
    assert page.count("<details><summary>") == len(BOTH) and "<details open" not in page


def test_captions_provenance_and_what_is_absent_are_named(page):
    assert "own/x.csv" in page and "m&lt;x&gt;" in page and "m<x>" not in page
    assert "abababababab" in page and "c0ffee" in page
    assert "for want of results: absent" in page


def test_the_page_is_the_same_at_every_run(page, tmp_path):
    again = write_gallery([*BOTH, replace(FIGURE, name="absent")], tmp_path / "out", tmp_path / "results")
    assert again.read_text() == page


def test_manifests_are_found_beside_a_file_or_in_its_cells(tmp_path):
    assert find_manifests(tmp_path / "x.csv") == []
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "a-0.json").write_text("{}")
    assert [path.name for path in find_manifests(tmp_path / "x.csv")] == ["a-0.json"]
    (tmp_path / "manifest.json").write_text("{}")
    assert [path.name for path in find_manifests(tmp_path / "x.csv")] == ["manifest.json"]

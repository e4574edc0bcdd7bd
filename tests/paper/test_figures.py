"""The registry of exhibits, and what print asks of every figure: whole, apart, and large enough to read."""

import itertools
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.text import Text

from medv_lab.paper.figures import EXHIBITS, choose, preset_folders
from medv_lab.paper.published import TABLES
from medv_lab.views.style import SMALLEST_FONT, WIDTHS, themed

RESULTS = Path(__file__).parents[2] / "results"
FIGURES = [exhibit for exhibit in EXHIBITS if exhibit.kind == "figure"]
OVERLAP = 1.5  # pixels that boxes of letters may share; ascent and descent are seldom full


def visible_texts(figure) -> list[Text]:
    """All texts on the page; labels of ticks outside of their axis are never drawn."""
    undrawn = set()
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                if not low - 1e-9 <= tick.get_loc() <= high + 1e-9:
                    undrawn |= {tick.label1, tick.label2}
    texts = [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]
    return [text for text in texts if text not in undrawn]


@pytest.mark.parametrize("exhibit", FIGURES, ids=lambda exhibit: exhibit.name)
def test_figures_are_readable_whole_and_apart(exhibit):
    with themed():
        figure = exhibit.draw(exhibit.collect(RESULTS), RESULTS)
        figure.draw_without_rendering()
    texts = visible_texts(figure)
    assert texts and min(text.get_fontsize() for text in texts) >= SMALLEST_FONT >= 6
    assert figure.get_figwidth() in (pytest.approx(WIDTHS["column"]), pytest.approx(WIDTHS["page"]))
    boxes = [
        (text.get_text(), Text.get_window_extent(text)) for text in texts
    ]  # without an annotation's arrow
    page = figure.bbox.padded(1)
    assert not [text for text, box in boxes if not all(page.contains(*corner) for corner in box.corners())]
    overlaps = [
        (a, b)
        for (a, one), (b, other) in itertools.combinations(boxes, 2)
        if min(one.x1, other.x1) - max(one.x0, other.x0) > OVERLAP
        and min(one.y1, other.y1) - max(one.y0, other.y0) > OVERLAP
    ]
    assert not overlaps


def test_names_are_those_of_the_paper_and_captions_say_what_is_ours():
    names = [exhibit.name for exhibit in EXHIBITS]
    assert len(set(names)) == len(names)
    assert [name[:5] for name in names if name.startswith("fig")] == [f"fig{n:02d}" for n in range(1, 13)]
    assert [name[:6] for name in names if name.startswith("table")] == [f"table{n}" for n in TABLES]
    assert all(exhibit.title and exhibit.caption.endswith(".") for exhibit in EXHIBITS)
    appendix = [exhibit for exhibit in EXHIBITS if exhibit.name[:5] in {f"fig{n:02d}" for n in range(6, 13)}]
    assert all("Our panel of this kind" in exhibit.caption for exhibit in appendix)


def test_exhibits_are_chosen_by_the_beginning_of_their_names():
    assert choose(None) == EXHIBITS
    assert [exhibit.name for exhibit in choose("fig05")] == ["fig05_repetition"]
    assert len(choose("table")) == 7
    with pytest.raises(ValueError, match="no figure or table begins with 'fig99'"):
        choose("fig99")


def test_presets_have_folders_of_their_own():
    assert not set(preset_folders("embedded")) & set(preset_folders("full"))
    with pytest.raises(ValueError, match="allowed are embedded, full"):
        preset_folders("huge")


def test_exhibits_are_made_without_torch(tmp_path):
    code = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = None\n"
        "from pathlib import Path\n"
        "from medv_lab.paper.exhibits import draw_exhibits\n"
        "from medv_lab.paper.figures import choose\n"
        "draw_exhibits(choose('table') + choose('fig01'), Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    command = [sys.executable, "-c", code, str(RESULTS), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("*.csv"))) == 8

"""Published numbers reach the page unchanged; measured ones say what made them."""

import json
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from medv_lab.paper.figures import FIGURES, draw_unmasking_example, plot_radar, radar_data
from medv_lab.paper.published import TABLES, load_table
from medv_lab.views.style import MODEL_COLOURS, MODEL_LINES, SMALLEST_FONT, WIDTHS, themed
from tests.views.test_unmasking import make_trace


@pytest.fixture
def radar():
    with themed():
        figure = plt.figure(figsize=(WIDTHS["column"], 3.9), layout="constrained")
        yield plot_radar(radar_data(), ax=figure.add_subplot(projection="polar"))
    plt.close(figure)


@pytest.mark.parametrize("number", TABLES)
def test_every_table_is_read_with_its_provenance(number):
    frame = load_table(number)
    assert len(frame) > 1
    assert f"Table {number} " in frame.attrs["provenance"]


def test_a_table_that_is_not_here_is_an_error():
    with pytest.raises(ValueError, match="no table 7"):
        load_table(7)


def test_numbers_are_numbers_and_unreported_ones_are_nan():
    scores = load_table(2).set_index("model")
    assert scores.loc["LLaDA-MedV", "pathvqa_closed"] == 95.15
    assert np.isnan(scores.loc["PubMedCLIP", "pathvqa_open"])
    assert all(pd.api.types.is_float_dtype(kind) for kind in scores.dtypes)


def test_the_radar_draws_table_1(radar):
    table = load_table(1).set_index("model")
    assert len(radar.lines) == 6
    for line in radar.lines:
        expected = table.loc[line.get_label(), ["cxr", "mri", "histology", "gross", "ct"]].to_numpy(float)
        np.testing.assert_array_equal(line.get_ydata()[:-1], expected)
        assert line.get_ydata()[-1] == expected[0]


def test_models_differ_in_more_than_colour(radar):
    assert len(set(MODEL_COLOURS.values())) == len(set(MODEL_LINES.values())) == 6
    assert {(line.get_marker(), line.get_linestyle()) for line in radar.lines} == set(MODEL_LINES.values())


def test_the_radar_is_readable_at_column_width(radar):
    radar.figure.canvas.draw()
    texts = [text for text in radar.figure.findobj(Text) if text.get_text() and text.get_visible()]
    assert min(text.get_fontsize() for text in texts) >= SMALLEST_FONT >= 6
    boxes = [text.get_window_extent() for text in texts]
    overlaps = [
        (a.get_text(), b.get_text())
        for i, (a, box) in enumerate(zip(texts, boxes, strict=True))
        for b, other in zip(texts[:i], boxes[:i], strict=True)
        if box.overlaps(other)
    ]
    assert not overlaps
    assert all(radar.figure.bbox.contains(*corner) for box in boxes for corner in (box.min, box.max))


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_the_same_bytes_at_every_run(name, tmp_path):
    first = [path.read_bytes() for path in FIGURES[name](tmp_path / "a")]
    second = [path.read_bytes() for path in FIGURES[name](tmp_path / "b")]
    assert first == second


def test_the_committed_csv_is_what_is_drawn_now(tmp_path):
    FIGURES["fig01_radar"](tmp_path)
    committed = Path(__file__).parents[2] / "figures" / "fig01_radar.csv"
    assert committed.read_text() == (tmp_path / "fig01_radar.csv").read_text()
    assert committed.read_text().startswith("# published, Table 1")
    assert pd.read_csv(committed, comment="#").shape == (6, 6)


def test_the_unmasking_example_names_its_run_and_keeps_its_bytes(tmp_path):
    def draw(folder: str, created: str) -> list[bytes]:
        trace = make_trace(manifest={"created": created, "commit": created, "seed": 3})
        return [path.read_bytes() for path in draw_unmasking_example(trace, tmp_path / folder)]

    first, second = draw("a", "today"), draw("b", "tomorrow")
    assert first == second
    header = (tmp_path / "a" / "unmasking_example.csv").read_text().splitlines()[0]
    assert json.loads(header.removeprefix("# measured; run manifest: ")) == {"seed": 3}
    drawn = pd.read_csv(tmp_path / "a" / "unmasking_example.csv", comment="#")
    assert drawn.position.tolist() == make_trace().position.tolist()


def test_figures_are_drawn_without_torch(tmp_path):
    code = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = None\n"
        "from pathlib import Path\n"
        "from medv_lab.paper.figures import FIGURES\n"
        "for draw in FIGURES.values(): draw(Path(sys.argv[1]))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.iterdir())) == 3 * len(FIGURES)

"""Published numbers reach the page unchanged."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from medv_lab.paper.figures import FIGURES, plot_radar, radar_data
from medv_lab.paper.published import TABLES, load_table


@pytest.mark.parametrize("number", TABLES)
def test_every_table_is_read_with_its_provenance(number):
    frame = load_table(number)
    assert len(frame) > 1
    assert f"Table {number} " in frame.attrs["provenance"]


def test_a_table_that_is_not_here_is_an_error():
    with pytest.raises(ValueError, match="no table 7"):
        load_table(7)


def test_the_radar_draws_table_1():
    ax = plt.figure().add_subplot(projection="polar")
    plot_radar(radar_data(), ax=ax)
    table = load_table(1).set_index("model")
    assert len(ax.lines) == 6
    for line in ax.lines:
        expected = table.loc[line.get_label(), ["cxr", "mri", "histology", "gross", "ct"]].to_numpy(float)
        np.testing.assert_array_equal(line.get_ydata()[:-1], expected)
        assert line.get_ydata()[-1] == expected[0]
    plt.close(ax.figure)


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

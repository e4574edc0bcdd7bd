"""A figure and a table of one small file."""

from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt

from medv_lab.paper.exhibits import Exhibit, read_measured

collect = partial(read_measured, name="own/x.csv", command="medv x")


def draw(data, results):
    figure, ax = plt.subplots(figsize=(1, 1))
    ax.plot(data["x"])
    return figure


FIGURE = Exhibit("figure", "A figure", "x", collect, draw)
PAGES = ("A caption.\n\n| name | x |\n| --- | ---: |\n| a\\|b | **1 [0, 2]** |\n| c<d | 2 |\n", "tex")
TABLE = Exhibit("table", "A table", "x", collect, lambda data, results: PAGES, "table")
BOTH = (FIGURE, TABLE)


def make_results(folder: Path) -> Path:
    """Write the file into a results folder."""
    (folder / "own").mkdir(parents=True)
    (folder / "own" / "x.csv").write_text("x,text\n1,a\n2,b\n")
    return folder

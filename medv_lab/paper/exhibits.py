"""An exhibit: one figure or table, the files it is made of, and the files it becomes.

`collect` reads numbers and texts from files into the frame that is drawn, each row with its `source`: "published" and
a file of `tables/`, or "measured" and a file of the results folder. The csv of an exhibit is that frame. `draw` sees
the frame and nothing else of the numbers; it may open pictures that the frame names.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from medv_lab.views.style import themed

SUFFIXES = {"figure": (".pdf", ".png", ".csv"), "table": (".md", ".tex", ".csv")}
PRINT_DPI = 300


class MissingResults(ValueError):
    """A results folder lacks what an exhibit needs; the text says what, and which command makes it."""


@dataclass(frozen=True)
class Exhibit:
    """A figure or table.

    Attributes:
        name: of its files, without suffix.
        title: one line.
        caption: what is shown, for the gallery.
        inputs: patterns of the files in the results folder that it reads; published tables are read besides.
        collect: results folder to the frame of what is shown, with a column `source`.
        draw: frame and results folder to a figure, or for a table to (Markdown, LaTeX).
        kind: "figure" or "table".
    """

    name: str
    title: str
    caption: str
    collect: Callable[[Path], pd.DataFrame]
    draw: Callable[[pd.DataFrame, Path], Figure | tuple[str, str]]
    inputs: tuple[str, ...] = ()
    kind: Literal["figure", "table"] = "figure"

    def input_files(self, results: Path) -> list[Path]:
        """The files in the results folder that it reads, in order."""
        return sorted({path for pattern in self.inputs for path in results.glob(pattern) if path.is_file()})

    def output_files(self, folder: Path) -> list[Path]:
        """The files it is written to."""
        return [folder / f"{self.name}{suffix}" for suffix in SUFFIXES[self.kind]]

    def write(self, data: pd.DataFrame, results: Path, folder: Path) -> None:
        """Write its files of what `collect` gave; the same bytes from the same files at every run."""
        folder.mkdir(parents=True, exist_ok=True)
        if self.kind == "figure":
            with themed():
                save_figure(self.draw(data, results), data, folder / self.name)
            return
        *pages, table = self.output_files(folder)
        for path, text in zip(pages, self.draw(data, results), strict=True):
            path.write_text(text, encoding="utf-8", newline="\n")
        save_data(data, table)


def save_figure(figure: Figure, data: pd.DataFrame, stem: Path) -> list[Path]:
    """Write `stem`.pdf, .png and .csv, the same bytes at every run; closes the figure.

    The first line of the csv is a comment: the sources of its rows, or `data.attrs["provenance"]`.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = [stem.with_suffix(suffix) for suffix in SUFFIXES["figure"]]
    figure.savefig(paths[0], metadata={"CreationDate": None, "Producer": None, "Creator": None})
    figure.savefig(paths[1], dpi=PRINT_DPI, metadata={"Software": None})
    plt.close(figure)
    save_data(data, paths[2])
    return paths


def save_data(data: pd.DataFrame, path: Path) -> None:
    """Write what is shown; the first line is a comment that says where it comes from."""
    rows = data.to_csv(index=data.index.name is not None, lineterminator="\n")
    about = describe_sources(data) if "source" in data else data.attrs["provenance"]
    path.write_text(f"# {about}\n{rows}", encoding="utf-8", newline="\n")


def describe_sources(data: pd.DataFrame) -> str:
    """The sources of a frame in one line, each once, in their order."""
    return "; ".join(dict.fromkeys(data["source"]))


def read_data(path: Path) -> pd.DataFrame:
    """A frame that `save_data` wrote; its sources' line in `attrs["provenance"]`."""
    with path.open(encoding="utf-8") as file:
        first = file.readline()
        data = pd.read_csv(file)
    data.attrs["provenance"] = first.removeprefix("# ").strip()
    return data


def measured_source(path: Path, results: Path) -> str:
    """What a row of measured numbers names as its source."""
    return f"measured {path.relative_to(results).as_posix()}"

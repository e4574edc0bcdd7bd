"""An exhibit: one figure or table, the files it is made of, and the files it becomes.

`collect` reads numbers and texts from files into the frame that is drawn, each row with its `source`: "published" and
a file of `tables/`, "measured" and a file of the results folder, or "control" and such a file, where no model wrote
what is scored. The csv of an exhibit is that frame. `draw` sees the frame and nothing else of the numbers; it may open
pictures that the frame names.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

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
        collect: results folder to the frame of what is shown, with a column `source`.
        draw: frame and results folder to a figure, or for a table to (Markdown, LaTeX).
        animate: writes a figure that moves too, from a results folder to a GIF; None for one that does not.
    """

    name: str
    title: str
    caption: str
    collect: Callable[[Path], pd.DataFrame]
    draw: Callable[[pd.DataFrame, Path], Figure | tuple[str, str]]
    kind: Literal["figure", "table"] = "figure"
    animate: Callable[[Path, Path], object] | None = None

    def output_files(self, folder: Path) -> list[Path]:
        """Return the files that it becomes, the csv last."""
        *pages, table = SUFFIXES[self.kind]
        return [folder / f"{self.name}{end}" for end in (*pages, *([".gif"] if self.animate else []), table)]

    def write(self, data: pd.DataFrame, results: Path, folder: Path) -> None:
        """Write its files of what `collect` gave; the same bytes from the same files at every run."""
        folder.mkdir(parents=True, exist_ok=True)
        if self.kind == "figure":
            with themed():
                save_figure(self.draw(data, results), data, folder / self.name)
            if self.animate is not None:
                self.animate(results, folder / f"{self.name}.gif")
        else:
            *pages, table = self.output_files(folder)
            for path, text in zip(pages, self.draw(data, results), strict=True):
                path.write_text(text, encoding="utf-8", newline="\n")
            save_data(data, table)


def draw_exhibits(
    exhibits: Sequence[Exhibit], results: Path, folder: Path, report: Callable[[str], None] = lambda _: None
) -> dict[str, str]:
    """Draw exhibits anew, all of them: nothing is left from an earlier run unless it is said.

    Args:
        exhibits: what is wanted.
        results: folder of measured results.
        folder: of the figures.
        report: told one line per exhibit: its files, or what it lacks.

    Returns:
        What could not be drawn: names, and what results each lacks.
    """
    missing: dict[str, str] = {}
    for number, exhibit in enumerate(exhibits, 1):
        said = f"[{number}/{len(exhibits)}] {exhibit.name}"
        try:
            data = exhibit.collect(results)
        except MissingResults as error:
            missing[exhibit.name] = str(error)
            is_old = any(path.is_file() for path in exhibit.output_files(folder))
            report(f"{said}: not drawn, {error}" + ("; its files are of an earlier run" if is_old else ""))
            continue
        exhibit.write(data, results, folder)
        report(f"{said}: {', '.join(path.name for path in exhibit.output_files(folder))}")
    return missing


def save_figure(figure: Figure, data: pd.DataFrame, stem: Path) -> None:
    """Write `stem`.pdf, .png and .csv, the same bytes at every run; closes the figure.

    The first line of the csv is a comment: the sources of its rows, or `data.attrs["provenance"]`.
    """
    undated = {"CreationDate": None, "Producer": None, "Creator": None}
    figure.savefig(stem.with_suffix(".pdf"), metadata=undated)
    figure.savefig(stem.with_suffix(".png"), dpi=PRINT_DPI, metadata={"Software": None})
    plt.close(figure)
    save_data(data, stem.with_suffix(".csv"))


def save_data(data: pd.DataFrame, path: Path) -> None:
    """Write what is shown; the first line is a comment that names the sources of the rows, each once."""
    rows = data.to_csv(index=data.index.name is not None, lineterminator="\n")
    about = "; ".join(dict.fromkeys(data["source"])) if "source" in data else data.attrs["provenance"]
    path.write_text(f"# {about}\n{rows}", encoding="utf-8", newline="\n")


def read_data(path: Path) -> pd.DataFrame:
    """Read a frame that `save_data` wrote; its sources' line is in `attrs["provenance"]`."""
    with path.open(encoding="utf-8") as file:
        first = file.readline()
        data = pd.read_csv(file)
    data.attrs["provenance"] = first.removeprefix("# ").strip()
    return data


def read_measured(results: Path, name: str, command: str, **options: Any) -> pd.DataFrame:
    """Read a csv file of the results folder, each row with its source.

    Raises:
        MissingResults: if it is not there.
    """
    path = results / name
    if not path.is_file():
        raise MissingResults(f"{name} is not there; make it with '{command}'")
    # pandas 2 would lose the last digits otherwise.
    return pd.read_csv(path, float_precision="round_trip", **options).assign(
        source=measured_source(path, results)
    )


def measured_source(path: Path, results: Path) -> str:
    """Return what a row of measured numbers names as its source."""
    return f"measured {path.relative_to(results).as_posix()}"

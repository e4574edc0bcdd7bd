"""All figures and tables, in the order of the paper, then what goes beyond it; and the folders of a preset."""

from pathlib import Path

from medv_lab.paper.comparison import PAPER_TABLES
from medv_lab.paper.exhibits import Exhibit
from medv_lab.paper.panel_figures import PANEL_FIGURES
from medv_lab.paper.radar import RADAR
from medv_lab.paper.study_figures import STUDY_FIGURES

EXHIBITS: tuple[Exhibit, ...] = (RADAR, *PANEL_FIGURES, *PAPER_TABLES, *STUDY_FIGURES)
PRESETS = {
    "embedded": (Path("results"), Path("figures")),
    "full": (Path("results/full"), Path("figures/full")),
}


def choose(beginning: str | None) -> tuple[Exhibit, ...]:
    """Choose the exhibits whose names begin so; all of them for None.

    Raises:
        ValueError: if there are none.
    """
    chosen = tuple(one for one in EXHIBITS if beginning is None or one.name.startswith(beginning))
    if not chosen:
        names = ", ".join(one.name for one in EXHIBITS)
        raise ValueError(f"no figure or table begins with {beginning!r}; there are {names}")
    return chosen


def preset_folders(preset: str) -> tuple[Path, Path]:
    """Return the folders of a preset, from the present one: of measured results, and of figures.

    Raises:
        ValueError: for another preset.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset is {preset!r}; allowed are {', '.join(PRESETS)}")
    return PRESETS[preset]

"""One theme for all figures: sizes, fonts, and colours that colour-blind readers can tell apart."""

from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib as mpl
import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.axes import Axes

WIDTHS = {"column": 3.35, "page": 6.9}  # inches
FONT_SIZE = 7  # points, at these widths
SMALLEST_FONT = 6  # points, in print

# Okabe and Ito's palette; every other colour is a grey.
PALETTE = {
    "blue": "#0072B2",
    "orange": "#E69F00",
    "green": "#009E73",
    "purple": "#CC79A7",
    "sky": "#56B4E9",
    "vermillion": "#D55E00",
    "yellow": "#F0E442",
    "black": "#000000",
}
ACCENT = PALETTE["vermillion"]  # what a reader should see first: ours, repeated, new
SCALE = "viridis"  # colour map of passes, confidence and entropy: even in lightness

# The same model has the same colour everywhere.
MODEL_COLOURS = {
    "LLaVA-Med": PALETTE["blue"],
    "Med-Flamingo": PALETTE["orange"],
    "MedVLM-R1": PALETTE["green"],
    "Qwen-RL-Med": PALETTE["purple"],
    "RetinalGPT": PALETTE["sky"],
    "LLaDA-MedV": ACCENT,
}
# A second sign beside the colour: (marker, dash).
MODEL_LINES = {
    "LLaVA-Med": ("s", "--"),
    "Med-Flamingo": ("v", ":"),
    "MedVLM-R1": ("^", "--"),
    "Qwen-RL-Med": ("D", "-."),
    "RetinalGPT": ("P", ":"),
    "LLaDA-MedV": ("o", "-"),
}

# Systems on phantoms: the embedded model as ours, the autoregressive twin as its counterpart LLaVA-Med.
SYSTEM_COLOURS = {
    "diffusion": ACCENT,
    "twin": PALETTE["blue"],
    "V1": PALETTE["green"],
    "V2": PALETTE["purple"],
    "ours": PALETTE["orange"],
    "question-only": PALETTE["black"],
}
SYSTEM_LINES = {
    "diffusion": ("o", "-"),
    "twin": ("s", "--"),
    "V1": ("^", "-."),
    "V2": ("D", ":"),
    "ours": ("P", "--"),
    "question-only": ("v", ":"),
}


@contextmanager
def themed() -> Iterator[None]:
    """Draw in the theme; what was set before holds again afterwards."""
    theme = {
        "svg.hashsalt": "medv-lab",
        "pdf.fonttype": 42,
        "text.hinting": "none",  # letters as wide on the screen as in print, and as `sheet` measures them
        "axes.titlesize": FONT_SIZE + 1,
        "ytick.labelsize": FONT_SIZE - 1,
    }
    theme |= dict.fromkeys(("font.size", "axes.labelsize", "xtick.labelsize", "legend.fontsize"), FONT_SIZE)
    with mpl.rc_context(sns.axes_style("whitegrid") | sns.plotting_context("paper") | theme):
        yield


def new_axes(medium: str, height: float) -> Axes:
    """Make axes of a new figure as wide as its medium and `height` inches high."""
    return plt.subplots(figsize=(WIDTHS[medium], height), layout="constrained")[1]

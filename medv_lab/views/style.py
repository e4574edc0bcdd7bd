"""One theme for all figures: sizes, fonts, and colours that colour-blind readers can tell apart."""

from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib as mpl
import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.axes import Axes

WIDTHS = {"column": 3.35, "page": 6.9}  # inches
FONT_SIZE = 7  # points, at these widths
POINTS_PER_INCH = 72
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

# The same model has the same look everywhere: colour, and as a second sign marker and dash.
MODEL_LOOKS = {
    "LLaVA-Med": (PALETTE["blue"], "s", "--"),
    "Med-Flamingo": (PALETTE["orange"], "v", ":"),
    "MedVLM-R1": (PALETTE["green"], "^", "--"),
    "Qwen-RL-Med": (PALETTE["purple"], "D", "-."),
    "RetinalGPT": (PALETTE["sky"], "P", ":"),
    "LLaDA-MedV": (ACCENT, "o", "-"),
}
# Systems on phantoms: the embedded model as ours, the autoregressive twin as its counterpart LLaVA-Med.
SYSTEM_LOOKS = {
    "diffusion": (ACCENT, "o", "-"),
    "twin": (PALETTE["blue"], "s", "--"),
    "V1": (PALETTE["green"], "^", "-."),
    "V2": (PALETTE["purple"], "D", ":"),
    "ours": (PALETTE["orange"], "P", "--"),
    "question-only": (PALETTE["black"], "v", ":"),
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

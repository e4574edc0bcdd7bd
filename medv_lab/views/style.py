"""One theme for all figures: sizes, fonts, and colours that colour-blind readers can tell apart."""

from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib as mpl
import seaborn as sns

WIDTHS = {"column": 3.35, "page": 6.9, "screen": 9.0}  # inches

# Okabe and Ito's palette; the same model has the same colour everywhere.
MODEL_COLOURS = {
    "LLaVA-Med": "#0072B2",
    "Med-Flamingo": "#E69F00",
    "MedVLM-R1": "#009E73",
    "Qwen-RL-Med": "#CC79A7",
    "RetinalGPT": "#56B4E9",
    "LLaDA-MedV": "#D55E00",
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
SMALLEST_FONT = 6  # points, at the widths above


@contextmanager
def themed() -> Iterator[None]:
    """Draw in the theme; what was set before holds again afterwards."""
    fixed = {"svg.hashsalt": "medv-lab", "pdf.fonttype": 42, "font.size": 7, "axes.titlesize": 8}
    sizes = {"axes.labelsize": 7, "xtick.labelsize": 7, "ytick.labelsize": 6, "legend.fontsize": 7}
    with mpl.rc_context(sns.axes_style("whitegrid") | sns.plotting_context("paper") | fixed | sizes):
        yield

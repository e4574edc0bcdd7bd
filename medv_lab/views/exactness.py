"""How far ways of running lie apart, as a picture."""

import pandas as pd
from matplotlib.axes import Axes

from medv_lab.views.style import ACCENT, PALETTE, new_axes

HEIGHT = 2.6  # inches
SMALLEST_DRIFT = 1e-9  # no drift at all is drawn here, since a logarithm has no 0


def plot_exactness(reports: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """The largest drift of logits, one point a prompt, one line a comparison; prompts whose tokens differ are marked.

    Args:
        reports: rows of `exactness_report`, with a column `comparison` that names the two ways.
        ax: where to draw; a new figure of page width by default.

    Returns:
        The Axes; its first collection holds the prompts whose tokens are the same, its second the others.

    Raises:
        ValueError: if a column is missing.
    """
    missing = [name for name in ("comparison", "largest_drift", "different") if name not in reports]
    if missing:
        raise ValueError(
            f"the frame lacks {missing}; give rows of exactness_report with a column 'comparison'"
        )
    ax = new_axes("page", HEIGHT) if ax is None else ax
    names = list(dict.fromkeys(reports["comparison"]))
    drift = reports["largest_drift"].clip(lower=SMALLEST_DRIFT)
    line = reports["comparison"].map(names.index)
    differs = reports["different"] > 0
    for chosen, colour, marker, label in (
        (~differs, PALETTE["blue"], "o", "same tokens"),
        (differs, ACCENT, "X", "other tokens"),
    ):
        ax.scatter(drift[chosen], line[chosen], color=colour, marker=marker, s=18, label=label)
    ax.set_xscale("log")
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.set(xlabel="largest drift of a logit")
    ax.legend(frameon=False, loc="best")
    return ax

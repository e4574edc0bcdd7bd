"""The loss of a run: drawn once, or drawn again at every report while it trains."""

from collections.abc import Callable

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import display
from matplotlib.axes import Axes

from medv_lab.views.style import WIDTHS, themed


def plot_losses(history: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Loss against step.

    Args:
        history: columns "step" and "loss", as `run_stage` returns them.
        ax: where to draw; a new figure by default.
    """
    ax = _new_axes() if ax is None else ax
    ax.plot(history["step"], history["loss"], marker=".", linewidth=1)
    ax.set(xlabel="step", ylabel="loss")
    return ax


def watch_losses() -> Callable[[pd.DataFrame], None]:
    """A `watch` for `run_stage` that keeps one figure of the notebook up to date."""
    ax = _new_axes()
    handle = display(ax.figure, display_id=True)
    plt.close(ax.figure)  # or the notebook shows it a second time at the end of the cell

    def update(history: pd.DataFrame) -> None:
        ax.clear()
        plot_losses(history, ax=ax)
        if handle is not None:  # None where there is no notebook
            handle.update(ax.figure)

    return update


def _new_axes() -> Axes:
    with themed():
        return plt.subplots(figsize=(WIDTHS["column"], 2.2), layout="constrained")[1]

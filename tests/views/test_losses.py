"""The curve shows the history it was given, and is drawn again when watched."""

import pandas as pd
import pytest

from medv_lab.views import losses
from medv_lab.views.losses import plot_losses, watch_losses

HISTORY = pd.DataFrame({"step": [10, 20, 30], "loss": [3.0, 2.0, 1.5]})


def test_the_curve_is_the_history():
    ax = plot_losses(HISTORY)
    (line,) = ax.lines
    assert line.get_xdata().tolist() == [10, 20, 30]
    assert line.get_ydata().tolist() == [3.0, 2.0, 1.5]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("step", "loss")
    assert plot_losses(HISTORY, ax=ax) is ax


@pytest.mark.parametrize("is_shown", [True, False])
def test_a_watched_run_is_drawn_again(monkeypatch, is_shown):
    drawn = []

    class Handle:
        def update(self, figure):
            drawn.append(figure.axes[0].lines[0].get_xdata().tolist())

    monkeypatch.setattr(losses, "display", lambda *_, **__: Handle() if is_shown else None)
    watch = watch_losses()
    watch(HISTORY[:2])
    watch(HISTORY)
    assert drawn == ([[10, 20], [10, 20, 30]] if is_shown else [])

"""Where the time of a step goes: the published loop, the exact sampler by parts, its floor, the fast settings."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from medv_lab.views.style import ACCENT, PALETTE, new_axes

HEIGHT = 2.0  # inches
PARTS = {"body": PALETTE["blue"], "head": PALETTE["sky"], "sampler": ACCENT}
WAYS = ("reference", "exact", "floor", "fast")


def speed_data(result: Mapping[str, Any]) -> pd.DataFrame:
    """Milliseconds a step of each way (rows), whole and by part; parts are known of the exact sampler only.

    Args:
        result: what `run_benchmark` returned, or the JSON that `medv benchmark` wrote.
    """
    seconds = result["seconds_per_step"]
    rows = {way: {"step": 1e3 * seconds[way]} for way in WAYS}
    rows["exact"] |= {part: 1e3 * seconds[part] for part in PARTS}
    data = pd.DataFrame.from_dict(rows, orient="index")
    data.index.name = "way"
    return data


def plot_speed(result: Mapping[str, Any], *, ax: Axes | None = None) -> Axes:
    """One bar a way, as long as a step of it takes; the exact sampler's is split into body, head and sampler.

    Args:
        result: as in `speed_data`.
        ax: where to draw; a new figure of column width by default.
    """
    ax = new_axes("column", HEIGHT) if ax is None else ax
    data = speed_data(result)
    for way, row in data.iterrows():
        if way != "exact":
            ax.barh(way, row["step"], color="0.6")
            continue
        left = 0.0
        for part, colour in PARTS.items():
            ax.barh(way, row[part], left=left, color=colour, label=part)
            left += row[part]
    ax.invert_yaxis()
    ax.set(xlabel=f"milliseconds a step ({result['size']}, {result['device_name']})")
    ax.legend(frameon=False, loc="lower right")
    return ax

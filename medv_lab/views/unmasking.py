"""Which position was committed when: pictures of a `SampleTrace`."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from medv_lab.diffusion.trace import SampleTrace


def plot_unmasking(trace: SampleTrace, *, ax: Axes | None = None, columns: int = 8) -> Axes:
    """The answer as a grid of tokens in reading order, coloured by the pass that committed each.

    Args:
        trace: what the sampler did; positions never filled stay blank.
        ax: where to draw; a new figure by default.
        columns: tokens a line.

    Returns:
        The Axes; its image holds the step of each position, row by row.
    """
    ax = plt.subplots(layout="constrained")[1] if ax is None else ax
    in_answer = trace.position >= 0
    rows = -(-trace.gen_length // columns)
    steps = np.full(rows * columns, np.nan)
    steps[trace.position[in_answer]] = trace.step[in_answer]
    image = ax.imshow(steps.reshape(rows, columns), cmap="viridis", aspect="auto", vmin=0)
    limit = np.nanmax(steps, initial=0) / 2
    for place, token in enumerate(trace.replay()):
        if token != trace.mask_token_id:
            colour = "white" if steps[place] < limit else "black"
            label = trace.piece(token).strip()
            ax.text(
                place % columns, place // columns, label, ha="center", va="center", color=colour, fontsize=6
            )
    ax.set_xticks([])
    ax.set_yticks(range(rows), [str(row * columns) for row in range(rows)])
    ax.set_ylabel("position")
    ax.grid(visible=False)
    ax.figure.colorbar(image, ax=ax, label="committed in pass")
    return ax

"""Which position was committed when: pictures of a `SampleTrace`."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from medv_lab.diffusion.trace import SampleTrace
from medv_lab.views.style import MODEL_COLOURS, SMALLEST_FONT, WIDTHS

ROW_HEIGHT = 0.24  # inches
LONGEST_LABEL = 13
FADED = 0.35


def plot_unmasking(trace: SampleTrace, *, ax: Axes | None = None, columns: int = 8) -> Axes:
    """The answer as a grid of tokens in reading order, coloured by the pass that committed each.

    What lies behind the end of the answer is faded. A vertical bar stands before the first token of every
    block but the first.

    Args:
        trace: what the sampler did; positions that are not filled in the end stay blank, commits in the prompt are
            left out.
        ax: where to draw; a new figure of page width by default.
        columns: tokens a line.

    Returns:
        The Axes; its image holds the step of each position, row by row.
    """
    rows = -(-trace.gen_length // columns)
    if ax is None:
        size = (WIDTHS["page"], 0.5 + ROW_HEIGHT * rows)
        ax = plt.subplots(figsize=size, layout="constrained")[1]
    drawn = (trace.position >= 0) & (trace.revoked_in < 0)
    places = np.arange(rows * columns)
    steps = np.full(len(places), np.nan)
    steps[trace.position[drawn]] = trace.step[drawn]
    end = int(trace.stops[-1]) if len(trace.stops) else trace.gen_length
    alpha = np.where(places < end, 1.0, FADED)
    last = max(1, trace.forward_evaluations - 1)
    image = ax.imshow(
        steps.reshape(rows, columns),
        cmap="viridis",
        aspect="auto",
        vmin=0,
        vmax=last,
        alpha=alpha.reshape(rows, columns),
    )
    for place, token in enumerate(trace.replay()):
        if token != trace.mask_token_id:
            ax.text(
                place % columns,
                place // columns,
                _label(trace.piece(token)),
                ha="center",
                va="center",
                color="white" if steps[place] < 0.6 * last and place < end else "black",
                fontsize=SMALLEST_FONT,
                parse_math=False,
            )
    starts = np.arange(trace.block_length, trace.gen_length, trace.block_length)
    ax.vlines(
        starts % columns - 0.5,
        starts // columns - 0.45,
        starts // columns + 0.45,
        color=MODEL_COLOURS["LLaDA-MedV"],
        linewidth=2,
        clip_on=False,
        zorder=3,
    )
    ax.set_xticks([])
    ax.set_yticks(range(rows), [str(row * columns) for row in range(rows)])
    ax.set_ylabel("position")
    ax.grid(visible=False)
    ax.figure.colorbar(image, ax=ax, label="committed in pass", pad=0.01).solids.set_alpha(1)
    return ax


def _label(piece: str) -> str:
    """A token's text as drawn: line breaks visible, no spaces around it, cut if it is long."""
    text = piece.replace("\n", "↵").strip()
    return text if len(text) <= LONGEST_LABEL else f"{text[: LONGEST_LABEL - 1]}…"

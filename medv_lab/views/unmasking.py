"""Which position was committed when, and how surely: a `SampleTrace` as a grid of tokens."""

import numpy as np
from matplotlib.axes import Axes

from medv_lab.diffusion.trace import SampleTrace
from medv_lab.views.style import ACCENT, SCALE, SMALLEST_FONT, new_axes

ROW_HEIGHT = 0.24  # inches
LONGEST_LABEL = 13
FADED = 0.35
COLOURS = ("step", "confidence")


def plot_unmasking(
    trace: SampleTrace, *, ax: Axes | None = None, columns: int = 8, colour: str = "step"
) -> Axes:
    """The answer as a grid of tokens in reading order, coloured by the pass that committed each or how surely.

    The last commit of a position is the one shown. What lies behind the end of the answer is faded. A vertical bar
    stands before the first token of every block but the first.

    Args:
        trace: what the sampler did; positions that are not filled in the end stay blank, commits in the prompt are
            left out.
        ax: where to draw; a new figure of page width by default.
        columns: tokens a line.
        colour: "step" for the forward pass, "confidence" for the probability of the token when it was chosen.

    Returns:
        The Axes; its image holds the step or confidence of each position, row by row.

    Raises:
        ValueError: for another colour.
    """
    if colour not in COLOURS:
        raise ValueError(f"colour is {colour!r}; allowed are {', '.join(COLOURS)}")
    rows = -(-trace.gen_length // columns)
    ax = new_axes("page", 0.5 + ROW_HEIGHT * rows) if ax is None else ax
    places = np.arange(rows * columns)
    commits = trace.final_commits()
    is_filled = commits >= 0
    shown = np.full(len(places), np.nan)
    shown[: trace.gen_length][is_filled] = getattr(trace, colour)[commits[is_filled]]
    end = int(trace.stops[-1]) if len(trace.stops) else trace.gen_length
    alpha = np.where(places < end, 1.0, FADED)
    highest = max(1, trace.forward_evaluations - 1) if colour == "step" else 1
    image = ax.imshow(
        shown.reshape(rows, columns),
        cmap=SCALE,
        aspect="auto",
        vmin=0,
        vmax=highest,
        alpha=alpha.reshape(rows, columns),
    )
    for place, token in enumerate(trace.replay()):
        if token != trace.mask_token_id:
            ax.text(
                place % columns,
                place // columns,
                label(trace.piece(token)),
                ha="center",
                va="center",
                color="white" if shown[place] < 0.6 * highest and place < end else "black",
                fontsize=SMALLEST_FONT,
                parse_math=False,
            )
    starts = np.arange(trace.block_length, trace.gen_length, trace.block_length)
    ax.vlines(
        starts % columns - 0.5,
        starts // columns - 0.45,
        starts // columns + 0.45,
        color=ACCENT,
        linewidth=2,
        clip_on=False,
        zorder=3,
    )
    ax.set_xticks([])
    ax.set_yticks(range(rows), [str(row * columns) for row in range(rows)])
    ax.set_ylabel("position")
    ax.grid(visible=False)
    meaning = "committed in pass" if colour == "step" else "confidence"
    ax.figure.colorbar(image, ax=ax, label=meaning, pad=0.01).solids.set_alpha(1)
    return ax


def label(piece: str) -> str:
    """A token's text as drawn: line breaks visible, no spaces around it, cut if it is long."""
    text = piece.replace("\n", "↵").strip()
    return text if len(text) <= LONGEST_LABEL else f"{text[: LONGEST_LABEL - 1]}…"

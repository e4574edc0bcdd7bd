"""What a sampler did, drawn from a `SampleTrace`: which position was committed when, how surely, and instead of what.

A position may be committed more than once: `plot_unmasking` shows the last commit, `plot_commit_order` shows all and
rings those that no longer stand in the finished answer. Commits in the prompt are left out. Every function draws on
`ax`, or on a new figure, and gives the Axes back.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from medv_lab.diffusion.trace import SampleTrace
from medv_lab.views.style import ACCENT, PALETTE, SCALE, SMALLEST_FONT, new_axes

HEIGHT = 2.4  # inches
ROW_HEIGHT = {"unmasking": 0.24, "alternatives": 0.22}  # inches
LONGEST_LABEL = 13  # characters
FADED = 0.35
COLOURS = ("step", "confidence")


def plot_unmasking(
    trace: SampleTrace, *, ax: Axes | None = None, columns: int = 8, colour: str = "step"
) -> Axes:
    """Draw the answer as a grid of tokens in reading order, coloured by the pass that committed each or how surely.

    The last commit of a position is the one shown; one that is not filled in the end stays blank, and a token that was
    given stands framed on a blank cell. What lies behind the end of the answer is faded. A vertical bar stands before
    the first token of every block but the first.

    Args:
        trace: what the sampler did.
        ax: where to draw; a new figure of page width by default.
        columns: tokens per line.
        colour: "step" for the forward pass, "confidence" for the probability of the token when it was chosen.

    Returns:
        The Axes; its image holds the step or confidence of each position, row by row, its patches frame given tokens.

    Raises:
        ValueError: for another colour.
    """
    if colour not in COLOURS:
        raise ValueError(f"colour is {colour!r}; allowed are {', '.join(COLOURS)}")
    rows = -(-trace.gen_length // columns)
    ax = new_axes("page", 0.5 + ROW_HEIGHT["unmasking"] * rows) if ax is None else ax

    # The grid: a cell per position, the rest of the last row blank.
    cells = np.arange(rows * columns)
    commits = trace.final_commits()
    is_filled = commits >= 0
    shown = np.full(len(cells), np.nan)
    shown[: trace.gen_length][is_filled] = getattr(trace, colour)[commits[is_filled]]
    end = int(trace.stops[-1]) if len(trace.stops) else trace.first_stop
    alpha = np.where(cells < end, 1.0, FADED)
    highest = max(1, trace.forward_evaluations - 1) if colour == "step" else 1
    image = ax.imshow(shown.reshape(rows, columns), cmap=SCALE, aspect="auto", vmin=0, vmax=highest)
    image.set_alpha(alpha.reshape(rows, columns))

    # The tokens, in an ink that can be read on the cell's colour.
    for position, token in enumerate(trace.replay()):
        if token != trace.mask_token_id:
            is_dark = shown[position] < 0.6 * highest and position < end
            row, column = divmod(position, columns)
            look = {"color": "white" if is_dark else "black", "fontsize": SMALLEST_FONT, "parse_math": False}
            ax.text(column, row, token_label(trace.piece(token)), ha="center", va="center", **look)

    for position in np.flatnonzero(trace.is_given):
        row, column = divmod(int(position), columns)
        frame = {"fill": False, "edgecolor": "0.6", "linewidth": 0.8}
        ax.add_patch(Rectangle((column - 0.46, row - 0.42), 0.92, 0.84, **frame))

    # The borders of the blocks.
    row, column = np.divmod(np.arange(trace.block_length, trace.gen_length, trace.block_length), columns)
    bars = {"color": ACCENT, "linewidth": 2, "clip_on": False, "zorder": 3}
    ax.vlines(column - 0.5, row - 0.45, row + 0.45, **bars)
    ax.set_xticks([])
    ax.set_yticks(range(rows), [str(row * columns) for row in range(rows)])
    ax.set_ylabel("position")
    ax.grid(visible=False)
    meaning = "committed in pass" if colour == "step" else "confidence"
    ax.figure.colorbar(image, ax=ax, label=meaning, pad=0.01).solids.set_alpha(1)
    return ax


def plot_commit_order(trace: SampleTrace, *, ax: Axes | None = None) -> Axes:
    """Draw a point per commit, its pass against its position, coloured by confidence; crosses where it was remasked.

    Block borders are dashed. A run from left to right would be a rising line; the distance from it is what masked
    diffusion does otherwise.

    Returns:
        The Axes; its first collection holds (position, step) and the confidences of the commits, in their order.
        If some do not stand in the finished answer, a second one rings them; if something was remasked, the last one
        crosses (position, step) of that.
    """
    ax = new_axes("column", HEIGHT) if ax is None else ax
    in_answer = trace.position >= 0
    at, step, confidence = (part[in_answer] for part in (trace.position, trace.step, trace.confidence))
    points = ax.scatter(at, step, c=confidence, cmap=SCALE, vmin=0, vmax=1, s=9, linewidths=0)
    replaced = in_answer & ~np.isin(np.arange(len(trace.step)), trace.final_commits())
    if replaced.any():
        rings = {"facecolors": "none", "edgecolors": ACCENT, "linewidths": 0.8, "label": "replaced later"}
        ax.scatter(trace.position[replaced], trace.step[replaced], s=24, **rings)
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), frameon=False)
    if len(trace.remasked_step):
        crosses = {"marker": "x", "s": 9, "linewidths": 0.8, "color": ACCENT}
        ax.scatter(trace.remasked_position, trace.remasked_step, **crosses)
    for start in range(trace.block_length, trace.gen_length, trace.block_length):
        ax.axvline(start - 0.5, color="0.6", linewidth=0.8, linestyle="--")
    ax.set_xlim(-0.5, trace.gen_length - 0.5)
    ax.set(xlabel="position in the answer", ylabel="committed in pass")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    ax.figure.colorbar(points, ax=ax, label="confidence", pad=0.02)
    return ax


def plot_confidence(trace: SampleTrace, *, ax: Axes | None = None) -> Axes:
    """Draw the confidence of every commit over the passes, and the mean confidence and entropy of each pass.

    Returns:
        The Axes; its collection holds (step, confidence) of the commits, its first line the mean confidences. The
        mean entropies (nats) are the line of a second Axes over it, the last of the figure.
    """
    ax = new_axes("column", HEIGHT) if ax is None else ax
    frame = trace.to_frame()
    frame = frame[frame.position >= 0]
    means = frame.groupby("step")[["confidence", "entropy"]].mean()
    dots = {"s": 7, "color": "0.55", "linewidths": 0, "label": "confidence, one commit"}
    commits = ax.scatter(frame.step, frame.confidence, **dots)
    (mean,) = ax.plot(means.confidence, color=ACCENT, linewidth=1.2, label="mean of a pass")
    ax.set(ylim=(-0.03, 1.03), xlabel="pass", ylabel="confidence")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    other = ax.twinx()
    dashes = {"color": PALETTE["blue"], "linewidth": 1, "linestyle": "--", "label": "mean entropy of a pass"}
    (entropy,) = other.plot(means.entropy, **dashes)
    other.set_ylim(bottom=0)
    other.set_ylabel("entropy (nats)")
    other.grid(visible=False)
    handles = [commits, mean, entropy]
    ax.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False)
    return ax


def plot_alternatives(trace: SampleTrace, position: int, *, ax: Axes | None = None) -> Axes:
    """Draw what the model considered at one position: tokens (rows) over the passes that committed it (columns).

    A trace knows the most probable tokens at each commit, not in between. The chosen token is framed; a token that
    was not among the most probable ones then has a blank cell.

    Returns:
        The Axes; its image holds the probabilities, NaN where unknown, and its patches frame the chosen tokens.

    Raises:
        ValueError: for a position that was never committed.
    """
    commits = np.nonzero(trace.position == position)[0] if position >= 0 else np.zeros(0, int)
    if not len(commits):
        known = np.unique(trace.position[trace.position >= 0])
        raise ValueError(
            f"position {position} was never committed; this trace knows {len(known)} of the positions "
            f"0..{trace.gen_length - 1}: {known.tolist()}"
        )

    # Rows: every token that was chosen or considered, the most probable on top.
    ids, shares = trace.alternative_ids[commits], trace.alternative_probs[commits]
    column = np.repeat(np.arange(len(commits)), ids.shape[1])
    considered = pd.DataFrame({"token": ids.ravel(), "column": column, "share": shares.ravel()})
    known = considered.pivot_table(index="token", columns="column", values="share", aggfunc="last")
    known = known.reindex(known.index.union(trace.token_id[commits]), columns=range(len(commits)))
    tokens = known.max(axis=1).sort_values(ascending=False, kind="stable").index.tolist()
    table = known.loc[tokens].to_numpy(float)

    ax = new_axes("column", 0.6 + ROW_HEIGHT["alternatives"] * len(tokens)) if ax is None else ax
    image = ax.imshow(table, cmap=SCALE, vmin=0, vmax=1, aspect="auto")
    for row, column in zip(*np.nonzero(~np.isnan(table)), strict=True):
        value = table[row, column]
        ink = "white" if value < 0.6 else "black"
        ax.text(column, row, f"{value:.3f}", color=ink, fontsize=SMALLEST_FONT, ha="center", va="center")
    for column, number in enumerate(commits):
        corner = (column - 0.48, tokens.index(trace.token_id[number]) - 0.46)
        ax.add_patch(Rectangle(corner, 0.96, 0.92, fill=False, edgecolor=ACCENT, linewidth=1.8))
    names = [token_label(trace.piece(token)) or f"id {token}" for token in tokens]
    for tick in ax.set_yticks(range(len(tokens)), names):
        tick.label1.set_parse_math(False)
    ax.set_xticks(range(len(commits)), [str(trace.step[number]) for number in commits])
    ax.set_xlabel(f"committed in pass, position {position}")
    ax.grid(visible=False)
    ax.figure.colorbar(image, ax=ax, label="probability", pad=0.02)
    return ax


def token_label(piece: str) -> str:
    """Return a token's text as drawn: line breaks visible, no spaces around it, cut if it is long."""
    text = piece.replace("\n", "↵").strip()
    return text if len(text) <= LONGEST_LABEL else f"{text[: LONGEST_LABEL - 1]}…"

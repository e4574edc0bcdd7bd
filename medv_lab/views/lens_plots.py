"""The logit lens of an answer, drawn: layers over positions of one pass, or over the passes."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from medv_lab.diffusion.trace import SampleTrace
from medv_lab.views.style import ACCENT, SCALE, SMALLEST_FONT, new_axes
from medv_lab.views.trace_plots import token_label

HEIGHT = 2.4  # inches
MOST_LABELS = 24  # columns in which tokens are written
# what a cell shows: the array of the lens, and the label of its scale
COLOURS = {
    "probability": ("final_probability", "probability of the final token"),
    "entropy": ("entropy", "entropy (nats)"),
    "rank": ("final_rank", "rank of the final token (log10)"),
}


def plot_lens(
    trace: SampleTrace,
    *,
    step: int | None = None,
    position: int | None = None,
    colour: str = "probability",
    ax: Axes | None = None,
) -> Axes:
    """Draw what every recorded layer would say, the last on top.

    With `step`, columns are the answer positions of that pass; with `position`, the passes at that position. Where they
    are few, each cell names the token that the layer finds most probable. With neither, columns are the passes, and a
    cell is the mean over the positions that were still masked before the pass. A line marks when a position was filled.

    Args:
        trace: of a run with `record_hidden`.
        step: which forward pass.
        position: which answer position.
        colour: "probability" of the token that stands there in the end, its "rank" (as log10, 0 is the first), or
            "entropy".
        ax: where to draw; a new figure of page width by default.

    Returns:
        The Axes; its image holds (layers, columns), NaN where nothing was computed.

    Raises:
        ValueError: for a trace without a lens, step and position together, an unknown one of them or another colour.
    """
    lens = trace.lens
    if lens is None:
        raise ValueError("this trace has no lens; ask again with record_hidden=True")
    if colour not in COLOURS:
        raise ValueError(f"colour is {colour!r}; allowed are {', '.join(COLOURS)}")
    if step is not None and position is not None:
        raise ValueError(f"step {step} and position {position} were given; give one of them, or neither")
    passes, _, length = lens.token_id.shape
    for name, value, count in (("step", step, passes), ("position", position, length)):
        if value is not None and not 0 <= value < count:
            raise ValueError(f"{name} is {value}; this lens has {name}s 0..{count - 1}")

    # Cells, and the tokens in them: (layers, columns).
    array, label = COLOURS[colour]
    values = getattr(lens, array).astype(float)
    if colour == "rank":
        values = np.log10(np.where(values > 0, values, np.nan))
    if step is not None:
        cells, tokens = values[step], lens.token_id[step]
    elif position is not None:
        cells, tokens = values[:, :, position].T, lens.token_id[:, :, position].T
    else:
        cells, tokens = _mean_of_masked(trace, values), None

    ax = new_axes("page", HEIGHT) if ax is None else ax
    highest = 1.0 if colour == "probability" else None
    image = ax.imshow(cells, cmap=SCALE, vmin=0, vmax=highest, aspect="auto", origin="lower")
    if tokens is not None and tokens.shape[1] <= MOST_LABELS:
        middle = np.nanmax(cells, initial=0) * 0.6 if highest is None else 0.6
        for (row, column), token in np.ndenumerate(tokens):
            ink = "white" if cells[row, column] < middle else "black"  # NaN is drawn white
            text = token_label(trace.piece(token)) if token >= 0 else ""
            look = {"color": ink, "fontsize": SMALLEST_FONT, "parse_math": False, "clip_on": True}
            ax.text(column, row, text, ha="center", va="center", **look)
    if position is not None:
        for filled in trace.step[trace.position == position]:
            ax.axvline(filled + 0.5, color=ACCENT, linewidth=1.5)
    ax.set(xlabel="position in the answer" if step is not None else "pass", ylabel="layer")
    ax.set_yticks(range(len(lens.layers)), [str(number) for number in lens.layers])
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(visible=False)
    ax.figure.colorbar(image, ax=ax, label=label, pad=0.01)
    return ax


def _mean_of_masked(trace: SampleTrace, values: np.ndarray) -> np.ndarray:
    """Return the means (K, F) of values (F, K, L) over the known positions that were masked before each pass."""
    means = np.full(values.shape[:2], np.nan)
    for step, layers in enumerate(values):
        masked = (trace.replay(step - 1) == trace.mask_token_id) & trace.is_there(step - 1)
        for layer, row in enumerate(layers):
            known = row[masked & ~np.isnan(row)]
            means[step, layer] = known.mean() if known.size else np.nan
    return means.T

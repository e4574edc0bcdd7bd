"""In which order positions were committed, and how sure each commit was: pictures of a `SampleTrace`."""

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from medv_lab.diffusion.trace import SampleTrace
from medv_lab.views.style import MODEL_COLOURS, WIDTHS

SIZE = (WIDTHS["column"], 2.4)  # inches


def plot_commit_order(trace: SampleTrace, *, ax: Axes | None = None) -> Axes:
    """One point a commit: its pass against its position, coloured by confidence; a cross where one was revoked.

    Block borders are dashed.

    A run from left to right would be a rising line; the distance from it is what masked diffusion does otherwise.

    Args:
        trace: what the sampler did; commits in the prompt are left out.
        ax: where to draw; a new figure of column width by default.

    Returns:
        The Axes; its first collection holds (position, step) and the confidences of the commits, in their order, a
        second one, if something was revoked, (position, step) of the revocations.
    """
    ax = _new_axes() if ax is None else ax
    in_answer = trace.position >= 0
    points = ax.scatter(
        trace.position[in_answer],
        trace.step[in_answer],
        c=trace.confidence[in_answer],
        cmap="viridis",
        vmin=0,
        vmax=1,
        s=9,
        linewidths=0,
    )
    if len(trace.revoked_step):
        ax.scatter(
            trace.revoked_position,
            trace.revoked_step,
            marker="x",
            s=9,
            linewidths=0.8,
            color=MODEL_COLOURS["LLaDA-MedV"],
        )
    for start in range(trace.block_length, trace.gen_length, trace.block_length):
        ax.axvline(start - 0.5, color="0.6", linewidth=0.8, linestyle="--")
    ax.set_xlim(-0.5, trace.gen_length - 0.5)
    ax.set_xlabel("position in the answer")
    ax.set_ylabel("committed in pass")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    ax.figure.colorbar(points, ax=ax, label="confidence", pad=0.02)
    return ax


def plot_confidence(trace: SampleTrace, *, ax: Axes | None = None) -> Axes:
    """Confidence of every commit over the passes, and its mean in each pass that committed something.

    Args:
        trace: what the sampler did; commits in the prompt are left out.
        ax: where to draw; a new figure of column width by default.

    Returns:
        The Axes; its collection holds (step, confidence) of the commits, its line the means.
    """
    ax = _new_axes() if ax is None else ax
    frame = trace.to_frame()
    frame = frame[frame.position >= 0]
    color = MODEL_COLOURS["LLaDA-MedV"]
    ax.scatter(frame.step, frame.confidence, s=7, color="0.55", linewidths=0, label="one commit")
    means = frame.groupby("step").confidence.mean()
    ax.plot(means.index, means, color=color, linewidth=1.2, label="mean of a pass")
    ax.set_ylim(-0.03, 1.03)
    ax.set_xlabel("pass")
    ax.set_ylabel("confidence")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False)
    return ax


def _new_axes() -> Axes:
    return plt.subplots(figsize=SIZE, layout="constrained")[1]

"""Recorded attention of newly committed tokens, laid over the picture."""

from collections.abc import Collection, Iterable

import numpy as np
from matplotlib.axes import Axes

from medv_lab.data.images import Picture, open_image
from medv_lab.diffusion.trace import SampleTrace
from medv_lab.views.style import new_axes

HEIGHT = 2.8  # inches
HEAT = "inferno"
OPACITY = 0.6  # where a patch got most; where it got nothing, the picture is bare


def plot_patch_attention(
    trace: SampleTrace,
    image: Picture,
    *,
    steps: Collection[int] | None = None,
    maps: Iterable[int | str] | None = None,
    grid: int = 0,
    ax: Axes | None = None,
) -> Axes:
    """Draw the attention of newly committed tokens to the patches of a picture over that picture.

    Drawn is the share of a token's attention that a patch got, mean over the commits of the chosen passes and over
    the chosen maps. Attention is not an explanation: it says what was read, not what was used.

    Args:
        trace: of a run with `record_attention`.
        image: the picture that was asked about; anything `open_image` takes.
        steps: passes whose commits count, all by default; commits in the prompt never do.
        maps: which of the recorded layers, all by default.
        grid: which of the recorded grids; 0 is the first picture as a whole, the next its tiles where it was cut.
        ax: where to draw; a new figure of column width by default.

    Returns:
        The Axes; its first image is the picture, its second the shares of the patches, row by row.

    Raises:
        ValueError: for a trace without attention, passes without commits, or an unknown map or grid.
        ImageError: for a picture that cannot be opened.
    """
    attention = trace.attention
    if attention is None:
        raise ValueError("this trace has no attention; ask again with record_attention=True and a picture")
    if not 0 <= grid < len(attention.grids):
        raise ValueError(f"grid is {grid}; this trace has the grids 0..{len(attention.grids) - 1}")
    chosen = trace.position >= 0
    if steps is not None:
        chosen &= np.isin(trace.step, list(steps))
    if not chosen.any():
        raise ValueError(
            f"nothing was committed in the passes {steps}; choose among {np.unique(trace.step).tolist()}"
        )
    patches = attention.grids[grid]
    shares = attention.mean(chosen, maps)[patches.indices()]
    picture = open_image(image)
    ax = new_axes("column", HEIGHT) if ax is None else ax
    ax.imshow(picture, extent=(0, picture.width, picture.height, 0))
    left, top, right, bottom = patches.box
    highest = float(shares.max()) or 1.0
    overlay = ax.imshow(
        shares,
        cmap=HEAT,
        vmin=0,
        vmax=highest,
        alpha=OPACITY * shares / highest,
        extent=(left * picture.width, right * picture.width, bottom * picture.height, top * picture.height),
    )
    ax.set_xlim(0, picture.width)
    ax.set_ylim(picture.height, 0)
    ax.set_axis_off()
    bar = ax.figure.colorbar(overlay, ax=ax, label="share of a token's attention", pad=0.02)
    bar.solids.set_alpha(1)
    return ax

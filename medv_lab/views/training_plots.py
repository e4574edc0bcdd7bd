"""Models and their training, drawn: the parts and what learns, the loss of a run, and the arms of the ablations."""

from collections.abc import Callable, Collection
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

from medv_lab.views.style import ACCENT, FONT_SIZE, PALETTE, SMALLEST_FONT, new_axes, themed

HEIGHT, DIAGRAM_HEIGHT = 2.2, 2.9  # inches
ARM_LOOKS = {"steps": (PALETTE["blue"], "o"), "compute": (PALETTE["orange"], "s")}
# of the diagram
PARTS = ("vision_tower", "projector", "language_model")  # as the model's `parts()` names them
NEUTRAL, FROZEN, LEARNING = "#E8EEF4", "#E4E4E4", "#F7D9C8"
LINE = "#404040"
SHOWN_PATCHES, SHOWN_WORDS, SHOWN_BLOCKS, SHOWN_PER_BLOCK = 5, 3, 3, 4
FILLED = (0, 1, 2, 3, 5)  # positions of its canvas that have a token: the first block, and one of the next
CELL, TOKENS_AT = 0.5, 2.9


def plot_losses(history: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw loss against step of a history that `run_stage` returned (columns step, loss)."""
    ax = _loss_axes() if ax is None else ax
    ax.plot(history["step"], history["loss"], marker=".", linewidth=1)
    ax.set(xlabel="step", ylabel="loss")
    return ax


def watch_losses() -> Callable[[pd.DataFrame], None]:
    """Return a `watch` for `run_stage` that keeps one figure of the notebook up to date."""
    ax = _loss_axes()
    handle = display(ax.figure, display_id=True)
    plt.close(ax.figure)  # or the notebook shows it a second time at the end of the cell

    def update(history: pd.DataFrame) -> None:
        ax.clear()
        plot_losses(history, ax=ax)
        if handle is not None:  # None where there is no notebook
            handle.update(ax.figure)

    return update


def _loss_axes() -> Axes:
    with themed():
        return new_axes("column", HEIGHT)


def plot_arms(table: pd.DataFrame, score: str, *, ax: Axes | None = None) -> Axes:
    """Draw one score, a line per arm: mean, 95 % interval and every seed; equal steps and equal compute apart.

    An arm with fewer seeds than others says how many it has, and one with another base than the first says which.

    Args:
        table: columns arm, equal, score, seeds, mean, low, high, by_seed, as `studies.ablation_grid.tabulate` or
            `compare_arms` give them; differences get a line at 0.
        score: which one.
        ax: where to draw; a new figure of column width by default.

    Raises:
        ValueError: for a score that the table does not have.
    """
    own = table[table.score == score]
    if own.empty:
        raise ValueError(f"there is no score {score!r}; there are {', '.join(table.score.unique())}")
    base = own.base.iloc[0] if "base" in own else None
    notes = "" if base is None else own.base.map(lambda name: "" if name == base else f" minus {name}")
    own = own.assign(row=own.arm + notes)
    rows = list(dict.fromkeys(own.row))
    if ax is None:
        with themed():
            ax = new_axes("column", 0.6 + 0.25 * len(rows))
    for equal, (colour, marker) in ARM_LOOKS.items():
        part = own[own.equal == equal]
        if part.empty:
            continue
        shift = 0.12 if equal == "compute" else -0.12
        heights = [rows.index(row) + shift for row in part.row]
        ax.hlines(heights, part.low, part.high, color=colour, linewidth=1.5)
        seeds = [
            (float(value), at)
            for text, at in zip(part.by_seed, heights, strict=True)
            for value in text.split()
        ]
        ax.plot(part["mean"], heights, marker, color=colour, label=f"equal in {equal}", markersize=4.5)
        values, at = zip(*seeds, strict=True)
        ax.plot(values, at, "o", color="white", mec=colour, mew=0.7, markersize=2.2, label="_seeds")
    if base is not None:
        ax.axvline(0, color="0.5", linewidth=0.8)
    fewest = own.groupby("row").seeds.min()
    labels = [row if fewest[row] == own.seeds.max() else f"{row} ({fewest[row]} seeds)" for row in rows]
    ax.set_yticks(range(len(rows)), labels)
    ax.invert_yaxis()
    ax.set_xlabel(f"{score}, percent" if base is None else f"{score}, points minus {base}")
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False, borderaxespad=0, fontsize=7)
    return ax


def plot_architecture(
    config: Any, *, learning: Collection[str] | None = None, title: str = "", ax: Axes | None = None
) -> Axes:
    """Draw how a picture and a question become an answer: the parts of the model and one pass of the sampler.

    Args:
        config: of a model, a `MedVConfig`; the sizes written into the boxes are its own.
        learning: parts that a stage of training changes, by the names of the model's `parts()`; all others are drawn
            as frozen. None draws all alike.
        title: above the diagram.
        ax: where to draw; a new figure of page width by default.

    Returns:
        The Axes; its patches labelled with the names of parts are their boxes.

    Raises:
        ValueError: for a part that no model has.
    """
    unknown = sorted(set(learning or ()) - set(PARTS))
    if unknown:
        raise ValueError(f"{unknown[0]!r} is no part of a model; parts are {', '.join(PARTS)}")
    ax = new_axes("page", DIAGRAM_HEIGHT) if ax is None else ax
    vision = config.vision_config
    patches = (vision.image_size // vision.patch_size) ** 2

    # From the bottom left: a picture becomes features, as wide as the tokens of the language model.
    _box(
        ax,
        "picture",
        (0.1, 0.2, 1.7, 1.0),
        f"picture\n{vision.image_size} x {vision.image_size} pixels",
        NEUTRAL,
    )
    layers = vision.num_hidden_layers - 1  # the last one is dropped
    text = f"SigLIP vision tower $g$\n{layers} layers, {patches} patches"
    _box(ax, "vision_tower", (2.3, 0.2, 2.7, 1.0), text, learning)
    text = f"projector $h$\n{vision.hidden_size} $\\to$ {config.hidden_size}"
    _box(ax, "projector", (5.5, 0.2, 1.9, 1.0), text, learning)
    _box(ax, "question", (7.9, 0.2, 1.6, 1.0), "question\nas tokens", NEUTRAL)

    # The sequence: image features, question, and the answer as a canvas of masks, cut into blocks.
    at = 0.4
    ends = {}
    groups = [("image", SHOWN_PATCHES, PALETTE["sky"]), ("question", SHOWN_WORDS, "#BBBBBB")]
    for name, count, colour in groups:
        at, ends[name] = _cells(ax, at, [colour] * count)
    canvas = at
    for block in range(SHOWN_BLOCKS):
        numbers = range(block * SHOWN_PER_BLOCK, (block + 1) * SHOWN_PER_BLOCK)
        at, middle = _cells(ax, at, [PALETTE["yellow"] if n in FILLED else LINE for n in numbers])
        ax.text(
            middle, TOKENS_AT - 0.32, f"block {block + 1}", ha="center", va="center", fontsize=SMALLEST_FONT
        )
    right = at - 0.3
    ax.text(
        right + 0.2,
        TOKENS_AT + CELL / 2,
        "canvas:\nmasks (dark)\nand tokens",
        va="center",
        fontsize=SMALLEST_FONT,
    )
    _arrow(ax, (1.8, 0.7), (2.3, 0.7))
    _arrow(ax, (5.0, 0.7), (5.5, 0.7))
    _arrow(ax, (6.0, 1.2), (ends["image"], TOKENS_AT))
    _arrow(ax, (8.4, 1.2), (ends["question"], TOKENS_AT))

    # One pass: every position sees every other; what it predicts is kept where the model is surest.
    text = f"language model $p_\\theta$: {config.num_hidden_layers} layers of width {config.hidden_size}, "
    text += (
        "every position sees every other" if not config.is_causal else "every position sees those before it"
    )
    _box(ax, "language_model", (0.4, 4.0, right - 0.4, 0.8), text, learning)
    for x in (ends["image"], ends["question"], canvas + 1, (canvas + right) / 2, right - 1):
        _arrow(ax, (x, TOKENS_AT + CELL), (x, 4.0))
    text = "$x_0$, a token for every mask of the active block, with its confidence"
    ax.text((canvas + right) / 2, 5.5, text, ha="center", va="center", fontsize=SMALLEST_FONT)
    _arrow(ax, ((canvas + right) / 2, 4.8), ((canvas + right) / 2, 5.3))
    _arrow(ax, (right + 0.1, 5.5), (right - 0.1, TOKENS_AT + CELL), curve=-0.55)
    ax.text(
        right + 1.15,
        4.75,
        "the surest\nare kept, the\nothers stay\nmasked",
        va="center",
        fontsize=SMALLEST_FONT,
        color=ACCENT,
    )

    ax.set(xlim=(0, right + 2.6), ylim=(0, 5.9))
    ax.set_title(title, fontsize=FONT_SIZE + 1)
    ax.axis("off")
    return ax


def _box(ax: Axes, name: str, place: tuple, text: str, look: str | Collection[str] | None) -> None:
    """Draw a labelled box at (x, y, width, height): in a colour, or as a part that learns or is frozen."""
    colour, note = (look, "") if isinstance(look, str) else (NEUTRAL, "")
    if look is not None and not isinstance(look, str):
        colour, note = (LEARNING, "learns") if name in look else (FROZEN, "frozen")
    x, y, width, height = place
    style = {
        "boxstyle": "round,pad=0,rounding_size=0.12",
        "facecolor": colour,
        "edgecolor": LINE,
        "linewidth": 0.7,
    }
    ax.add_patch(FancyBboxPatch((x, y), width, height, label=name, **style))
    text = f"{text}\n{note}" if note and "\n" in text else f"{text}; {note}" if note else text
    ax.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=SMALLEST_FONT)


def _cells(ax: Axes, start: float, colours: list[str]) -> tuple[float, float]:
    """Draw a row of cells; return where the next group starts, and the middle of this one."""
    for number, colour in enumerate(colours):
        look = {"facecolor": colour, "edgecolor": "white", "linewidth": 0.8}
        ax.add_patch(Rectangle((start + number * CELL, TOKENS_AT), CELL, CELL, **look))
    end = start + len(colours) * CELL
    return end + 0.3, (start + end) / 2


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], curve: float = 0.0) -> None:
    colour = ACCENT if curve else LINE
    look = {
        "arrowstyle": "-|>",
        "mutation_scale": 7,
        "linewidth": 0.8,
        "color": colour,
        "shrinkA": 1,
        "shrinkB": 1,
    }
    ax.add_patch(FancyArrowPatch(start, end, connectionstyle=f"arc3,rad={curve}", **look))

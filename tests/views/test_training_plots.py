"""The diagram has the sizes of its model and says what learns; losses and arms are drawn as the tables have them."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from medv_lab.views import training_plots
from medv_lab.views.training_plots import (
    FROZEN,
    LEARNING,
    NEUTRAL,
    PARTS,
    plot_architecture,
    plot_arms,
    plot_losses,
    watch_losses,
)

TABLE = pd.DataFrame(
    [
        ("ours", "steps", "open", 5, 60.0, 55.0, 65.0, "58 62 60 59 61"),
        ("V1", "steps", "open", 5, 40.0, 30.0, 50.0, "40 40 40 30 50"),
        ("ours", "compute", "open", 5, 70.0, 66.0, 74.0, "70 70 70 69 71"),
        ("ours", "steps", "closed", 2, 50.0, np.nan, np.nan, "49 51"),
    ],
    columns=["arm", "equal", "score", "seeds", "mean", "low", "high", "by_seed"],
)
HISTORY = pd.DataFrame({"step": [10, 20, 30], "loss": [3.0, 2.0, 1.5]})


def test_points_and_intervals_are_those_of_the_table():
    ax = plot_arms(TABLE, "open")
    assert [label.get_text() for label in ax.get_yticklabels()] == ["ours", "V1"]
    points = [line for line in ax.lines if line.get_label().startswith("equal")]
    assert [list(line.get_xdata()) for line in points] == [[60, 40], [70]]
    ends = [np.array(part.get_segments())[:, :, 0].tolist() for part in ax.collections]
    assert ends == [[[55, 65], [30, 50]], [[66, 74]]]
    seeds = [line.get_xdata() for line in ax.lines if line.get_label() == "_seeds"]
    assert [list(values) for values in seeds] == [
        [58, 62, 60, 59, 61, 40, 40, 40, 30, 50],
        [70, 70, 70, 69, 71],
    ]


def test_differences_get_a_line_at_zero():
    ax = plot_arms(TABLE.assign(base="twin"), "closed")
    assert "minus twin" in ax.get_xlabel()
    assert any(set(line.get_xdata()) == {0} for line in ax.lines)
    assert ax.get_xlim()[0] < 0


def test_an_arm_with_fewer_seeds_says_so_and_one_with_another_base_says_which():
    few = pd.DataFrame([("lora", "steps", "open", 2, 20.0, np.nan, np.nan, "10 30")], columns=TABLE.columns)
    ax = plot_arms(pd.concat([TABLE, few], ignore_index=True), "open")
    assert [label.get_text() for label in ax.get_yticklabels()] == ["ours", "V1", "lora (2 seeds)"]
    ax = plot_arms(TABLE.assign(base=["V2", "twin", "V2", "V2"]), "open")
    assert [label.get_text() for label in ax.get_yticklabels()] == ["ours", "V1 minus twin"]


def test_an_unknown_score_is_refused():
    with pytest.raises(ValueError, match="there are open, closed"):
        plot_arms(TABLE, "opne")


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

    monkeypatch.setattr(training_plots, "display", lambda *_, **__: Handle() if is_shown else None)
    watch = watch_losses()
    watch(HISTORY[:2])
    watch(HISTORY)
    assert drawn == ([[10, 20], [10, 20, 30]] if is_shown else [])


VISION = SimpleNamespace(image_size=84, patch_size=12, num_hidden_layers=8, hidden_size=111)
CONFIG = SimpleNamespace(vision_config=VISION, hidden_size=222, num_hidden_layers=33, is_causal=False)


def colours(ax) -> dict[str, str]:
    return {
        one.get_label(): to_hex(one.get_facecolor()).upper() for one in ax.patches if one.get_label() in PARTS
    }


def test_sizes_are_those_of_the_configuration():
    ax = plot_architecture(CONFIG)
    words = " ".join(text.get_text() for text in ax.texts)
    for said in (
        "84 x 84",
        "7 layers, 49 patches",
        "111 $\\to$ 222",
        "33 layers of width 222",
        "every other",
    ):
        assert said in words
    assert set(colours(ax).values()) == {NEUTRAL}
    plt.close("all")


@pytest.mark.parametrize("learning", [("projector",), ("projector", "language_model"), ()])
def test_what_learns_stands_out_and_all_else_is_frozen(learning):
    ax = plot_architecture(CONFIG, learning=learning)
    assert colours(ax) == {part: LEARNING if part in learning else FROZEN for part in PARTS}
    words = [text.get_text() for text in ax.texts]
    assert sum("learns" in word for word in words) == len(learning)
    assert sum("frozen" in word for word in words) == len(PARTS) - len(learning)
    plt.close("all")


def test_a_causal_model_is_not_drawn_as_bidirectional():
    causal = SimpleNamespace(**vars(CONFIG) | {"is_causal": True})
    assert not any("every other" in text.get_text() for text in plot_architecture(causal).texts)
    plt.close("all")


def test_an_unknown_part_is_refused():
    with pytest.raises(ValueError, match="'head' is no part"):
        plot_architecture(CONFIG, learning=("head",))

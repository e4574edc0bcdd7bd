"""One question with one setting at several values: the values, and the answers side by side as a small multiple."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from html import escape
from typing import Any

import ipywidgets as widgets

from medv_lab.config import GenerationSettings
from medv_lab.diffusion.trace import MASK_GLYPH, SampleTrace
from medv_lab.explorer.choices import most_passes, step_counts
from medv_lab.explorer.runs import Run, state_of
from medv_lab.views.page import colour_ramp

MOST_VALUES = 12
SWEPT = {"steps": "Z", "seed": "seed"}  # settings, and how their values are named


class SweepPanel(widgets.HBox):
    """Which setting takes which values, and the button that asks with all of them.

    Attributes:
        setting: "steps" or "seed".
        values: whole numbers, separated by commas.
        button: asks.
    """

    def __init__(self, sweep: Callable[[], Any]):
        """Take what the button calls."""
        self.setting = widgets.Dropdown(
            options=[("Z, steps", "steps"), ("seed", "seed")],
            description="sweep",
            layout=widgets.Layout(flex="1 1 200px"),
        )
        self.values = widgets.Text(
            description="values",
            tooltip="whole numbers, separated by commas",
            layout=widgets.Layout(flex="2 1 260px"),
        )
        self.button = widgets.Button(description="Sweep", icon="th")
        self.button.on_click(lambda _: sweep())
        self.setting.observe(lambda _: self.propose(self._start), "value")
        super().__init__(
            [self.setting, self.values, self.button], layout=widgets.Layout(flex_flow="row wrap")
        )
        self.propose(GenerationSettings())

    def propose(self, start: GenerationSettings) -> None:
        """Write values that go with these settings into the field."""
        self._start = start
        values = range(4) if self.setting.value == "seed" else proposed_steps(start)
        self.values.value = ", ".join(map(str, values))

    def settings(self, start: GenerationSettings) -> dict[str, GenerationSettings]:
        """Return the settings of every value under its name, "Z 8".

        Raises:
            ValueError: for values that are no whole numbers, too many, or do not go with the other settings, and for
                numbers of passes of a strategy that grows, which chooses them itself.
        """
        parts = [part.strip() for part in self.values.value.split(",") if part.strip()]
        if not 1 <= len(parts) <= MOST_VALUES or not all(part.isdecimal() for part in parts):
            raise ValueError(
                f"the values of the sweep are {self.values.value!r}; give 1 to {MOST_VALUES} whole numbers, "
                "separated by commas"
            )
        name, strategy = self.setting.value, start.remasking
        if name == "steps" and strategy.is_growing:
            raise ValueError(f"{strategy.name!r} takes as many passes as its answer needs; sweep the seed")
        found = {}
        for value in map(int, parts):
            more = {"max_passes": most_passes(strategy, start.L, value)} if name == "steps" else {}
            found[f"{SWEPT[name]} {value}"] = replace(start, **{name: value}, **more)
        return found


def proposed_steps(settings: GenerationSettings) -> list[int]:
    """Return four valid Z, rising: one token per pass, and a half, a quarter and an eighth of the passes."""
    counts = step_counts(settings.L, settings.B)
    return sorted({min(counts, key=lambda count: abs(count - settings.L // part)) for part in (8, 4, 2, 1)})


def small_multiple_html(runs: Sequence[Run]) -> str:
    """Return the answers of a sweep in a grid, each token coloured by the pass that committed it."""
    texts = [run.answer.text for run in runs]
    note = f"{len(runs)} answers, {len(set(texts))} of them distinct."
    if len(runs) > 1 and len(set(texts)) == 1 and runs[0].side.startswith(SWEPT["seed"]):
        note += " A seed changes something only where something is drawn: at a temperature, or by a strategy."
    colours = ", ".join(colour for colour, _ in colour_ramp())
    scale = (
        '<span style="display:inline-block;width:110px;height:10px;border-radius:3px;'
        f'background:linear-gradient(to right, {colours})"></span>'
    )
    cards = "".join(map(_card, runs))
    return (
        f'<p style="line-height:1.6">{note} Colour: first pass {scale} last pass of each answer; faded: behind '
        f"its end; {MASK_GLYPH}: masked.</p>"
        '<div class="medv-multiple" style="display:grid;gap:10px;'
        f'grid-template-columns:repeat(auto-fill,minmax(min(100%,300px),1fr))">{cards}</div>'
    )


def _card(run: Run) -> str:
    trace = run.answer.trace
    state = state_of(run)
    facts = (
        *(run.side, f"{trace.forward_evaluations} passes", f"{run.answer.seconds:.1f} s"),
        "" if state == "complete" else state,
    )
    head = " · ".join(filter(None, facts))
    return (
        '<section style="border:1px solid #c9ced6;border-radius:6px;padding:6px 8px;line-height:1.7">'
        f"<b>{escape(head)}</b><br>{_tokens(trace)}</section>"
    )


def _tokens(trace: SampleTrace) -> str:
    """Return the answer's tokens as HTML."""
    ramp, last = colour_ramp(), max(1, trace.forward_evaluations - 1)
    end = int(trace.stops[-1]) if len(trace.stops) else trace.gen_length
    parts = []
    for position, commit in enumerate(trace.final_commits().tolist()):
        if commit < 0:
            parts.append(f'<span style="color:#8b939e">{MASK_GLYPH}</span>')
            continue
        share = int(trace.step[commit]) / last
        background, ink = ramp[round(share * (len(ramp) - 1))]
        text = trace.piece(trace.token_id[commit]) or f"⟨{trace.token_id[commit]}⟩"
        gap = " " if text.startswith(" ") else ""
        faded = ";opacity:0.3" if position >= end else ""
        parts.append(
            f'{gap}<span style="background:{background};color:{ink};border-radius:3px;padding:0 2px{faded}">'
            f"{escape(text.strip() or text)}</span>"
        )
    return "".join(parts)

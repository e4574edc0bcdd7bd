"""The explorer's results: answers to scrub through, side by side or as a small multiple; numbers, history, exports."""

from collections import deque
from collections.abc import Callable, Sequence
from html import escape

import ipywidgets as widgets

from medv_lab.explorer.player import Player
from medv_lab.explorer.runs import (
    Run,
    difference_html,
    downloads_html,
    history_html,
    measure_run,
    metrics_html,
)
from medv_lab.explorer.sweeps import small_multiple_html
from medv_lab.views.page import looks_data

KEPT_RUNS = 50


class Results(widgets.VBox):
    """The runs that are shown, and all runs.

    Attributes:
        runs: all that have ended, the latest last; at most `KEPT_RUNS`.
    """

    def __init__(self, sides: tuple[str, ...], go_on: Callable[[str, Run, list[int]], None]):
        """Begin without a run.

        Args:
            sides: whose runs have a player; others are a small multiple.
            go_on: called with side, run and canvas when the tokens of an answer were changed by hand.
        """
        self._go_on = go_on
        self.runs: deque[Run] = deque(maxlen=KEPT_RUNS)
        self._shown: dict[str, Run] = {}
        self._numbers: dict[str, dict[str, str]] = {}
        self._players: dict[str, Player] = {}
        self._titles = {side: widgets.HTML() for side in sides}
        self._boxes = {
            side: widgets.VBox(
                [title], layout=widgets.Layout(flex="1 1 380px", min_width="0", display="none")
            )
            for side, title in self._titles.items()
        }
        answers = widgets.HBox(
            list(self._boxes.values()), layout=widgets.Layout(flex_flow="row wrap", width="100%")
        )
        self.multiple, self.difference = widgets.HTML(), widgets.HTML()
        self.metrics, self.history = widgets.HTML(), widgets.HTML()
        self.reopen = widgets.Dropdown(options=[("open a run …", "")])
        self.reopen.observe(self._take_run, "value")
        self.export = widgets.Button(description="Prepare downloads", layout=widgets.Layout(width="170px"))
        self.export.on_click(lambda _: self.prepare_downloads())
        self.downloads = widgets.HTML()
        tabs = widgets.Tab(
            [
                self.metrics,
                widgets.VBox([self.reopen, self.history]),
                widgets.VBox([self.export, self.downloads]),
            ],
            titles=("metrics", "history", "export"),
        )
        super().__init__([answers, self.multiple, self.difference, tabs])
        self._describe()
        self.history.value = history_html(self.runs)

    def player(self, side: str) -> Player:
        """Return the player of a side, made late: anywidget gives up on one that a busy page takes 2 s to set up."""
        if side not in self._players:
            self._players[side] = Player()
            self._players[side].observe(lambda change: self._take_edited(side, *change["new"]), "edited")
            self._boxes[side].children = (self._titles[side], self._players[side])
        return self._players[side]

    def begin(self, sides: Sequence[str], keep_others: bool = False) -> None:
        """Make room for new runs at these sides; other sides are hidden, or stay as they are."""
        kept = [side for side in self._shown if keep_others and side in self._boxes and side not in sides]
        self._shown = {side: self._shown[side] for side in kept}
        self._numbers = {side: self._numbers[side] for side in kept}
        for side, box in self._boxes.items():
            if side in kept:
                continue
            if side not in sides:
                box.layout.display = "none"
            before = self._players[side].data.get("run") if side in self._players else None
            still = f"; below is still run {before}" if before else ""
            self._titles[side].value = f"<b>{side}</b> · no pass yet{still}"
        self.multiple.value = ""
        self._describe()

    def show(self, run: Run, side: str | None = None) -> None:
        """Show a run that goes on or has ended, at its own side or at another one."""
        side = side or run.side
        self._shown[side], self._numbers[side] = run, measure_run(run)
        if side in self._boxes:
            trace = run.answer.trace
            self.player(side).show(trace, run.key, picture=run.source, looks=looks_data(trace))
            self._boxes[side].layout.display = ""
            state = " is running ·" if run.is_running else ","
            notes = "".join(f"<br>{escape(note)}" for note in run.answer.notes)
            title = f"<b>{side}</b> · run {run.key}{state} {run.summary()}{notes}"
            self._titles[side].value = f'<div style="line-height:1.4">{title}</div>'
        else:
            self.multiple.value = small_multiple_html(list(self._shown.values()))
        self._describe()

    def add(self, run: Run) -> None:
        """Show a run that has ended, and remember it."""
        self.runs.append(run)
        self.show(run)
        self.reopen.options = [
            ("open a run …", ""),
            *((f"{one.key}: {one.answer.text[:50]}", one) for one in reversed(self.runs)),
        ]
        self.history.value = history_html(self.runs)

    def prepare_downloads(self) -> None:
        """Make the links for the runs that are shown."""
        self.downloads.value = "".join(map(downloads_html, self._shown.values())) or "No run yet."

    def _take_edited(self, side: str, key: str, canvas: list[int], _: int) -> None:
        run = self._shown.get(side)
        if run is not None and run.key == key and not run.is_running:
            self._go_on(side, run, canvas)

    def _take_run(self, change: dict) -> None:
        if change["new"]:
            self.begin(("A",))
            self.show(change["new"], "A")
            self.reopen.value = ""

    def _describe(self) -> None:
        """Show numbers and difference of the runs that are shown."""
        self.metrics.value = metrics_html(self._numbers) if self._numbers else "No pass yet."
        self.downloads.value = (
            "For the runs that are shown: the trace, the page, an animation, and the code that asks again."
        )
        self.difference.value = ""
        if self._shown.keys() == self._boxes.keys():
            texts = (self._shown[side].answer.text for side in self._boxes)
            self.difference.value = f"<b>From A to B</b>{difference_html(*texts)}"

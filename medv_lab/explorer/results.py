"""The explorer's results: answers to scrub through, side by side; their difference, numbers, history and downloads."""

from collections import deque

import ipywidgets as widgets

from medv_lab.diffusion.trace import SampleTrace
from medv_lab.explorer.player import Player
from medv_lab.explorer.runs import Run, difference_html, downloads_html, history_html, metrics_html
from medv_lab.views.page import looks_data

KEPT_RUNS = 50


class Results(widgets.VBox):
    """The run of each side, and all runs.

    Attributes:
        runs: all that were added, the latest last; at most `KEPT_RUNS`.
    """

    def __init__(self, sides: tuple[str, ...]):
        """Begin without a run."""
        self.runs: deque[Run] = deque(maxlen=KEPT_RUNS)
        self._shown: dict[str, Run] = {}
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
        self.difference = widgets.HTML()
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
        super().__init__([answers, self.difference, tabs])
        self._describe()

    def player(self, side: str) -> Player:
        """Return the player of a side, made late: anywidget gives up on one that a busy page takes 2 s to set up."""
        if side not in self._players:
            self._players[side] = Player()
            self._boxes[side].children = (self._titles[side], self._players[side])
        return self._players[side]

    def begin(self, sides: tuple[str, ...]) -> None:
        """Make room for a new run at these sides; other sides are hidden."""
        self._shown = {}
        for side, box in self._boxes.items():
            if side not in sides:
                box.layout.display = "none"
        self.difference.value = ""

    def watch(self, side: str, key: str, trace: SampleTrace, source: str) -> None:
        """Show the trace so far of the run of this key, with its picture as a data address."""
        self.player(side).show(trace, key, picture=source, looks=looks_data(trace))
        self._boxes[side].layout.display = ""

    def add(self, run: Run) -> None:
        """Show a finished run at its side, and remember it."""
        self.runs.append(run)
        self._show(run, run.side)
        self.reopen.options = [
            ("open a run …", ""),
            *((f"{one.key}: {one.answer.text[:50]}", one) for one in reversed(self.runs)),
        ]
        self._describe()

    def prepare_downloads(self) -> None:
        """Make the links for the runs that are shown."""
        self.downloads.value = "".join(map(downloads_html, self._shown.values())) or "No run yet."

    def _show(self, run: Run, side: str) -> None:
        self._shown[side] = run
        self.watch(side, run.key, run.answer.trace, run.source)
        self._titles[side].value = f"<b>{side}</b> · run {run.key}, {run.summary()}"

    def _take_run(self, change: dict) -> None:
        if change["new"]:
            self.begin(("A",))
            self._show(change["new"], "A")
            self.reopen.value = ""
            self._describe()

    def _describe(self) -> None:
        """Show numbers, history and difference of the runs that are shown."""
        shown = list(self._shown.values())
        self.metrics.value = metrics_html(shown) if shown else "No run yet."
        self.history.value = history_html(self.runs)
        self.downloads.value = (
            "For the runs that are shown: the trace, the page, and the code that asks again."
        )
        self.difference.value = ""
        if len(shown) == 2:
            texts = (run.answer.text for run in shown)
            self.difference.value = f"<b>From A to B</b>{difference_html(*texts)}"

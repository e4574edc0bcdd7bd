"""The explorer: ask about a picture, watch the answer fill, change a setting, compare.

It knows no model: it is given a function that asks, so that everything here works with any model; only `explore` loads
one. All explorers of a process share the thread that runs work in, so that they take turns; it also updates the widgets
that show a run.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from html import escape
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import ipywidgets as widgets
from IPython import get_ipython

from medv_lab.config import GenerationSettings
from medv_lab.explorer.asking import AskedAbout, OpenModel, PlannedRun, ask_all, open_model
from medv_lab.explorer.controls import START, FieldPanel
from medv_lab.explorer.frame import BAR, EXPLORER, QUESTION, Frame
from medv_lab.explorer.pictures import PictureChooser, complaint
from medv_lab.explorer.results import Results
from medv_lab.explorer.runs import Run
from medv_lab.explorer.sides import BOTH, SIDES, SidesPanel
from medv_lab.explorer.sweeps import SweepPanel
from medv_lab.inputs.canvas import Canvas

if TYPE_CHECKING:
    from medv_lab.model.modeling import MedVForMaskedDiffusion
    from medv_lab.model.processing import MedVProcessor

EXAMPLES = (
    "Describe the image.",
    "What type of image is this?",
    "What abnormality is seen?",
    "Where is the abnormality?",
    "Is there anything abnormal?",
)
PATIENCE = 30.0  # seconds that closing waits for a pass to end

_thread = ThreadPoolExecutor(1, "medv-lab")  # one run at a time: runs share memory, and perhaps a model
_open_explorers: weakref.WeakValueDictionary[str, Explorer] = weakref.WeakValueDictionary()


class Explorer(widgets.VBox):
    """The explorer as a widget; its parts are attributes, so that a notebook can work them too.

    Attributes:
        pictures: the choice of a picture.
        question: the text field; Enter in it asks.
        sides: the settings of both sides; its `mode` and `panels` are attributes here too.
        sweeping: the values of a sweep.
        filling: the field for an answer with gaps.
        naming: the field for another model.
        drawers: buttons that show and hide settings, gaps, sweep and model.
        results: the answers, with all runs.
    """

    def __init__(
        self,
        model: OpenModel,
        *,
        settings: GenerationSettings = START,
        load: Callable[[str], OpenModel] | None = None,
    ):
        """Build all controls.

        Args:
            model: to be asked.
            settings: to begin with; side B follows A until it is changed.
            load: opens another model by its name; None leaves this one in its place.
        """
        self._model, self._load = model, load
        self._future: Future | None = None
        self._cancelled, self._ended = Event(), Event()
        self._ended.set()
        self._count = 0
        self.title = widgets.HTML()
        self.pictures = PictureChooser()
        self.question = widgets.Text(
            value=EXAMPLES[0],
            placeholder="a question about the picture",
            tooltip="a question about the picture; Enter asks it",
            layout=widgets.Layout(flex="3 1 200px"),
        )
        self.question.add_class(QUESTION)
        self.examples = widgets.Dropdown(
            options=[("examples …", ""), *((text, text) for text in EXAMPLES)],
            layout=widgets.Layout(width="110px"),
        )
        self.examples.observe(self._take_example, "value")
        self.sweeping = SweepPanel(self.sweep)
        self.filling = FieldPanel(
            widgets.Text("There is ____ in the", description="answer", placeholder="a mask per underscore"),
            widgets.Button(description="Fill", icon="pencil"),
            self.fill,
        )
        self.naming = FieldPanel(
            widgets.Text("embedded", description="model", placeholder="a folder, or a hub id in the cache"),
            widgets.Button(description="Load", icon="folder-open"),
            self.choose_model,
        )
        self.sides = SidesPanel(settings, self.sweeping.propose)
        self.mode, self.panels = self.sides.mode, self.sides.panels
        self.mode.observe(self._take_mode, "value")
        contents = {"settings": self.sides, "fill in": self.filling, "sweep": self.sweeping}
        if load is not None:
            contents["model"] = self.naming
        self.drawers = {name: _drawer(name, content) for name, content in contents.items()}
        self.run_button = widgets.Button(description="Run", button_style="primary", icon="play", **_narrow())
        self.run_button.on_click(lambda _: self.run())
        self.cancel_button = widgets.Button(description="Cancel", icon="stop", disabled=True, **_narrow())
        self.cancel_button.on_click(lambda _: self.cancel())
        self.progress = widgets.IntProgress(layout=widgets.Layout(width="70px"))
        self.status, self.message = widgets.HTML("ready"), widgets.HTML()
        self.results = Results(SIDES, self.go_on)
        self._frame = Frame()
        self._frame.observe(self._take_enter, "asked")
        bar = _row(
            self.question, self.examples, self.run_button, self.cancel_button, self.progress, self.status
        )
        bar.add_class(BAR)
        super().__init__(
            [
                self._frame,
                self.title,
                self.pictures,
                bar,
                _row(self.mode, *self.drawers.values(), self.sides.summary),
                *contents.values(),
                self.message,
                self.results,
            ]
        )
        self.add_class(EXPLORER)
        self._introduce()

    def __repr__(self) -> str:
        return f"Explorer({self._model.about}; run this cell in JupyterLab to see it)"

    def run(self) -> None:
        """Ask with the settings as they are, in the background; errors are shown in the widget."""
        self._begin(lambda: self._ask_all(self._plans()))

    def fill(self) -> None:
        """Ask as `run` does, with the answer given as far as the field says."""
        self._begin(lambda: self._ask_all(self._plans(self.filling.field.value)))

    def go_on(self, side: str, run: Run, canvas: Sequence[int]) -> None:
        """Ask the question of a run again, with its settings, from an answer that is partly given.

        Args:
            side: where the answer is shown.
            run: of the model that is asked now.
            canvas: ids of all answer positions, the mask's id where a token is wanted.
        """
        plan = PlannedRun(side, run.answer.settings, run.recording, tuple(map(int, canvas)))
        self._begin(lambda: self._ask_all([plan], run))

    def sweep(self) -> None:
        """Ask once with every value of the sweep, and show the answers side by side."""
        panel = self.panels["A"]
        self._begin(
            lambda: self._ask_all(
                [
                    PlannedRun(side, settings, panel.recording)
                    for side, settings in self.sweeping.settings(panel.settings()).items()
                ]
            )
        )

    def choose_model(self) -> None:
        """Load the model that is named, and ask it from now on; runs that were made stay as they are."""
        self._begin(lambda: self._open(self.naming.field.value.strip()))

    def cancel(self) -> None:
        """End the run before its next pass; it keeps what it has. One that still waits for its turn is not begun."""
        if not self._ended.is_set():
            self.status.value = "cancelling …"
            self._cancelled.set()
            self._future.cancel()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end of the run, at most so many seconds; return whether it has ended."""
        return self._ended.wait(timeout)

    def close(self) -> None:
        """End the run, and close the widget with all its parts."""
        if self.comm is None:  # closed before, or never built
            return
        self.cancel()
        self.wait(PATIENCE)
        for part in (*self.panels.values(), self.naming, *self.children):  # what is not shown is no child
            for widget in list(_parts(part)):
                widget.close()
        self.layout.close()
        super().close()

    def _introduce(self) -> None:
        text = f"<b>Explorer</b> · {escape(self._model.about)} · <b>not a medical device</b>"
        self.title.value = f'<div style="line-height:1.3">{text}</div>'

    def _take_mode(self, change: dict) -> None:
        if change["new"] == BOTH:  # whoever compares will want to change the settings of B
            self.drawers["settings"].value = True

    def _take_example(self, change: dict) -> None:
        if change["new"]:
            self.question.value = change["new"]
            self.examples.value = ""

    def _take_enter(self, change: dict) -> None:
        self.question.value = change["new"][0]
        self.run()

    def _begin(self, work: Callable[[], None]) -> None:
        """Work in the thread of runs, unless it already works for this explorer."""
        if self._ended.is_set():
            self.message.value, self.status.value = "", "working …"
            self._set_busy(True)
            self._ended.clear()
            self._cancelled.clear()
            self._future = _thread.submit(work)
            self._future.add_done_callback(self._finish)

    def _plans(self, canvas: Canvas | None = None) -> list[PlannedRun]:
        """Return the runs of the sides, with their settings as they are."""
        panels = {side: self.panels[side] for side in self.sides.sides}
        return [PlannedRun(side, panel.settings(), panel.recording, canvas) for side, panel in panels.items()]

    def _ask_all(self, plans: list[PlannedRun], before: Run | None = None) -> None:
        """Ask once per plan, in the thread of runs: about what is chosen, or what a run was about that goes on.

        Raises:
            ValueError: for a run of another model.
        """
        subject = AskedAbout(self.pictures.picture, self.pictures.source, self.question.value)
        if before is not None:
            subject = AskedAbout(before.picture, before.source, before.question)
            if before.model_code != self._model.code:
                raise ValueError(f"run {before.key} is of another model; load that one, or ask this one anew")
        self._count += 1
        sides, steps = [plan.side for plan in plans], [plan.settings.most_passes for plan in plans]
        self.results.begin(sides, keep_others=before is not None)
        self.progress.value, self.progress.max = 0, sum(steps)

        def show(run: Run) -> None:
            (self.results.show if run.is_running else self.results.add)(run)
            number, passes = sides.index(run.side), run.answer.trace.forward_evaluations
            if run.is_running:
                of = f", answer {number + 1} of {len(sides)}" if len(sides) > 1 else ""
                self.status.value = f"{run.side}: pass {passes} of at most {steps[number]} (NFE){of}"
            is_part = run.is_running or run.answer.is_cancelled
            self.progress.value = sum(steps[:number]) + (passes if is_part else steps[number])

        runs = ask_all(self._model, subject, plans, self._count, self._cancelled.is_set, show)
        if not runs:
            self.status.value = "cancelled"
            return
        is_done = len(runs) == len(plans) and not runs[-1].answer.is_cancelled
        self.status.value = f"{'done' if is_done else 'cancelled'}: {_summary(runs)}"

    def _open(self, name: str) -> None:
        """Load another model, in the thread of runs."""
        self.status.value = f"loading {escape(name)} …"
        self._model = self._load(name)
        self._introduce()
        self.status.value = "ready"

    def _finish(self, future: Future) -> None:
        if future.cancelled():
            self.status.value = "cancelled"
        elif (error := future.exception()) is not None:
            self.message.value = complaint(f"{type(error).__name__}: {error}")
            self.status.value = "failed"
        self._set_busy(False)
        self._ended.set()

    def _set_busy(self, is_busy: bool) -> None:
        for button in (self.run_button, self.filling.button, self.sweeping.button, self.naming.button):
            button.disabled = is_busy
        self.cancel_button.disabled = not is_busy


def explore(
    model: str | Path | MedVForMaskedDiffusion = "embedded",
    processor: MedVProcessor | None = None,
    *,
    settings: GenerationSettings = START,
) -> Explorer:
    """Open the explorer in a notebook. An explorer that the same cell opened before is closed.

    Args:
        model: what `load` takes, or a loaded model.
        processor: of a loaded model.
        settings: to begin with, `GenerationSettings(remasking=Mine())` for a strategy of your own. Every strategy,
            guard and cache that is defined by now can be chosen.

    Raises:
        ValueError: for a loaded model without its processor, or a processor without.
        CheckpointError: if the model cannot be loaded.
    """
    from medv_lab.model.checkpoints import load

    def load_named(name: str) -> OpenModel:
        return open_model(*load(name), f"model, processor = medv_lab.load({name!r})")

    shell = get_ipython()  # the id of the notebook cell that runs now; None outside of notebooks
    cell = shell.get_parent().get("metadata", {}).get("cellId") if hasattr(shell, "get_parent") else None
    if cell is not None and cell in _open_explorers:
        _open_explorers.pop(cell).close()
    is_name = isinstance(model, str | Path)
    if is_name != (processor is None):
        raise ValueError("give the name of a model alone, or a loaded model and its processor")
    if is_name:
        opened = load_named(str(model))
    else:
        opened = open_model(model, processor, "# model and processor as they were given to explore()")
    explorer = Explorer(opened, settings=settings, load=load_named)
    if cell is not None:
        _open_explorers[cell] = explorer
    return explorer


def _summary(runs: list[Run]) -> str:
    """Return passes and seconds of runs, of each where they are one or two."""
    passes = {run.side: run.answer.trace.forward_evaluations for run in runs}
    total, seconds = sum(passes.values()), sum(run.answer.seconds for run in runs)
    each = ""
    if len(runs) == len(SIDES):
        each = " + ".join(f"{side} {count}" for side, count in passes.items()) + " = "
    elif len(runs) > len(SIDES):
        each = f"{len(runs)} answers, "
    return f"{each}{total} passes (NFE), {seconds:.1f} s"


def _row(*controls: widgets.Widget) -> widgets.HBox:
    return widgets.HBox(list(controls), layout=widgets.Layout(flex_flow="row wrap", align_items="center"))


def _narrow() -> dict:
    return {"layout": widgets.Layout(width="84px")}


def _drawer(name: str, content: widgets.Widget) -> widgets.ToggleButton:
    """Return a button that shows and hides what is in a drawer; it begins closed."""
    button = widgets.ToggleButton(description=name, icon="caret-right", layout=widgets.Layout(width="88px"))

    def show(_: dict | None) -> None:
        content.layout.display = "" if button.value else "none"
        button.icon = "caret-down" if button.value else "caret-right"

    button.observe(show, "value")
    show(None)
    return button


def _parts(widget: widgets.Widget) -> Iterator[widgets.Widget]:
    """Yield a widget and all in it, with the layout and style of each, which are widgets too."""
    yield widget
    for child in getattr(widget, "children", ()):
        yield from _parts(child)
    for name in ("layout", "style"):
        if widget.has_trait(name):
            yield getattr(widget, name)

"""The explorer: ask about a picture, watch the answer fill, change a setting, compare.

It knows no model: it is given a function that asks, so that everything here works with any model; only `explore` loads
one. All explorers of a process share the thread that runs work in, so that they take turns; it also updates the widgets
that show a run.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from html import escape
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets
from IPython import get_ipython

from medv_lab.config import GenerationSettings
from medv_lab.explorer.choices import fewer_steps
from medv_lab.explorer.chooser import PictureChooser, complaint
from medv_lab.explorer.controls import START, SettingsPanel
from medv_lab.explorer.keys import OWN_KEYS, OwnKeys
from medv_lab.explorer.results import Results
from medv_lab.explorer.runs import Run

if TYPE_CHECKING:
    from medv_lab.generation import Answer
    from medv_lab.model.modeling import MedVForMaskedDiffusion
    from medv_lab.model.processing import MedVProcessor

EXAMPLES = (
    "Describe the image.",
    "What type of image is this?",
    "What abnormality is seen?",
    "Where is the abnormality?",
    "Is there anything abnormal?",
)
ONE, BOTH = "one answer", "A and B"
SIDES = ("A", "B")
REFRESH = 0.2  # seconds between two updates of a run that goes on
PATIENCE = 30.0  # seconds that closing waits for a pass to end

_thread = ThreadPoolExecutor(1, "medv-lab")  # one run at a time: runs share memory, and perhaps a model
_open_explorers: weakref.WeakValueDictionary[str, Explorer] = weakref.WeakValueDictionary()


class Explorer(widgets.VBox):
    """The explorer as a widget; its parts are attributes, so that a notebook can work them too.

    Attributes:
        pictures: the choice of a picture.
        question: the text field.
        mode: `ONE` or `BOTH`.
        panels: the settings of each side.
        results: the answers, with all runs.
    """

    def __init__(
        self,
        ask: Callable[..., Answer],
        *,
        model_code: str,
        about: str = "",
        settings: GenerationSettings = START,
    ):
        """Build all controls.

        Args:
            ask: answers (picture, question, settings, progress=, cancel=, record_attention=, watch=), as
                `medv_lab.ask` with a model.
            model_code: statement that loads the model, for the code that asks again.
            about: description of the model, shown at the top.
            settings: to begin with; side B begins with a quarter of the steps.
        """
        self._ask, self._model_code, self._about = ask, model_code, about
        self._future: Future | None = None
        self._cancelled, self._ended = Event(), Event()
        self._ended.set()
        self._count = 0
        self.pictures = PictureChooser()
        self.question = widgets.Text(
            value=EXAMPLES[0], description="question", layout=widgets.Layout(flex="3 1 300px")
        )
        self.examples = widgets.Dropdown(
            options=[("examples …", ""), *((text, text) for text in EXAMPLES)],
            layout=widgets.Layout(flex="1 1 180px"),
        )
        self.examples.observe(self._take_example, "value")
        self.mode = widgets.ToggleButtons(options=(ONE, BOTH), style={"button_width": "110px"})
        self.mode.observe(lambda _: self._arrange(), "value")
        starts = (settings, fewer_steps(settings))
        self.panels = {side: SettingsPanel(start) for side, start in zip(SIDES, starts, strict=True)}
        self._settings = widgets.Tab()
        self.run_button = widgets.Button(description="Run", button_style="primary", icon="play")
        self.run_button.on_click(lambda _: self.run())
        self.cancel_button = widgets.Button(description="Cancel", icon="stop", disabled=True)
        self.cancel_button.on_click(lambda _: self.cancel())
        self.progress = widgets.IntProgress(layout=widgets.Layout(width="220px"))
        self.status, self.message = widgets.HTML("ready"), widgets.HTML()
        self.results = Results(SIDES)
        title = f"<b>Explorer</b> · {escape(about)} · <b>not a medical device</b>"
        buttons = [self.run_button, self.cancel_button, self.progress, self.status]
        super().__init__(
            [
                OwnKeys(),
                widgets.HTML(title),
                self.pictures,
                widgets.HBox([self.question, self.examples], layout=widgets.Layout(flex_flow="row wrap")),
                self.mode,
                self._settings,
                widgets.HBox(buttons, layout=widgets.Layout(flex_flow="row wrap", align_items="center")),
                self.message,
                self.results,
            ]
        )
        for name in ("medv-explorer", OWN_KEYS):
            self.add_class(name)
        self._arrange()

    def __repr__(self) -> str:
        return f"Explorer({self._about}; run this cell in JupyterLab to see it)"

    def run(self) -> None:
        """Ask with the settings as they are, in the background; errors are shown in the widget."""
        if self._ended.is_set():
            self.message.value, self.status.value = "", "working …"
            self._set_busy(True)
            self._ended.clear()
            self._cancelled.clear()
            self._future = _thread.submit(self._work)
            self._future.add_done_callback(self._finish)

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
        for part in (*self.panels.values(), *self.children):  # a panel that is not shown is no child
            for widget in list(_parts(part)):
                widget.close()
        self.layout.close()
        super().close()

    def _sides(self) -> tuple[str, ...]:
        return SIDES if self.mode.value == BOTH else SIDES[:1]

    def _arrange(self) -> None:
        """Show the settings of one side or of both."""
        self._settings.children = [self.panels[side] for side in self._sides()]
        self._settings.titles = [
            f"settings {side}" if self.mode.value == BOTH else "settings" for side in self._sides()
        ]

    def _take_example(self, change: dict) -> None:
        if change["new"]:
            self.question.value = change["new"]
            self.examples.value = ""

    def _work(self) -> None:
        """Ask once or twice, in the thread of runs."""
        picture, source = self.pictures.picture, self.pictures.source
        question, sides = self.question.value, self._sides()
        plans = [
            (side, self.panels[side].settings(), self.panels[side].record_attention.value) for side in sides
        ]
        self._count += 1
        self.progress.value, self.progress.max = 0, sum(settings.Z for _, settings, _ in plans)
        self.results.begin(sides)
        before, runs = 0, []
        for side, settings, record_attention in plans:
            if self._cancelled.is_set():
                break
            answer = self._ask(
                picture.image,
                question,
                settings,
                progress=False,
                cancel=self._cancelled.is_set,
                record_attention=record_attention,
                watch=self._watch(side, settings.Z, before, source),
            )
            passes = answer.trace.forward_evaluations
            self.progress.value = before + (settings.Z if answer.is_complete else passes)
            before += settings.Z
            runs.append(Run(self._count, side, picture, question, answer, self._model_code, source))
            self.results.add(runs[-1])
        if not runs:
            self.status.value = "cancelled"
            return
        is_done = len(runs) == len(plans) and answer.is_complete
        seconds = sum(run.answer.seconds for run in runs)
        self.status.value = f"{'done' if is_done else 'cancelled'}: {passes} passes (NFE), {seconds:.1f} s"

    def _watch(self, side: str, passes: int, before: int, source: str) -> Callable[[Any], None]:
        """Return what shows a run while it goes on, at most once per `REFRESH` seconds."""
        key, last = f"{self._count}{side}", 0.0

        def watch(run: Any) -> None:
            nonlocal last
            if time.monotonic() - last < REFRESH:
                return
            self.results.watch(side, key, run.trace(), source)
            self.progress.value = before + run.passes
            self.status.value = f"{side}: pass {run.passes} of at most {passes} (NFE)"
            last = time.monotonic()

        return watch

    def _finish(self, future: Future) -> None:
        if future.cancelled():
            self.status.value = "cancelled"
        elif (error := future.exception()) is not None:
            self.message.value = complaint(f"{type(error).__name__}: {error}")
            self.status.value = "failed"
        self._set_busy(False)
        self._ended.set()

    def _set_busy(self, is_busy: bool) -> None:
        self.run_button.disabled, self.cancel_button.disabled = is_busy, not is_busy


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
    from functools import partial

    from medv_lab.generation import ask
    from medv_lab.model.checkpoints import load

    shell = get_ipython()  # the id of the notebook cell that runs now; None outside of notebooks
    cell = shell.get_parent().get("metadata", {}).get("cellId") if hasattr(shell, "get_parent") else None
    if cell is not None and cell in _open_explorers:
        _open_explorers.pop(cell).close()
    is_name = isinstance(model, str | Path)
    if is_name != (processor is None):
        raise ValueError("give the name of a model alone, or a loaded model and its processor")
    code = "# model and processor as they were given to explore()"
    if is_name:
        code = f"model, processor = medv_lab.load({str(model)!r})"
        model, processor = load(model)
    size = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    about = f"{model.medv_source.name}, {size:,.1f} million parameters on {model.device}"
    explorer = Explorer(partial(ask, model, processor), model_code=code, about=about, settings=settings)
    if cell is not None:
        _open_explorers[cell] = explorer
    return explorer


def _parts(widget: widgets.Widget) -> Iterator[widgets.Widget]:
    """Yield a widget and all in it, with the layout and style of each, which are widgets too."""
    yield widget
    for child in getattr(widget, "children", ()):
        yield from _parts(child)
    for name in ("layout", "style"):
        if widget.has_trait(name):
            yield getattr(widget, name)

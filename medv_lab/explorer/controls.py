"""The explorer's settings of one run, coupled so that only valid ones can be chosen."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import Field, fields, replace
from typing import Any, NamedTuple

import ipywidgets as widgets

from medv_lab.config import PRESETS, GenerationSettings, NoCache
from medv_lab.explorer import choices
from medv_lab.strategies.base import Cache, Choice, Guard, Strategy

START = GenerationSettings()
LARGEST_SEED = 2**53 - 1  # JavaScript counts no further


class ChoiceControl(widgets.VBox):
    """A strategy, guard or cache: its name, and a box for each of its parameters; `value` is the object."""

    def __init__(self, kind: type[Choice], description: str, on_change: Callable[[], None]):
        """Offer every class of a kind that is known by now, those of the user's own among them.

        Args:
            kind: `Strategy`, `Guard` or `Cache`.
            description: label of the dropdown.
            on_change: called when the name or a parameter was changed.
        """
        self.kind, self._on_change = kind, on_change
        self.names = widgets.Dropdown(options=tuple(kind.known), description=description, **_wide())
        self.boxes: dict[str, widgets.Widget] = {}
        super().__init__([self.names])
        self._show(kind.make(self.names.value))
        self.names.observe(self._take_name, "value")

    @property
    def value(self) -> Choice:
        """Return the object as it is shown."""
        read = {name: box.value for name, box in self.boxes.items()}
        for one in fields(self._shown):
            if one.name in read and getattr(self._shown, one.name) is None and read[one.name] == 0:
                read[one.name] = None  # 0 stands for "never"
        return replace(self._shown, **read)

    def take(self, value: Choice) -> None:
        """Show an object."""
        self.names.unobserve(self._take_name, "value")
        self.names.value = value.name
        self.names.observe(self._take_name, "value")
        self._show(value)

    def offer(self, names: tuple[str, ...]) -> None:
        """Let these names be chosen; the value stays where it is still offered, else the first is taken."""
        offer_options(self.names, names, self.names.value)

    def _take_name(self, change: dict) -> None:
        self._show(self.kind.make(change["new"]))
        self._on_change()

    def _show(self, value: Choice) -> None:
        self._shown = value
        self.boxes = {
            one.name: box for one in fields(value) if (box := _parameter_box(one, value)) is not None
        }
        for box in self.boxes.values():
            box.observe(lambda _: self._on_change(), "value")
        self.children = (self.names, *self.boxes.values())


class FieldPanel(widgets.HBox):
    """A text, and the button that does something with it.

    Attributes:
        field: the text.
        button: calls what it was given.
    """

    def __init__(self, field: widgets.Text, button: widgets.Button, act: Callable[[], None]):
        """Put both into a row."""
        self.field, self.button = field, button
        field.layout.flex = "1 1 300px"
        button.on_click(lambda _: act())
        super().__init__([field, button], layout=widgets.Layout(flex_flow="row wrap"))


class Recording(NamedTuple):
    """What is recorded of a run besides its tokens.

    Attributes:
        attention: where each commit looked on the picture.
        distributions: which token leads at every position in every pass, and how probable the final one is.
    """

    attention: bool
    distributions: bool

    @property
    def options(self) -> dict[str, Any]:
        """Return the arguments of `ask` that are not its defaults."""
        options = {"record_attention": True} if self.attention else {}
        return options | ({"record_hidden": [-1]} if self.distributions else {})


class SettingsPanel(widgets.VBox):
    """Controls of a run's settings; `settings` reads them."""

    def __init__(self, start: GenerationSettings = START, on_change: Callable[[], None] = lambda: None):
        """Begin with these settings.

        Args:
            start: to begin with.
            on_change: called whenever they have changed, once all of them fit together again.
        """
        self._on_change, self._is_quiet = on_change, True
        self.preset = widgets.Dropdown(
            options=[("choose …", ""), *PRESETS.items()], description="preset", **_wide()
        )
        self.gen_length = widgets.Dropdown(
            options=sorted({*choices.lengths(), start.L}), value=start.L, description="L, length", **_wide()
        )
        self.block_length = widgets.Dropdown(
            options=choices.block_lengths(start.L), value=start.B, description="B, block", **_wide()
        )
        self.steps = widgets.SelectionSlider(
            options=choices.step_counts(start.L, start.B),
            value=start.Z,
            description="Z, steps",
            continuous_update=False,
            **_wide(),
        )
        self.temperature = widgets.BoundedFloatText(
            min=0, max=100, step=0.1, description="temperature", **_wide()
        )
        self.seed = widgets.BoundedIntText(
            value=start.seed, min=0, max=LARGEST_SEED, description="seed", **_wide()
        )
        self.remasking = ChoiceControl(Strategy, "strategy", self._offer)
        self.guard = ChoiceControl(Guard, "repetition", self._offer)
        self.cache = ChoiceControl(Cache, "cache", self._offer)
        self.stop = widgets.Text(description="stop at", **_wide())
        self.suppressed = widgets.Text(
            description="suppress", tooltip="reference, ids such as 1, 5, or nothing", **_wide()
        )
        self.record_attention = widgets.Checkbox(
            value=True,
            description="record attention",
            indent=False,
            tooltip="to the picture; without a cache only",
        )
        self.record_distributions = widgets.Checkbox(
            value=True,
            description="record distributions",
            indent=False,
            tooltip="of every position in every pass: which token leads, and how probable the final one is",
        )
        left = (self.preset, self.gen_length, self.block_length, self.steps, self.temperature, self.seed)
        right = (self.remasking, self.guard, self.cache, self.stop, self.suppressed)
        right += (self.record_attention, self.record_distributions)
        columns = [
            widgets.VBox(controls, layout=widgets.Layout(flex="1 1 260px", min_width="0"))
            for controls in (left, right)
        ]
        super().__init__([widgets.HBox(columns, layout=widgets.Layout(flex_flow="row wrap", width="100%"))])
        self.preset.observe(self._take_preset, "value")
        self.gen_length.observe(self._settle, "value")
        self.block_length.observe(self._settle, "value")
        self.record_attention.observe(lambda _: self._offer(), "value")
        others = (
            self.steps,
            self.temperature,
            self.seed,
            self.stop,
            self.suppressed,
            self.record_distributions,
        )
        for control in others:
            control.observe(lambda _: self._changed(), "value")
        self.take(start)
        self._is_quiet = False

    @property
    def recording(self) -> Recording:
        """Return what is recorded besides the tokens."""
        return Recording(self.record_attention.value, self.record_distributions.value)

    def settings(self) -> GenerationSettings:
        """Return the settings as they are shown; those without a control are as they were taken.

        Raises:
            ValueError: for suppressed tokens that are none; everything else can only be valid.
        """
        taken, strategy, steps = self._taken, self.remasking.value, self.steps.value
        most = choices.most_passes(strategy, self.gen_length.value, steps)
        if most is not None and steps == (taken.max_passes or taken.steps):  # as it was taken
            steps, most = taken.steps, taken.max_passes
        return replace(
            taken,
            gen_length=self.gen_length.value,
            block_length=self.block_length.value,
            steps=steps,
            max_passes=most,
            temperature=self.temperature.value,
            remasking=strategy,
            guard=self.guard.value,
            cache=self.cache.value,
            stop=choices.read_stops(self.stop.value),
            suppressed_tokens=choices.read_suppressed(self.suppressed.value),
            seed=self.seed.value,
        )

    def _settle(self, change: dict) -> None:
        """Fit B and Z to the L, or the B, that was chosen."""
        before = change["old"] if change["owner"] is self.gen_length else None
        with self._quietly():
            self._set_lengths(self.gen_length.value, self.block_length.value, self.steps.value, before)

    def _set_lengths(self, length: int, block: int, steps: int, before: int | None = None) -> None:
        """Offer the valid lengths, and take those closest to these."""
        strategy = self.remasking.value
        most = strategy.longest(1) if strategy.is_growing else None
        length = length if most is None or length <= most else max(choices.lengths(most))
        offered = tuple(sorted({*choices.lengths(most), length}))
        block, steps = choices.settle_lengths(length, block, steps, before, strategy.is_growing)
        controls = (self.gen_length, self.block_length)
        for control in controls:
            control.unobserve(self._settle, "value")
        offer_options(self.gen_length, offered, length)
        offer_options(self.block_length, choices.block_lengths(length, strategy.is_growing), block)
        offer_options(self.steps, choices.step_counts(length, block), steps)
        for control in controls:
            control.observe(self._settle, "value")

    def take(self, settings: GenerationSettings, recording: Recording | None = None) -> None:
        """Show these settings; attention is recorded only if they have no cache.

        Args:
            settings: to be shown.
            recording: what is to be recorded; None leaves it as it is.
        """
        with self._quietly():
            self._taken = settings
            recording = recording or self.recording
            self.record_attention.value = isinstance(settings.cache, NoCache) and recording.attention
            self.record_distributions.value = recording.distributions
            for name in ("remasking", "guard", "cache"):
                control = getattr(self, name)
                control.offer(tuple(control.kind.known))
                control.take(getattr(settings, name))
            self.temperature.value, self.seed.value = settings.temperature, settings.seed
            self.stop.value = ", ".join(settings.stop)
            tokens = settings.suppressed_tokens
            self.suppressed.value = tokens if isinstance(tokens, str) else ", ".join(map(str, tokens))
            self._set_lengths(settings.L, settings.B, settings.max_passes or settings.Z)
            self._offer()

    def _take_preset(self, change: dict) -> None:
        if change["new"]:
            self.take(change["new"])
            self.preset.value = ""

    def _offer(self) -> None:
        """Offer only what goes with the strategy and with the recording of attention."""
        with self._quietly():
            strategy = self.remasking.value
            self.guard.offer(choices.guards(strategy))
            self.cache.offer(choices.caches(strategy, self.record_attention.value))
            self._set_lengths(self.gen_length.value, self.block_length.value, self.steps.value)

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        """Tell of all changes that follow from one another once, when they are done."""
        if self._is_quiet:
            yield
            return
        self._is_quiet = True
        try:
            yield
        finally:
            self._is_quiet = False
        self._changed()

    def _changed(self) -> None:
        if not self._is_quiet:
            self._on_change()


def offer_options(control: widgets.Widget, options: tuple, value: object) -> None:
    """Replace the options of a control; the value stays where it is still offered, else the first is taken."""
    value = value if value in options else options[0]
    if tuple(control.options) != tuple(options):
        control.options = options
    control.value = value


def _wide() -> dict:
    """Return layout and style of a control; each has its own, since they are widgets too."""
    return {"layout": widgets.Layout(width="auto"), "style": {"description_width": "110px"}}


def _parameter_box(one: Field, value: Choice) -> widgets.Widget | None:
    """Make the box of a number, or None for a parameter of another type, which stays as it is."""
    now = getattr(value, one.name)
    named = {"description": one.name.replace("_", " "), **_wide()}
    if one.type in (int | None, "int | None"):
        return widgets.BoundedIntText(value=now or 0, min=0, max=10_000, tooltip="0: never", **named)
    limits = {"min": one.metadata.get("least", 0), "max": one.metadata.get("most", 2**31)}
    if one.type in (int, "int"):
        return widgets.BoundedIntText(value=now, **limits, **named)
    if one.type in (float, "float"):
        return widgets.BoundedFloatText(value=now, step=0.05, **limits, **named)
    return None

"""The explorer's settings of one run, coupled so that only valid ones can be chosen."""

import ipywidgets as widgets

from medv_lab.config import GROWING, PARAMETERS, PRESETS, REMASKING, GenerationSettings
from medv_lab.explorer import choices

START = GenerationSettings()


class SettingsPanel(widgets.VBox):
    """Controls of a run's settings; `settings` reads them."""

    def __init__(self, start: GenerationSettings = START):
        """Begin with these settings."""
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
        self.remasking = widgets.Dropdown(options=tuple(REMASKING), description="strategy", **_wide())
        self.guard = widgets.Dropdown(options=("none",), description="repetition", **_wide())
        self.parameters = {name: _parameter_box(name) for name in PARAMETERS}
        self.cache = widgets.Dropdown(options=("none",), description="cache", **_wide())
        self.cache_refresh = widgets.BoundedIntText(
            value=0,
            min=0,
            max=10_000,
            description="refresh every",
            tooltip="passes; 0: once a block",
            **_wide(),
        )
        self.stop = widgets.Text(description="stop at", **_wide())
        self.suppressed = widgets.Text(
            description="suppress",
            tooltip="reference, ids such as 1, 5, or nothing",
            **_wide(),
        )
        self.seed = widgets.BoundedIntText(
            value=start.seed, min=0, max=2**31 - 1, description="seed", **_wide()
        )
        self.record_attention = widgets.Checkbox(
            value=True,
            description="record attention",
            indent=False,
            tooltip="to the picture; without a cache only",
        )
        left = (self.preset, self.gen_length, self.block_length, self.steps, self.temperature, self.seed)
        right = (self.remasking, self.guard, *self.parameters.values(), self.cache, self.cache_refresh)
        last = (self.stop, self.suppressed, self.record_attention)
        columns = [
            widgets.VBox(controls, layout=widgets.Layout(flex="1 1 260px", min_width="0"))
            for controls in (left, (*right, *last))
        ]
        row = widgets.HBox(
            columns,
            layout=widgets.Layout(flex_flow="row wrap", width="100%"),
        )
        super().__init__([row])
        self.preset.observe(self._take_preset, "value")
        self.gen_length.observe(self._settle, "value")
        self.block_length.observe(self._settle, "value")
        for control in (
            *(self.remasking, self.guard, self.record_attention, self.cache),
            self.parameters["max_length"],
        ):
            control.observe(self._offer, "value")
        self.take(start)
        self._offer()

    def settings(self) -> GenerationSettings:
        """The settings as they stand.

        Raises:
            ValueError: for suppressed tokens that are none; everything else can only be valid.
        """
        read = choices.parameters(self.remasking.value, self.guard.value)
        return GenerationSettings(
            gen_length=self.gen_length.value,
            block_length=self.block_length.value,
            steps=self.steps.value,
            temperature=self.temperature.value,
            remasking=self.remasking.value,
            repetition_guard=self.guard.value,
            cache=self.cache.value,
            cache_refresh=self.cache_refresh.value or None if self.cache.value != "none" else None,
            stop=choices.read_stops(self.stop.value),
            suppressed_tokens=choices.read_suppressed(self.suppressed.value),
            seed=self.seed.value,
            **{
                name: self.parameters[name].value
                for name, default in read.items()
                if self.parameters[name].value != default
            },
        )

    def _settle(self, change: dict) -> None:
        """Make B and Z fit the L, or the B, that was chosen."""
        before = change["old"] if change["owner"] is self.gen_length else None
        self._set_lengths(self.gen_length.value, self.block_length.value, self.steps.value, before)

    def _set_lengths(self, length: int, block: int, steps: int, before: int | None = None) -> None:
        """Offer what is valid, and take what is closest to these."""
        is_growing = self.remasking.value in GROWING
        most = self.parameters["max_length"].value if is_growing else None
        offered = tuple(
            sorted({*choices.lengths(most), *({length} if most is None or length <= most else ())})
        )
        length = length if length in offered else max(offered)
        length, block, steps = choices.settle_lengths(length, block, steps, before, is_growing)
        controls = (self.gen_length, self.block_length)
        for control in controls:
            control.unobserve(self._settle, "value")
        _offer_options(self.gen_length, offered, length)
        _offer_options(self.block_length, choices.block_lengths(length, is_growing), block)
        _offer_options(self.steps, choices.step_counts(length, block), steps)
        for control in controls:
            control.observe(self._settle, "value")

    def take(self, settings: GenerationSettings) -> None:
        """Show these settings; attention is recorded only if they have no cache."""
        self.record_attention.value = settings.cache == "none" and self.record_attention.value
        self.remasking.value = settings.remasking
        self.guard.value = settings.repetition_guard
        self.cache.value, self.cache_refresh.value = settings.cache, settings.cache_refresh or 0
        for name in choices.parameters(settings.remasking, settings.repetition_guard):
            self.parameters[name].value = settings.parameter(name)
        self.temperature.value, self.seed.value = settings.temperature, settings.seed
        self.stop.value = ", ".join(settings.stop)
        tokens = settings.suppressed_tokens
        self.suppressed.value = tokens if isinstance(tokens, str) else ", ".join(map(str, tokens))
        self._set_lengths(settings.L, settings.B, settings.Z)

    def _take_preset(self, change: dict) -> None:
        if change["new"]:
            self.take(change["new"])
            self.preset.value = ""

    def _offer(self, change: dict | None = None) -> None:
        """Offer what goes with the strategy and with the recording of attention, and nothing else."""
        _offer_options(self.guard, choices.guards(self.remasking.value), self.guard.value)
        wanted = choices.caches(self.remasking.value, self.record_attention.value)
        _offer_options(self.cache, wanted, self.cache.value)
        read = choices.parameters(self.remasking.value, self.guard.value)
        for name, box in self.parameters.items():
            is_new = box.layout.display == "none"
            box.layout.display = "" if name in read else "none"
            if name in read and (is_new or (change and change["owner"] in (self.remasking, self.guard))):
                box.value = read[name]
        self.cache_refresh.layout.display = "none" if self.cache.value == "none" else ""
        self._set_lengths(self.gen_length.value, self.block_length.value, self.steps.value)


def _wide() -> dict:
    """Layout and style of a control; each has its own, since they are widgets too."""
    return {"layout": widgets.Layout(width="auto"), "style": {"description_width": "110px"}}


def _parameter_box(name: str) -> widgets.Widget:
    kind, least, most = PARAMETERS[name]
    box = widgets.BoundedIntText if kind is int else widgets.BoundedFloatText
    step = {} if kind is int else {"step": 0.05}
    built = box(min=least, max=most, description=name.replace("_", " "), **step, **_wide())
    built.layout.display = "none"
    return built


def _offer_options(control: widgets.Widget, options: tuple, value: object) -> None:
    """Replace what can be chosen; the value stays where it is still offered, else the first is taken."""
    value = value if value in options else options[0]
    if tuple(control.options) != tuple(options):
        control.options = options
    control.value = value

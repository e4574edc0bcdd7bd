"""The settings of both sides: one answer, or A and B, where B follows A until it is changed."""

from collections.abc import Callable
from html import escape

import ipywidgets as widgets

from medv_lab.config import GenerationSettings
from medv_lab.explorer.controls import SettingsPanel
from medv_lab.views.caption import describe_lengths, describe_settings

ONE, BOTH = "one answer", "A and B"
SIDES = ("A", "B")


class SidesPanel(widgets.VBox):
    """The settings of A, and those of B where two answers are compared.

    Attributes:
        mode: `ONE` or `BOTH`; a control that stands elsewhere.
        panels: the settings of each side.
        summary: says in a line what the settings are; stands elsewhere too.
    """

    def __init__(self, start: GenerationSettings, on_change: Callable[[GenerationSettings], None]):
        """Begin with one side.

        Args:
            start: settings of both sides.
            on_change: called with the settings of A when any were changed, and they are valid.
        """
        self._on_change = on_change
        self._is_following, self._is_copying = True, False
        self.mode = widgets.ToggleButtons(options=(ONE, BOTH), style={"button_width": "100px"})
        self.summary = widgets.HTML(layout=widgets.Layout(flex="1 1 200px", min_width="0"))
        self.panels = {"A": SettingsPanel(start, self._follow), "B": SettingsPanel(start, self._unfollow)}
        self._tabs = widgets.Tab()
        self.copy_button = widgets.Button(description="Copy A to B", icon="copy")
        self.copy_button.on_click(lambda _: self.copy_settings())
        self._following = widgets.HTML()
        self._copying = widgets.HBox([self.copy_button, self._following])
        super().__init__([self._copying, self._tabs])
        self.mode.observe(lambda _: self._arrange(), "value")
        self._arrange()

    @property
    def sides(self) -> tuple[str, ...]:
        """Return the sides that are asked."""
        return SIDES if self.mode.value == BOTH else SIDES[:1]

    def copy_settings(self) -> None:
        """Give B the settings of A, which it follows from now on until it is changed."""
        self._is_following = True
        self._follow()

    def _arrange(self) -> None:
        """Show one side or both; whoever compares will want to change the settings of B."""
        is_both = self.mode.value == BOTH
        self._tabs.children = [self.panels[side] for side in self.sides]
        self._tabs.titles = [f"settings {side}" if is_both else "settings" for side in self.sides]
        self._tabs.selected_index = len(self.sides) - 1
        self._copying.layout.display = "" if is_both else "none"
        self._summarise()

    def _follow(self) -> None:
        """Let B have the settings of A as long as it has none of its own."""
        if self._is_following:
            self._is_copying = True
            try:
                panel = self.panels["A"]
                self.panels["B"].take(panel.settings(), panel.recording)
            except ValueError:  # of a text that is no setting; asking will say so
                pass
            finally:
                self._is_copying = False
        self._summarise()

    def _unfollow(self) -> None:
        if not self._is_copying:
            self._is_following = False
            self._summarise()

    def _summarise(self) -> None:
        lines = []
        for side in self.sides:
            name = f"{side}: " if len(self.sides) > 1 else ""
            try:
                settings = self.panels[side].settings()
            except ValueError as error:
                lines.append(f"{name}{error}")
                continue
            lines.append(f"{name}{describe_lengths(settings)}, {describe_settings(settings)}")
            if side == "A":
                self._on_change(settings)
        self.summary.value = f'<div style="line-height:1.3">{"<br>".join(map(escape, lines))}</div>'
        self._following.value = (
            "B follows A until it is changed." if self._is_following else "B has settings of its own."
        )

"""The model that the explorer asks, and the field in which another one is named."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import ipywidgets as widgets

from medv_lab.generation import Answer, ask
from medv_lab.model.modeling import MedVForMaskedDiffusion
from medv_lab.model.processing import MedVProcessor


@dataclass(frozen=True)
class OpenModel:
    """A model that can be asked.

    Attributes:
        ask: answers (picture, question, settings, progress=, cancel=, record_attention=, watch=), as `medv_lab.ask`
            with a model.
        code: statement that loads it, for the code that asks again.
        about: description, shown at the top.
    """

    ask: Callable[..., Answer]
    code: str
    about: str = ""


def open_model(model: MedVForMaskedDiffusion, processor: MedVProcessor, code: str) -> OpenModel:
    """Return a loaded model with its description."""
    size = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    about = f"{model.medv_source.name}, {size:,.1f} million parameters on {model.device}"
    return OpenModel(partial(ask, model, processor), code, about)


class ModelPanel(widgets.HBox):
    """A field for the name of a model, and the button that loads it.

    Attributes:
        name: "embedded", a folder, or a hub id in the local cache.
        button: loads it.
    """

    def __init__(self, choose: Callable[[], Any]):
        """Take what the button calls."""
        self.name = widgets.Text(
            value="embedded",
            description="model",
            placeholder="embedded, a folder, or a hub id in the local cache",
            layout=widgets.Layout(flex="1 1 300px"),
        )
        self.button = widgets.Button(description="Load", icon="folder-open")
        self.button.on_click(lambda _: choose())
        super().__init__([self.name, self.button], layout=widgets.Layout(flex_flow="row wrap"))

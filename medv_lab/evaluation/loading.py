"""A responder from what a user names: a checkpoint, a row of the paper's tables, or a model behind an endpoint."""

import os
from dataclasses import dataclass

import torch

from medv_lab.config import GenerationSettings
from medv_lab.evaluation.autoregressive import (
    CHAT,
    ImageTextResponder,
    NextTokenResponder,
    TextResponder,
    load_image_text,
    load_text,
)
from medv_lab.evaluation.endpoint import Endpoint
from medv_lab.evaluation.responders import DiffusionResponder, EndpointResponder, Responder
from medv_lab.evaluation.systems import SYSTEMS, UNKNOWN, System
from medv_lab.model.causal import MedVForNextToken
from medv_lab.model.checkpoints import load

KINDS = ("auto", "medv", "image-text", "text", "endpoint")
_KIND_OF_SYSTEM = {"diffusion": "medv", "image-text": "image-text", "text": "text"}


@dataclass(frozen=True)
class ModelChoice:
    """Which model answers.

    Attributes:
        model: "embedded", a folder, a hub id, a name in the paper's tables, or the name that an endpoint knows.
        kind: "medv" (LLaDA-MedV's architecture, or its autoregressive twin), "image-text" or "text" (any such model of
            transformers), "endpoint", or "auto": what the registry says of a name, "medv" for anything else.
        prompt: of image-text and text models, "chat" or a text with {question}; None for the registry's, or "chat".
        base_url: of an endpoint.
        device, dtype, download: as in `load`.

    Raises:
        ValueError: for another kind.
    """

    model: str = "embedded"
    kind: str = "auto"
    prompt: str | None = None
    base_url: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    download: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind is {self.kind!r}; allowed are {', '.join(KINDS)}")


def load_responder(choice: ModelChoice, settings: GenerationSettings, name: str | None = None) -> Responder:
    """Load what was named.

    Args:
        choice: which model.
        settings: of a diffusion model; of all others, gen_length is the longest answer.
        name: what tables call it; by default the model's.

    Raises:
        ValueError: for a system without weights that can be run here, or a prompt that does not fit.
        CheckpointError: for a checkpoint that is not here or not whole.
    """
    system = next((one for one in SYSTEMS if one.name == choice.model), None)
    model, kind, prompt = _resolve(choice, system)
    name, length = name or choice.model, settings.gen_length
    if kind == "endpoint":
        point = Endpoint(model, choice.base_url, seed=settings.seed, max_tokens=length)
        return EndpointResponder(point, name)
    device = own_device(choice.device)
    if kind == "medv":
        network, processor = load(model, device=device, dtype=choice.dtype, download=choice.download)
        if isinstance(network, MedVForNextToken):
            return NextTokenResponder(
                network,
                processor,
                name=name,
                max_new_tokens=length,
                temperature=settings.temperature,
                seed=settings.seed,
            )
        return DiffusionResponder(network, processor, settings, name)
    reader = load_image_text if kind == "image-text" else load_text
    make = ImageTextResponder if kind == "image-text" else TextResponder
    network, own = reader(model, device, choice.dtype, choice.download)
    return make(network, own, name=name, prompt=prompt, max_new_tokens=length)


def own_device(device: str) -> str:
    """The device of this process: of several on one machine, each takes the GPU of its own number."""
    local = os.environ.get("LOCAL_RANK")
    return f"cuda:{local}" if device == "auto" and local and torch.cuda.is_available() else device


def _resolve(choice: ModelChoice, system: System | None) -> tuple[str, str, str]:
    """Model, kind and prompt form, by the registry where it knows the name."""
    if system is None:
        return choice.model, "medv" if choice.kind == "auto" else choice.kind, choice.prompt or CHAT
    if system.model_id == UNKNOWN or system.responder not in _KIND_OF_SYSTEM:
        raise ValueError(
            f"{system.name} cannot be loaded by its name: {system.note}. Name a folder, or an answer file"
        )
    prompt = choice.prompt or (CHAT if system.prompt == UNKNOWN else system.prompt)
    kind = _KIND_OF_SYSTEM[system.responder] if choice.kind == "auto" else choice.kind
    return system.model_id, kind, prompt

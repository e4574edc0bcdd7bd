"""A responder from what a user names: a checkpoint, a model of the paper's tables, or a model behind an endpoint."""

import os

import torch

from medv_lab.config import GenerationSettings
from medv_lab.evaluation.autoregressive import NextTokenResponder, TransformersResponder, load_transformers
from medv_lab.evaluation.endpoint import Endpoint, vary_endpoint
from medv_lab.evaluation.model_choice import PUBLIC_MODELS, ModelChoice
from medv_lab.evaluation.responders import DiffusionResponder, EndpointResponder, Responder
from medv_lab.model.causal import MedVForNextToken
from medv_lab.model.checkpoints import load


def load_responder(choice: ModelChoice, settings: GenerationSettings, name: str | None = None) -> Responder:
    """Load what was named.

    Args:
        choice: which model.
        settings: of a diffusion model; of all others, gen_length is the longest answer.
        name: what tables call it; by default the name of its source: of a folder without the way there.

    Raises:
        ValueError: for a prompt that does not fit.
        CheckpointError: for a checkpoint that is not here or not whole.
    """
    model, kind = choice.model, "medv" if choice.kind == "auto" else choice.kind
    if model in PUBLIC_MODELS and choice.kind in ("auto", PUBLIC_MODELS[model][1]):
        name, (model, kind) = name or model, PUBLIC_MODELS[model]
    length = settings.gen_length
    if kind == "endpoint":
        endpoint = Endpoint(model, choice.base_url, seed=settings.seed, max_tokens=length)
        return EndpointResponder(vary_endpoint(endpoint, choice.endpoint_set), name)
    device = own_device(choice.device)
    if kind in ("image-text", "text"):
        loaded = load_transformers(kind, model, device, choice.dtype, choice.download)
        name = name or loaded[0].medv_source.name
        return TransformersResponder(*loaded, name=name, prompt=choice.prompt, max_new_tokens=length)
    network, processor = load(
        model,
        device=device,
        dtype=choice.dtype,
        download=choice.download,
        quantization=choice.quantization,
        offload=choice.offload,
    )
    make = NextTokenResponder if isinstance(network, MedVForNextToken) else DiffusionResponder
    return make(network, processor, settings, name or network.medv_source.name)


def own_device(device: str) -> str:
    """Return the device of this process: of several on one machine, each takes the GPU of its own number."""
    local = os.environ.get("LOCAL_RANK")
    return f"cuda:{local}" if device == "auto" and local and torch.cuda.is_available() else device

"""Prompts of ids and their pictures, denoised step by step: what stands between a model and the sampler.

R prompts, S ids, L answer positions.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch.distributed.fsdp import FSDPModule, register_fsdp_forward_method

from medv_lab.config import REFERENCE_SUPPRESSION, GenerationSettings, NoCache
from medv_lab.diffusion.forward_runner import Denoiser
from medv_lab.diffusion.sampler import sample
from medv_lab.diffusion.state import StepRecord
from medv_lab.inputs.image_features import MergedInputs

Layers = bool | Sequence[int]


class VisionDenoiser(Denoiser, Protocol):
    """What is asked of a model here."""

    config: Any
    input_device: torch.device

    def merge_image_features(self, input_ids: torch.Tensor, **kwargs: Any) -> MergedInputs:
        """Put image features in the place of their placeholders."""


class PassWatcher(Protocol):
    """Watches a model while it denoises."""

    def watch(self, model: Any, merged: MergedInputs) -> Denoiser:
        """Return the model as a denoiser whose passes are watched."""


@torch.no_grad()
def denoise(
    model: VisionDenoiser,
    input_ids: torch.Tensor,
    settings: GenerationSettings,
    *,
    attention_mask: torch.Tensor | None = None,
    stop_ids: Sequence[Sequence[int]] = (),
    suffix_ids: Sequence[int] = (),
    start_ids: torch.Tensor | None = None,
    process_logits: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
    cancel: Callable[[], bool] | None = None,
    probe: PassWatcher | None = None,
    record_hidden: Layers = False,
    **images: Any,
) -> Iterator[StepRecord]:
    """Answer prompts of ids step by step.

    Args:
        model: from `load`.
        input_ids: (R, S) with placeholders for images.
        settings: lengths, steps, temperature and so on; `stop` and `suffix`, which are texts, are not read here.
        attention_mask: (R, S), 0 at padding; None if nothing is padded.
        stop_ids: id sequences before which an answer ends.
        suffix_ids: ids behind the answer positions.
        start_ids, process_logits: as `sample` takes them; the former is the canvas of infilling.
        cancel: asked before every pass; true ends the run.
        probe: watches the attention of the passes; only without a cache.
        record_hidden: keep in the records the states of layers at the answer positions: True for every layer, numbers
            of layers for theirs. `tracing.read_lens` reads them.
        images: `pixel_values` or `vision_features`, and `tile_layouts`, as `model.merge_image_features` takes them.

    Yields:
        A `StepRecord` for every forward pass.

    Raises:
        ValueError: for a probe with a cache, which keeps passes from computing all attention, for several prompts
            at a time with a strategy that grows, for start_ids that are no ids of the model, or for layers that it does
            not have.
        FloatingPointError: if the model's outputs are not finite.
    """
    if probe is not None and not isinstance(settings.cache, NoCache):
        raise ValueError(
            f"attention is recorded only where every pass computes all of it, but cache is {settings.cache.name!r}; "
            "give cache 'none'"
        )
    if start_ids is not None:
        least, most, vocabulary = int(start_ids.min()), int(start_ids.max()), model.config.vocab_size
        if least < 0 or most >= vocabulary:
            raise ValueError(
                f"the answers to start from hold ids from {least} to {most}; give ids from 0 to {vocabulary - 1}, "
                f"the mask's ({model.config.mask_token_id}) where a token is wanted"
            )
    if isinstance(model, FSDPModule):
        # sharded weights of the model itself are gathered around each of its parts, as they are around forward
        for name in ("merge_image_features", "embed_tokens", "backbone", "head"):
            if name not in vars(model):
                register_fsdp_forward_method(model, name)
    input_ids = input_ids.to(model.input_device)
    if attention_mask is not None:
        attention_mask = attention_mask.to(model.input_device)
    prompts = model.merge_image_features(
        input_ids, attention_mask=attention_mask, labels=input_ids, padding_side="left", **images
    )
    yield from sample(
        model if probe is None else probe.watch(model, prompts),
        prompts.inputs_embeds,
        settings,
        **describe_prompts(model, prompts),
        suppressed=suppressed_ids(model, settings),
        stop_ids=stop_ids,
        suffix_ids=suffix_ids,
        start_ids=start_ids,
        process_logits=process_logits,
        cancel=cancel,
        record_hidden=choose_layers("record_hidden", record_hidden, model.config.num_hidden_layers),
    )


def choose_layers(name: str, wanted: Layers, layers: int, others: str = "") -> tuple[int, ...]:
    """Return the numbers of the layers that are to be recorded, ascending.

    Args:
        name: of the argument, for the error.
        wanted: true for all, false for none, or numbers; negative ones count from the last.
        layers: how many the model has.
        others: what else the argument may be, for the error.

    Raises:
        ValueError: for anything else.
    """
    if isinstance(wanted, bool):
        return tuple(range(layers)) if wanted else ()
    is_numbers = isinstance(wanted, list | tuple | range) and all(type(number) is int for number in wanted)
    if is_numbers and wanted and all(-layers <= number < layers for number in wanted):
        return tuple(sorted({number % layers for number in wanted}))
    raise ValueError(f"{name} is {wanted!r}; give True for all {layers} layers, numbers of layers{others}")


def describe_prompts(model: VisionDenoiser, prompts: MergedInputs) -> dict[str, Any]:
    """Return what `sample` must know of prompts that were merged with their images, with their ids as labels."""
    config = model.config
    return {
        "mask_token_id": config.mask_token_id,
        "end_ids": (config.eos_token_id, config.eot_token_id),
        "attention_mask": prompts.attention_mask,
        "prompt_masked": prompts.labels == config.mask_token_id,
        "is_image": prompts.labels == config.ignore_index,  # images, and padding
    }


def suppressed_ids(model: VisionDenoiser, settings: GenerationSettings) -> tuple[int, ...]:
    """Return the ids that are never predicted: those of the settings, or the four that the reference suppresses."""
    if settings.suppressed_tokens != REFERENCE_SUPPRESSION:
        return settings.suppressed_tokens
    config = model.config
    return (
        config.eos_token_id,
        config.bos_token_id,
        config.start_header_token_id,
        config.end_header_token_id,
    )

"""`generate` for the model: from prompt ids and images to denoised answers, through the exact sampler.

A mixin over the model's own `merge_image_features`, `embed_tokens`, `body` and `head`. Knows no tokenizer: texts of the
settings (`stop`, `suffix`) are given as ids. B prompts, S ids, P prompt positions, L answer positions.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch

from medv_lab.config import GROWING, REFERENCE_SUPPRESSION, GenerationSettings
from medv_lab.diffusion.growth import sample_growing
from medv_lab.diffusion.sampler import StepRecord, sample
from medv_lab.model.attention_probe import AttentionProbe
from medv_lab.model.image_features import MergedInputs


class DenoisingGeneration:
    """Adds `generate` and `denoise` to a model with a `MedVConfig`."""

    @torch.no_grad()
    def denoise(
        self,
        input_ids: torch.Tensor,
        settings: GenerationSettings,
        *,
        attention_mask: torch.Tensor | None = None,
        stop_ids: Sequence[Sequence[int]] = (),
        suffix_ids: Sequence[int] = (),
        cancel: Callable[[], bool] | None = None,
        probe: AttentionProbe | None = None,
        **images: Any,
    ) -> Iterator[StepRecord]:
        """Answer prompts step by step.

        Args:
            input_ids: (B, S) with placeholders for images.
            settings: lengths, steps, temperature and so on; `stop` and `suffix` are not read here.
            attention_mask: (B, S), 0 at padding; None if nothing is padded.
            stop_ids: id sequences before which an answer ends.
            suffix_ids: ids behind the answer positions.
            cancel: asked before every pass; true ends the run.
            probe: watches the attention of the passes; only without a cache.
            images: `pixel_values` or `vision_features`, and `tile_layouts`, as `merge_image_features` takes them.

        Yields:
            A `StepRecord` for every forward pass.

        Raises:
            ValueError: for a probe with a cache, which keeps passes from computing all attention.
            ValueError: for several prompts at a time with a strategy that grows.
        """
        if probe is not None and settings.cache != "none":
            raise ValueError(
                f"attention is recorded only where every pass computes all of it, but cache is {settings.cache!r}; "
                "give cache 'none'"
            )
        device = self.device
        input_ids = input_ids.to(device)
        if attention_mask is not None:
            attention_mask = attention_mask.to(device)
        merged = self.merge_image_features(
            input_ids, attention_mask=attention_mask, labels=input_ids, padding_side="left", **images
        )
        known = self.places(merged) | {"suppressed": self.suppressed_ids(settings)}
        known |= {"stop_ids": stop_ids, "suffix_ids": suffix_ids, "cancel": cancel}
        with nullcontext() if probe is None else probe.watching(self, merged):
            if settings.remasking in GROWING:
                del known["reusable"]  # nothing is cached
                ends = (self.config.eos_token_id, self.config.eot_token_id)
                yield from sample_growing(self, merged.inputs_embeds, settings, end_ids=ends, **known)
            else:
                yield from sample(self, merged.inputs_embeds, settings, **known)

    def places(self, merged: MergedInputs) -> dict[str, Any]:
        """What the sampler must know of the places of prompts that were merged with their ids as labels."""
        return {
            "mask_token_id": self.config.mask_token_id,
            "attention_mask": merged.attention_mask,
            "prompt_masked": merged.labels == self.config.mask_token_id,
            "reusable": merged.labels == self.config.ignore_index,  # images, and padding
        }

    def generate(
        self, input_ids: torch.Tensor, settings: GenerationSettings | None = None, **inputs: Any
    ) -> list[torch.Tensor]:
        """Answer prompts.

        Args:
            input_ids: (B, S) with placeholders for images.
            settings: by default `GenerationSettings()`.
            inputs: what `denoise` takes.

        Returns:
            The generated ids of each prompt, cut at its stop, with the suffix behind; the suffix alone if the run
            was cancelled before its first pass.
        """
        settings = settings or GenerationSettings()
        suffix = list(inputs.get("suffix_ids", ()))
        passes = deque(self.denoise(input_ids, settings, **inputs), maxlen=1)
        if not passes:
            return [torch.tensor(suffix, dtype=torch.long) for _ in input_ids]
        rows = zip(passes[0].canvas.tolist(), passes[0].stops.tolist(), strict=True)
        return [torch.tensor([*canvas[:stop], *suffix], dtype=torch.long) for canvas, stop in rows]

    def suppressed_ids(self, settings: GenerationSettings) -> tuple[int, ...]:
        """Ids that are never predicted: those of the settings, or the four that the reference suppresses."""
        if settings.suppressed_tokens != REFERENCE_SUPPRESSION:
            return settings.suppressed_tokens
        config = self.config
        return (
            config.eos_token_id,
            config.bos_token_id,
            config.start_header_token_id,
            config.end_header_token_id,
        )

"""The autoregressive twin of LLaDA-MedV: the same parts, read and written from left to right.

It differs from the denoiser in two things: a position sees earlier ones only (`config.is_causal`), and each learned
token is predicted from what stands before it. State dicts have the same keys and shapes. B rows, S ids, T positions
with the images in, V vocabulary.
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache
from transformers.modeling_outputs import CausalLMOutput

from medv_lab.diffusion.forward import masked_cross_entropy
from medv_lab.inputs.tiling import TileLayout
from medv_lab.model.configuration import MedVCausalConfig, MedVConfig
from medv_lab.model.modeling import Images, MedVLanguageModel


class MedVForNextToken(MedVLanguageModel):
    """The causal model, its training loss and its decoding."""

    config: MedVCausalConfig
    config_class = MedVCausalConfig

    def __init__(self, config: MedVConfig):
        if not config.is_causal:
            raise ValueError(
                "config.is_causal is false; a model that writes from left to right needs it true"
            )
        if not isinstance(
            config, MedVCausalConfig
        ):  # saved under its own type, it is not taken for a denoiser
            backend = config._attn_implementation
            config = MedVCausalConfig(**{**config.to_dict(), "model_type": MedVCausalConfig.model_type})
            config._attn_implementation = backend
        super().__init__(config)

    def forward(
        self,
        input_ids: torch.Tensor,
        pixel_values: Images | None = None,
        vision_features: Images | None = None,
        tile_layouts: Sequence[TileLayout] | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        noise: Any = None,
    ) -> CausalLMOutput:
        """Score the prediction of each labelled token; without labels, return the logits (B, T, V) of the ids.

        The loss is normalised as the denoiser's: (1/B) sum over rows of the mean over a row's learned tokens. What
        follows an end of turn or of text is not learned, since decoding has ended there.

        Args:
            input_ids, pixel_values, vision_features, tile_layouts, attention_mask: as in `merge_image_features`.
            labels: (B, S), -100 where a token is not learned.
            noise: not read; the trainer offers it to every model.
        """
        merged = self.merge_image_features(
            input_ids,
            pixel_values,
            vision_features=vision_features,
            tile_layouts=tile_layouts,
            attention_mask=attention_mask,
            labels=labels,
        )
        hidden = self.backbone(merged.inputs_embeds, merged.attention_mask)
        if labels is None:
            return CausalLMOutput(logits=self.head(hidden))
        # Each learned label is predicted from the index before it, unless the text had ended there; the mean over a
        # row's learned tokens, then over the rows.
        before, targets = merged.labels[:, :-1], merged.labels[:, 1:]
        learned = (targets != self.config.ignore_index) & ~torch.isin(before, before.new_tensor(self._ends))
        losses = masked_cross_entropy(self.head(hidden[:, :-1][learned]), targets[learned])
        share = (1 / learned.sum(1).clamp(min=1))[learned.nonzero()[:, 0]]
        return CausalLMOutput(loss=(losses * share).sum() / len(targets))

    @torch.no_grad()
    def write(
        self,
        input_ids: torch.Tensor,
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        attention_mask: torch.Tensor | None = None,
        **images: Any,
    ) -> list[list[int]]:
        """Answer prompts token by token; each row as it would be answered alone.

        Args:
            input_ids: (B, S) with placeholders for images.
            max_new_tokens: longest answer.
            temperature: 0 takes the most probable token, otherwise tokens are drawn from softmax(logits / temperature).
            seed: of the draws; every row has a generator of its own.
            attention_mask: (B, S), 0 at padding.
            images: `pixel_values` or `vision_features`, and `tile_layouts`, as `merge_image_features` takes them.

        Returns:
            The ids of each answer, with the token that ended it.
        """
        # The prompts line up at their ends; each row counts its positions from its own first token.
        mask = None if attention_mask is None else attention_mask.to(self.device)
        merged = self.merge_image_features(
            input_ids.to(self.device), attention_mask=mask, padding_side="left", **images
        )
        embeds, seen = merged.inputs_embeds, merged.attention_mask
        if seen is None:
            seen = embeds.new_ones(embeds.shape[:2], dtype=torch.long)
        positions = (seen.long().cumsum(1) - 1).clamp(min=0)
        generators = [torch.Generator(self.device).manual_seed(seed) for _ in input_ids]
        answers: list[list[int]] = [[] for _ in input_ids]
        cache = DynamicCache()
        # Each pass reads the newest token only, the keys and values of all others are in the cache.
        for _ in range(max_new_tokens):
            logits = self.head(self.backbone(embeds, seen, positions, cache)[:, -1]).double()
            tokens = _choose(logits, temperature, generators)
            for answer, token in zip(answers, tokens.tolist(), strict=True):
                if not answer or answer[-1] not in self._ends:
                    answer.append(token)
            if all(answer[-1] in self._ends for answer in answers):
                break
            embeds = self.embed_tokens(tokens)[:, None].to(embeds.dtype)
            seen = torch.cat([seen, seen.new_ones(len(seen), 1)], dim=1)
            positions = positions[:, -1:] + 1
        return answers

    @property
    def _ends(self) -> tuple[int, int]:
        return self.config.eot_token_id, self.config.eos_token_id


def _choose(logits: torch.Tensor, temperature: float, generators: list[torch.Generator]) -> torch.Tensor:
    """The next token of every row: logits (B, V) to ids (B,)."""
    if temperature == 0:
        return logits.argmax(-1)
    chances = torch.softmax(logits / temperature, dim=-1)
    drawn = [torch.multinomial(row, 1, generator=own) for row, own in zip(chances, generators, strict=True)]
    return torch.cat(drawn)

"""Record where newly committed tokens look on the prompt's pictures, while a run goes on.

Eager attention shows its weights (`watched_attention`), in this run alone; one `StepRecord` later the rows of the
positions that were committed are taken from them. What is kept: a map for each chosen layer (mean over heads), or the
rollout of all layers, `A_l' = (A_l + I) / 2` multiplied from the first to the last (Abnar & Zuidema, arXiv 2005.00928,
section 3).

R' rows of a pass, T sequence indices, K maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from medv_lab.decoding.denoising import Layers, choose_layers
from medv_lab.decoding.watched_attention import Watcher, watching
from medv_lab.diffusion.attention_maps import ROLLOUT, PatchAttention, PatchGrid
from medv_lab.diffusion.state import StepRecord
from medv_lab.inputs.image_features import MergedInputs
from medv_lab.model.modeling import MedVForMaskedDiffusion

AttentionMaps = Layers | Literal["rollout"]


class AttentionProbe:
    """Watches the attention layers in the runs of one batch."""

    def __init__(self, layers: int, maps: AttentionMaps):
        """Choose what is kept.

        Args:
            layers: how many the model has.
            maps: true for every layer, their numbers (negative ones count from the last), or "rollout".

        Raises:
            ValueError: for anything else.
        """
        self.maps = _choose_maps(layers, maps)
        # of the last pass, (R', indices behind the prompt, prompt indices)
        self._seen: dict[int | str, torch.Tensor] = {}
        # of each pass: rows (N,), values (N, K, prompt indices)
        self._taken: list[tuple[np.ndarray, np.ndarray]] = []
        self._pictures = torch.zeros(0, 0, dtype=torch.bool)

    def watch(self, model: MedVForMaskedDiffusion, merged: MergedInputs) -> WatchedDenoiser:
        """Return the model as a denoiser whose passes are recorded; they use eager attention, whatever others use."""
        self._prompt = merged.inputs_embeds.shape[1]
        self._pictures = merged.labels == model.config.ignore_index
        if merged.attention_mask is not None:
            self._pictures &= merged.attention_mask.bool()
        return WatchedDenoiser(model, self._see)

    def take(self, record: StepRecord) -> None:
        """Keep what the pass of this record says about its commits; call it before the next pass."""
        local = (record.active.cumsum() - 1)[record.rows]
        values = torch.stack(
            [self._seen[name] for name in self.maps], dim=1
        )  # (R', K, behind, prompt indices)
        at = torch.from_numpy(np.maximum(record.positions, 0)).to(values.device)
        values = (
            values[torch.from_numpy(local).to(values.device), :, at].cpu().numpy()
        )  # (N, K, prompt indices)
        values[record.positions < 0] = np.nan
        self._taken.append((record.rows, values))

    def attention(self, row: int, grids: Sequence[PatchGrid], passes: int) -> PatchAttention | None:
        """Return what the first passes say of a row, with the grids of its pictures; None without pictures."""
        is_picture = self._pictures[row].cpu().numpy() if len(self._pictures) else np.zeros(0, bool)
        if not is_picture.any():
            return None
        parts = [values[rows == row][:, :, is_picture] for rows, values in self._taken[:passes]]
        empty = np.zeros((0, len(self.maps), int(is_picture.sum())))
        return PatchAttention(self.maps, np.concatenate([empty, *parts]).astype(np.float16), tuple(grids))

    def _see(self, layer: int, weights: torch.Tensor) -> None:
        """Take in a layer's attention (R', heads, T, T); guided runs have the blanked rows behind, which go unread."""
        if self.maps != (ROLLOUT,) and layer not in self.maps:
            return
        weights = weights.float().mean(1)
        behind = slice(self._prompt, None)  # the answer, which may grow, and what follows it
        if self.maps != (ROLLOUT,):
            self._seen[layer] = weights[:, behind, : self._prompt]
            return
        weights = (weights + torch.eye(weights.shape[1], device=weights.device)) / 2
        self._product = weights if layer == 0 else weights @ self._product
        self._seen[ROLLOUT] = self._product[:, behind, : self._prompt]


@dataclass(frozen=True)
class WatchedDenoiser:
    """A model whose passes are watched; other users of the model are not."""

    model: MedVForMaskedDiffusion
    watcher: Watcher

    def backbone(self, *inputs: Any, **options: Any) -> torch.Tensor:
        """Run the language model, as `MedVForMaskedDiffusion.backbone`."""
        with watching(self.watcher):
            return self.model.backbone(*inputs, **options)

    def embed_tokens(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the embeddings (..., H) of ids (...)."""
        return self.model.embed_tokens(ids)

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the logits (N, V) of hidden states (N, H)."""
        return self.model.head(hidden)


def _choose_maps(layers: int, maps: AttentionMaps) -> tuple[int | str, ...]:
    if isinstance(maps, str) and maps == ROLLOUT:
        return (ROLLOUT,)
    return choose_layers("record_attention", maps, layers, f", or {ROLLOUT!r}")

"""The accelerator's side of a run: embeddings of the whole sequences, forward passes, and each row's random numbers.

R rows, P prompt places, L answer places, S suffix places, T = P + L + S, B block length, H hidden size, V vocabulary,
N candidates, M tokens to verify.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from medv_lab.diffusion.cache import KeyValueCache, Reuse, listed
from medv_lab.diffusion.remasking import Predictions, predict, suppress


class Denoiser(Protocol):
    """What the sampler needs of a model."""

    def embed_tokens(self, ids: torch.Tensor) -> torch.Tensor:
        """Ids (...) to embeddings (..., H)."""

    def body(
        self,
        inputs_embeds: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        cache: KeyValueCache | None = None,
        wanted: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """(R, T, H) to hidden states (R, T, H), or (R, W, H) of the wanted places (R, W).

        The mask says which keys are seen, (R, T), or (R, 1, T, T) with the queries; positions are (R, T), 0..T-1 by
        default. With a cache only Q places are given and come back, and the mask is (R, 1, Q, T).
        """

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """Hidden states (N, H) to logits (N, V), a new tensor: the sampler writes to it."""


class Passes:
    """The accelerator's side of a run: embeddings of the whole sequences, and a random generator for each row."""

    def __init__(
        self,
        denoiser,
        settings,
        mask_token_id,
        suppressed,
        prefix_embeds,
        attention_mask,
        suffix_ids,
        reusable=None,
    ):
        self.denoiser, self.settings, self.suppressed = denoiser, settings, suppressed
        self.device, (rows, self.prompt, _) = prefix_embeds.device, prefix_embeds.shape
        tail = torch.tensor([mask_token_id] * settings.gen_length + list(suffix_ids), device=self.device)
        tail_embeds = denoiser.embed_tokens(tail).to(prefix_embeds.dtype)
        self.mask_embed = tail_embeds[0]
        self.embeds = torch.cat([prefix_embeds, tail_embeds.expand(rows, -1, -1)], dim=1)  # (R, T, H)
        self.attention = self.position_ids = None
        self.padding = np.zeros(rows, np.int64)  # places on the left of each row
        if attention_mask is not None and not bool(attention_mask.all()):
            real = torch.nn.functional.pad(attention_mask.bool(), (0, len(tail)), value=True)
            # Positions count from the first real place, as they do when the row runs alone.
            self.attention, self.position_ids = real, (real.long().cumsum(1) - 1).clamp(min=0)
            self.padding = (~real).sum(1).cpu().numpy()
        self.reuse = None
        if settings.cache != "none":
            kept = np.zeros(self.embeds.shape[:2], bool)
            if reusable is not None:
                kept[:, : self.prompt] = reusable.cpu().numpy()
            self.reuse = Reuse(settings, kept, self.device)
        self.generators = [torch.Generator(self.device).manual_seed(settings.seed) for _ in range(rows)]

    def start_block(self, first: int, last: int) -> None:
        """The answer places first..last - 1 are filled next."""
        if self.reuse is not None:
            self.reuse.start_block(self.prompt + first, self.prompt + last)

    def predict(self, active: np.ndarray, rows: np.ndarray, places: np.ndarray) -> Predictions:
        """One forward pass of the active rows (R,); predictions at candidates (rows, places), each (N,)."""
        return self._rate(self._candidate_logits(active, rows, places), rows, places)

    def predict_with_ends(
        self, active: np.ndarray, rows: np.ndarray, places: np.ndarray, end_ids: Sequence[int]
    ) -> tuple[Predictions, np.ndarray]:
        """The same, and the probability (N,) of any of `end_ids` at each candidate, suppressed or not."""
        logits = self._candidate_logits(active, rows, places)
        ends = logits.double().softmax(-1)[:, list(end_ids)].sum(-1).cpu().numpy()
        return self._rate(logits, rows, places), ends

    def grow(self, place: int, count: int) -> None:
        """Put `count` masks before a place of every row."""
        masks = self.mask_embed.expand(len(self.embeds), count, -1)
        self.embeds = torch.cat([self.embeds[:, :place], masks, self.embeds[:, place:]], dim=1)

    def predict_and_verify(
        self,
        active: np.ndarray,
        rows: np.ndarray,
        places: np.ndarray,
        block: np.ndarray,
        held_rows: np.ndarray,
        held_places: np.ndarray,
        held_tokens: np.ndarray,
    ) -> tuple[Predictions, np.ndarray]:
        """The same, and in the same pass the probability (M,) of each held token when it is hidden.

        Args:
            active, rows, places: as in `predict`.
            block: consecutive places (B,) that get a shadow: a mask that sees all but its own place and the other
                shadows, and that only itself sees.
            held_rows, held_places, held_tokens: what to verify, (M,), within the block.
        """
        hidden = self._hidden(active, block)
        predictions = self._rate(self._logits(hidden, active, rows, places), rows, places)
        shadows = self.embeds.shape[1] + held_places - block[0]
        probs = (
            suppress(self._logits(hidden, active, held_rows, shadows), self.suppressed).double().softmax(-1)
        )
        return predictions, probs.gather(-1, self._index(held_tokens)[:, None])[:, 0].cpu().numpy()

    def commit(self, rows: np.ndarray, places: np.ndarray, tokens: np.ndarray) -> None:
        """Embed the tokens (N,) at their places."""
        embeds = self.denoiser.embed_tokens(self._index(tokens)).to(self.embeds.dtype)
        self.embeds[self._index(rows), self._index(places)] = embeds

    def draw(self, rows: np.ndarray, *shape: int) -> torch.Tensor:
        """Uniform numbers (N, *shape), each row's from its own generator: alone as in a batch."""
        parts = [self._rand(row, (int((rows == row).sum()), *shape)) for row in np.unique(rows)]
        return torch.cat(parts) if parts else torch.empty(0, *shape, dtype=torch.float64, device=self.device)

    def revoke(self, rows: np.ndarray, places: np.ndarray) -> None:
        """Put the mask's embedding back at the places (N,)."""
        self.embeds[self._index(rows), self._index(places)] = self.mask_embed

    def _candidate_logits(self, active: np.ndarray, rows: np.ndarray, places: np.ndarray) -> torch.Tensor:
        """Logits (N, V) at candidates; only their hidden states are asked for."""
        needed = np.zeros(self.embeds.shape[:2], bool)
        needed[rows, places] = True
        computed = None if self.reuse is None else self.reuse.plan(active, needed)
        chosen = needed[active] if computed is None else np.take_along_axis(needed[active], computed, 1)
        wanted = listed(chosen)  # indices into the places that are computed
        if computed is None:
            hidden = self._hidden(active, wanted=wanted)
        else:
            hidden = self._hidden_with_cache(active, computed, wanted)
        found = wanted if computed is None else np.take_along_axis(computed, wanted, 1)
        where = np.zeros(needed[active].shape, np.int64)
        np.put_along_axis(where, found, np.arange(found.shape[1])[None], 1)
        return self._logits(hidden, active, rows, where[(active.cumsum() - 1)[rows], places])

    def _rate(self, logits: torch.Tensor, rows: np.ndarray, places: np.ndarray) -> Predictions:
        is_random = self.settings.remasking == "random"
        return predict(
            logits,
            self.suppressed,
            self.settings.temperature,
            lambda: self._noise(rows, places, logits.shape[-1]),
            (lambda: self.draw(rows)) if is_random else None,
        )

    def _logits(self, hidden, active: np.ndarray, rows: np.ndarray, places: np.ndarray) -> torch.Tensor:
        """Logits (N, V) at rows and places of hidden states of the active rows, guided where that is asked for."""
        local = self._index((active.cumsum() - 1)[rows])  # row among the active ones
        at = self._index(places)
        logits = self.denoiser.head(hidden[0][local, at])
        if self.settings.cfg_scale > 0:
            unconditional = self.denoiser.head(hidden[1][local, at])
            logits = unconditional + (self.settings.cfg_scale + 1) * (logits - unconditional)
        return logits

    def _hidden(
        self, active: np.ndarray, shadowed: np.ndarray | None = None, wanted: np.ndarray | None = None
    ) -> tuple[torch.Tensor, ...]:
        """Hidden states of the active rows; with guidance also those with the prompt blanked by masks."""
        copies = 1 if self.settings.cfg_scale == 0 else 2
        asked = None if wanted is None else self._index(wanted).repeat(copies, 1)
        inputs = (self.embeds, self.attention, self.position_ids)
        if not active.all():
            chosen = self._index(np.flatnonzero(active))
            inputs = tuple(None if part is None else part[chosen] for part in inputs)
        if shadowed is not None:
            inputs = self._add_shadows(*inputs, self._index(shadowed))
        if copies == 1:
            return (self.denoiser.body(*inputs, wanted=asked),)
        return self.denoiser.body(*self._add_blanked(*inputs), wanted=asked).chunk(2)

    def _hidden_with_cache(
        self, active: np.ndarray, computed: np.ndarray, wanted: np.ndarray
    ) -> tuple[torch.Tensor, ...]:
        """The same where only some places (R', C) are computed, and some (R', W) of these asked for."""
        chosen, at = self._index(np.flatnonzero(active)), self._index(computed)
        embeds, asked = self.embeds[chosen], self._index(wanted)
        seen, position_ids = embeds.new_ones(embeds.shape[:2], dtype=torch.bool), at
        if self.attention is not None:
            seen, position_ids = self.attention[chosen], self.position_ids[chosen].gather(1, at)
        visible = seen[:, None, None].expand(-1, 1, at.shape[1], embeds.shape[1])
        inputs = (embeds, visible, position_ids)
        if self.settings.cfg_scale > 0:
            inputs, at, asked = self._add_blanked(*inputs), at.repeat(2, 1), asked.repeat(2, 1)
        embeds = inputs[0].take_along_dim(at[..., None], 1)
        hidden = self.denoiser.body(embeds, *inputs[1:], self.reuse.store, asked)
        return hidden.chunk(2) if self.settings.cfg_scale > 0 else (hidden,)

    def _add_blanked(self, embeds, *others) -> tuple[torch.Tensor | None, ...]:
        """Every row once more, with its prompt blanked by masks."""
        blank = embeds.clone()
        blank[:, : self.prompt] = self.mask_embed
        pairs = zip((embeds, *others), (blank, *others), strict=True)
        return tuple(None if a is None else torch.cat([a, b]) for a, b in pairs)

    def _add_shadows(self, embeds, attention, position_ids, places: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Masks at the same positions as `places` (B,), behind all others."""
        (rows, total, _), count = embeds.shape, len(places)
        seen = embeds.new_ones(rows, total, dtype=torch.bool) if attention is None else attention
        if position_ids is None:
            position_ids = torch.arange(total, device=self.device).expand(rows, -1)
        visible = seen.new_zeros(rows, 1, total + count, total + count)
        visible[..., :total] = seen[:, None, None]
        shadows = total + torch.arange(count, device=self.device)
        visible[:, :, shadows, places] = False
        visible[:, :, shadows, shadows] = True
        return (
            torch.cat([embeds, self.mask_embed.expand(rows, count, -1)], dim=1),
            visible,
            torch.cat([position_ids, position_ids[:, places]], dim=1),
        )

    def _noise(self, rows: np.ndarray, places: np.ndarray, vocabulary: int) -> torch.Tensor:
        """Uniform numbers (N, V): drawn for candidates only, or for every position as the reference does."""
        if self.settings.noise == "masked":
            return self.draw(rows, vocabulary)
        parts = []
        for row in np.unique(rows):
            padding = int(self.padding[row])  # a row alone has no padding, and draws nothing for it
            shape = (1, self.embeds.shape[1] - padding, vocabulary)
            everywhere = self._rand(row, shape)[0]
            parts.append(everywhere[self._index(places[rows == row] - padding)])
        return torch.cat(parts)

    def _rand(self, row: int, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.rand(shape, dtype=torch.float64, generator=self.generators[row], device=self.device)

    def _index(self, values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values).to(self.device)

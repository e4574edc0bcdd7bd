"""The accelerator's side of a run: it turns the state's ids into embeddings, runs the model and draws numbers.

R rows, P prompt, L answer positions, S suffix, T = P + L + S sequence indices, B block length, H hidden size,
V vocabulary, N candidates, M tokens to verify.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch

from medv_lab.config import GenerationSettings
from medv_lab.diffusion.cache import CachePlan, KeyValueCache, listed, states_at
from medv_lab.diffusion.lookahead import Guess, Lookahead
from medv_lab.diffusion.predictions import Predictions, WatchedMasks, guide, predict, suppress
from medv_lab.diffusion.state import SamplerState
from medv_lab.strategies.caches import NoCache


@dataclass(frozen=True, eq=False)
class WatchedLayers:
    """Where one forward pass leaves the states of its layers, each after the final norm.

    Attributes:
        layers: numbers of the K layers, ascending.
        indices: which of the given sequence indices are watched, int64 (R, A).
        states: of each layer, (R, A, H); empty until the pass has run.
    """

    layers: Sequence[int]
    indices: torch.Tensor
    states: list[torch.Tensor] = field(default_factory=list)


class Denoiser(Protocol):
    """What the sampler needs of a model."""

    def embed_tokens(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the embeddings (..., H) of ids (...)."""

    def backbone(
        self,
        inputs_embeds: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        cache: KeyValueCache | None = None,
        query_indices: torch.Tensor | None = None,
        watched: WatchedLayers | None = None,
    ) -> torch.Tensor:
        """Return hidden states (R, T, H) of embeddings (R, T, H), or (R, Q, H) at the query indices (R, Q).

        The mask says which keys are seen, (R, T), or (R, 1, T, T) with the queries; positions are (R, T), 0..T-1 by
        default. With a cache only some indices are given and come back, and the mask is (R, 1, given, T). What is
        watched changes nothing of what comes back; it is given only where layers are recorded.
        """

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return logits (N, V) of hidden states (N, H), a new tensor: the sampler writes to it."""


@dataclass(frozen=True, eq=False)
class Pass:
    """What one forward pass predicts.

    Attributes:
        predictions: at the candidates (N,).
        watched: at all positions that were asked for.
        verified: probability of each committed token when it is hidden, float64 (M,); None if none were asked for.
        sequences: how many the model ran for it; 0 where an earlier pass had guessed the state.
        hidden: as a `StepRecord` has it.
    """

    predictions: Predictions
    watched: WatchedMasks
    sequences: int
    verified: np.ndarray | None = None
    hidden: torch.Tensor | None = None


class ForwardRunner:
    """Runs the forward passes of a batch, with a random generator for each row."""

    def __init__(
        self,
        denoiser: Denoiser,
        settings: GenerationSettings,
        state: SamplerState,
        prefix_embeds: torch.Tensor,
        *,
        suppressed: tuple[int, ...] = (),
        attention_mask: torch.Tensor | None = None,
        is_image: torch.Tensor | None = None,
        end_ids: Sequence[int] = (),
        process_logits: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
        record_hidden: Sequence[int] = (),
    ):
        """Take the arguments of `sample`; what it fills is read from the state."""
        self.record_hidden, self._recorded = record_hidden, None
        self.denoiser, self.settings, self.suppressed, self.end_ids = denoiser, settings, suppressed, end_ids
        self.process_logits = process_logits
        self.state, self.prefix_embeds, self.device = state, prefix_embeds, prefix_embeds.device
        self.prompt_masks = np.nonzero(
            state.masked[:, : state.prompt]
        )  # rows and indices that are filled too
        rows, behind = len(prefix_embeds), state.masked.shape[1] - state.prompt
        self.attention = self.position_ids = None
        self.padding = np.zeros(rows, np.int64)  # on the left of each row
        if attention_mask is not None and not bool(attention_mask.all()):
            real = torch.nn.functional.pad(attention_mask.bool(), (0, behind), value=True)
            # Positions count from the first real index, as they do when the row runs alone.
            self.attention, self.position_ids = real, (real.long().cumsum(1) - 1).clamp(min=0)
            self.padding = (~real).sum(1).cpu().numpy()
        self.copies = 2 if settings.cfg_scale > 0 else 1  # guidance runs every row a second time
        self.cache_plan = None
        if not isinstance(settings.cache, NoCache):
            kept = np.zeros(state.masked.shape, bool)
            if is_image is not None:
                kept[:, : state.prompt] = is_image.cpu().numpy()
            self.cache_plan = CachePlan(settings.cache, kept, state.prompt, self.copies, self.device)
        self.lookahead = Lookahead(state) if settings.lookahead else None
        self.generators = [torch.Generator(self.device).manual_seed(settings.seed) for _ in range(rows)]

    def start_block(self, first: int, last: int) -> None:
        """Prepare for the block at positions first..last - 1."""
        if self.cache_plan is not None:
            self.cache_plan.start_block(self.state.prompt + first, self.state.prompt + last)
        if self.lookahead is not None:
            self.lookahead.forget()

    def run(
        self,
        active: np.ndarray,
        rows: np.ndarray,
        positions: np.ndarray,
        verify: tuple[np.ndarray, np.ndarray, range] | None = None,
        is_candidate: np.ndarray | None = None,
        following: Sequence[int] = (),
    ) -> Pass:
        """Run one forward pass of the active rows.

        Args:
            active: bool (R,).
            rows, positions: the candidates, and others that are only watched.
            verify: rows and positions (M,) of tokens to verify, and the block's positions. Each position of the block
                gets a shadow: a mask that sees all but the token at its own position, and that only shadows see.
            is_candidate: which rows and positions are candidates; all by default. Only for these a token is drawn.
            following: numbers of tokens that this pass and those after it may commit, to guess states by.
        """
        indices = positions + self.state.prompt
        sequences, verified = int(active.sum()), None
        if verify is None:
            logits, sequences = self._candidate_logits(active, rows, indices, following)
        else:
            committed_rows, committed, block = verify
            shadowed = np.arange(block.start, block.stop) + self.state.prompt
            hidden = self._hidden(self._sequences(active), shadowed=self._index(shadowed))
            logits = self._logits(hidden, active, rows, indices)
            shadows = self.state.masked.shape[1] + committed - block.start
            probs = suppress(self._logits(hidden, active, committed_rows, shadows), self.suppressed)
            tokens = self._index(self.state.answer[committed_rows, committed])
            verified = probs.double().softmax(-1).gather(-1, tokens[:, None])[:, 0].cpu().numpy()
        ends = None
        if self.end_ids:
            ends = logits.double().softmax(-1)[:, list(self.end_ids)].sum(-1).cpu().numpy()
        if self.process_logits is not None:
            allowed = suppress(logits, self.suppressed)
            logits = self.process_logits(self._index(self.state.answer[rows]), allowed)
        watched = WatchedMasks(rows, positions, suppress(logits, self.suppressed), ends)
        if is_candidate is not None and not is_candidate.all():
            rows, indices = rows[is_candidate], indices[is_candidate]
            logits = logits[self._index(is_candidate)]
        predictions = predict(
            logits,
            self.suppressed,
            self.settings.temperature,
            lambda: self._noise(rows, indices, logits.shape[-1]),
            (lambda: self._random_confidence(rows, indices)) if self.settings.remasking.is_random else None,
        )
        if self.lookahead is not None:
            self.lookahead.draft(
                indices, predictions.tokens.cpu().numpy(), predictions.confidence.cpu().numpy()
            )
        return Pass(predictions, watched, sequences, verified, self._hidden_layers())

    def _hidden_layers(self) -> torch.Tensor | None:
        """Return the recorded states of the last pass, where it was guessed those of its guess."""
        if self.lookahead is None or self._recorded is None:
            return self._recorded
        return self._recorded[:, self.lookahead.row : self.lookahead.row + 1]

    def draw(self, rows: np.ndarray, *shape: int) -> torch.Tensor:
        """Draw uniform numbers (N, *shape), each row's from its own generator: alone as in a batch."""
        parts = [self._rand(row, (int((rows == row).sum()), *shape)) for row in np.unique(rows)]
        return torch.cat(parts) if parts else torch.empty(0, *shape, dtype=torch.float64, device=self.device)

    def _embeds(self) -> torch.Tensor:
        """Embed the whole sequences as they stand, (R, T, H): the prompts as they were given, and the state's ids.

        The ids are embedded anew in every pass: against the pass itself this costs nothing that can be measured, and
        there is no second state to keep in step.
        """
        state, prefix = self.state, self.prefix_embeds
        tail = self.denoiser.embed_tokens(self._index(state.ids[:, state.prompt :])).to(prefix.dtype)
        embeds = torch.cat([prefix, tail], dim=1)
        if len(self.prompt_masks[0]):
            at = tuple(map(self._index, self.prompt_masks))
            embeds[at] = self.denoiser.embed_tokens(self._index(state.ids[self.prompt_masks])).to(
                prefix.dtype
            )
        return embeds

    def _mask_embed(self, embeds: torch.Tensor) -> torch.Tensor:
        mask = torch.tensor(self.state.mask_token_id, device=self.device)
        return self.denoiser.embed_tokens(mask).to(embeds.dtype)

    def _candidate_logits(
        self, active: np.ndarray, rows: np.ndarray, indices: np.ndarray, following: Sequence[int]
    ) -> tuple[torch.Tensor, int]:
        """Return logits (N, V) at the candidates, whose hidden states alone are asked for, and the sequences run."""
        needed = np.zeros(self.state.masked.shape, bool)
        needed[rows, indices] = True
        computed, queries, is_repeating = None, listed(needed[active]), True
        if self.cache_plan is not None:
            computed = self.cache_plan.next_pass(active, needed)  # (R', Q)
            queries = listed(np.take_along_axis(needed[active], computed, 1))  # into what is computed
            is_repeating = self.cache_plan.is_repeating
        hidden, guesses, sequences = None, [], 0
        if self.lookahead is not None:
            if not is_repeating:
                self.lookahead.forget()
            hidden = self.lookahead.recall(indices)
            guesses = self.lookahead.guess(indices, following) if is_repeating else []
        if hidden is None:
            sequences = int(active.sum()) + len(guesses)
            hidden = self._hidden(self._sequences(active, guesses), queries, computed)
            if guesses:
                hidden = self.lookahead.keep(guesses, indices, hidden)
        # queries are listed as the candidates are: in order within their rows
        numbers = np.arange(len(rows)) - np.searchsorted(rows, rows)
        return self._logits(hidden, active, rows, numbers), sequences

    def _logits(self, hidden, active: np.ndarray, rows: np.ndarray, indices: np.ndarray) -> torch.Tensor:
        """Return logits (N, V) at rows and indices of hidden states of the active rows, guided where asked for."""
        local = self._index((active.cumsum() - 1)[rows])  # row among the active ones
        at = self._index(indices)
        logits = self.denoiser.head(hidden[0][local, at])
        if self.copies == 2:
            unconditional = self.denoiser.head(hidden[1][local, at])
            logits = guide(logits, unconditional, self.settings.cfg_scale)
        return logits

    def _sequences(
        self, active: np.ndarray, guesses: Sequence[Guess] = ()
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Return embeddings (R', T, H), mask and positions of the active rows; of one row also what is guessed."""
        inputs = (self._embeds(), self.attention, self.position_ids)
        if not active.all():
            chosen = self._index(np.flatnonzero(active))
            inputs = tuple(None if part is None else part[chosen] for part in inputs)
        if guesses:
            states = 1 + len(guesses)
            inputs = tuple(None if part is None else part.repeat_interleave(states, 0) for part in inputs)
            for row, (at, tokens) in enumerate(guesses, 1):
                embeds = self.denoiser.embed_tokens(self._index(tokens))
                inputs[0][row, self._index(at)] = embeds.to(inputs[0].dtype)
        return inputs

    def _hidden(
        self,
        inputs: tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None],
        query_indices: np.ndarray | None = None,
        computed: np.ndarray | None = None,
        shadowed: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, ...]:
        """Return hidden states of sequences; with guidance also those with the prompt blanked by masks.

        Args:
            inputs: from `_sequences`.
            query_indices: what is asked for, (R', Q), or (1, Q) for all; all indices by default.
            computed: with a cache, the sequence indices that are computed, (R', C) or (1, C).
            shadowed: indices (B,) of masks to put behind all others.
        """
        embeds, attention, position_ids = inputs
        rows = len(embeds)
        at = cache = None
        if computed is not None:
            at = self._index(computed).expand(rows, -1)
            seen = embeds.new_ones(embeds.shape[:2], dtype=torch.bool) if attention is None else attention
            attention = seen[:, None, None].expand(-1, 1, at.shape[1], embeds.shape[1])
            position_ids = at if position_ids is None else position_ids.gather(1, at)
            cache = self.cache_plan.kept
            cache = cache if rows == len(computed) else cache.repeated(rows)
        inputs = (embeds, attention, position_ids)
        if shadowed is not None:
            inputs = self._add_shadows(*inputs, shadowed)
        if self.copies == 2:
            inputs = self._add_blanked(*inputs)
        embeds, *others = inputs
        if at is not None:
            embeds = states_at(embeds, at.repeat(self.copies, 1))
        if query_indices is not None:
            query_indices = self._index(query_indices).expand(rows, -1).repeat(self.copies, 1)
        more = {"cache": cache, "query_indices": query_indices}
        if not self.record_hidden:
            return self.denoiser.backbone(embeds, *others, **more).chunk(self.copies)
        # Leave the states of layers at the answer positions, NaN where they are not computed.
        where = np.arange(self.state.masked.shape[1])[None]
        if computed is not None:  # the number of each sequence index among those computed
            where = np.full((len(computed), where.shape[1]), -1)
            np.put_along_axis(where, computed, np.arange(computed.shape[1])[None], 1)
        where = where[:, self.state.prompt : self.state.prompt + self.state.length]
        where = torch.from_numpy(where).expand(rows, -1)  # (R', L)
        indices = where.clamp(min=0).to(self.device).repeat(self.copies, 1)
        watched = WatchedLayers(self.record_hidden, indices)
        hidden = self.denoiser.backbone(embeds, *others, watched=watched, **more)
        states = torch.stack(watched.states, 1).cpu().unflatten(0, (self.copies, -1))
        states[:, (where < 0)[:, None].expand(states.shape[1:-1])] = torch.nan
        self._recorded = states
        return hidden.chunk(self.copies)

    def _add_blanked(self, embeds, *others) -> tuple[torch.Tensor | None, ...]:
        """Add every row once more, with its prompt blanked by masks."""
        blank = embeds.clone()
        blank[:, : self.state.prompt] = self._mask_embed(embeds)
        pairs = zip((embeds, *others), (blank, *others), strict=True)
        return tuple(None if a is None else torch.cat([a, b]) for a, b in pairs)

    def _add_shadows(
        self, embeds, attention, position_ids, shadowed: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Add masks with the positions of `shadowed` (B,), behind all others."""
        (rows, total, _), count = embeds.shape, len(shadowed)
        seen = embeds.new_ones(rows, total, dtype=torch.bool) if attention is None else attention
        if position_ids is None:
            position_ids = torch.arange(total, device=self.device).expand(rows, -1)
        visible = seen.new_zeros(rows, 1, total + count, total + count)
        visible[..., :total] = seen[:, None, None]
        shadows = total + torch.arange(count, device=self.device)
        visible[:, :, total:, total:] = True
        visible[:, :, shadows, shadowed] = False
        return (
            torch.cat([embeds, self._mask_embed(embeds).expand(rows, count, -1)], dim=1),
            visible,
            torch.cat([position_ids, position_ids[:, shadowed]], dim=1),
        )

    def _noise(self, rows: np.ndarray, indices: np.ndarray, vocabulary: int) -> torch.Tensor:
        """Draw uniform numbers (N, V): for candidates only, or for the whole sequence as the reference does."""
        if self.settings.noise == "masked":
            return self.draw(rows, vocabulary)
        return self._draw_everywhere(rows, indices, (vocabulary,), torch.float64)

    def _random_confidence(self, rows: np.ndarray, indices: np.ndarray) -> torch.Tensor:
        """Draw the confidence of random remasking, float64 (N,); the reference draws float32 at all T indices."""
        if self.settings.noise == "masked":
            return self.draw(rows)
        return self._draw_everywhere(rows, indices, (), torch.float32).double()

    def _draw_everywhere(
        self, rows: np.ndarray, indices: np.ndarray, shape: tuple[int, ...], dtype: torch.dtype
    ) -> torch.Tensor:
        """Draw uniform numbers (1, T, *shape) for each row, and return those of the candidates, (N, *shape)."""
        parts = []
        for row in np.unique(rows):
            padding = int(self.padding[row])  # a row alone has no padding, and draws nothing for it
            total = self.state.masked.shape[1] - padding
            everywhere = self._rand(row, (1, total, *shape), dtype)[0]
            parts.append(everywhere[self._index(indices[rows == row] - padding)])
        return torch.cat(parts)

    def _rand(self, row: int, shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> torch.Tensor:
        return torch.rand(shape, dtype=dtype, generator=self.generators[row], device=self.device)

    def _index(self, values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values).to(self.device)

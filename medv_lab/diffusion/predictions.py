"""From the logits of masked positions to the token that each would become, and how confident that prediction is.

N positions, V vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

_CACHED_NUMBERS = 2**19  # 2 MB of float32


@dataclass(frozen=True, eq=False)
class Predictions:
    """What masked positions would become; as `strategies.base.Distributions` it is read by strategies.

    Attributes:
        tokens: int64 (N,), the token each would get.
        confidence: float64 (N,), what the choice of positions goes by.
        logits: (N, V), after suppression, before noise; float32, or float64 where the model computes in it.
    """

    tokens: torch.Tensor
    confidence: torch.Tensor
    logits: torch.Tensor

    @cached_property
    def log_probs(self) -> torch.Tensor:
        """Log-probabilities, float64 (N, V); made only where a strategy reads them, since they take time."""
        return self.logits.double().log_softmax(-1)

    def at(self, chosen: np.ndarray) -> "Predictions":
        """Return the predictions at some of the positions, given by their indices (n,)."""
        if len(chosen) == len(self.tokens):
            return self
        index = torch.from_numpy(chosen).to(self.logits.device)
        return Predictions(self.tokens[index], self.confidence[index], self.logits[index])

    @cached_property
    def entropy(self) -> np.ndarray:
        """Entropy in nats, float64 (N,)."""
        return entropy(self.log_probs).cpu().numpy()

    @cached_property
    def margin(self) -> np.ndarray:
        """Distance between the two largest probabilities, float64 (N,)."""
        largest = self.log_probs.topk(min(2, self.log_probs.shape[-1]), dim=-1).values.exp().cpu().numpy()
        return largest[:, 0] - largest[:, 1:].sum(1)


@dataclass(frozen=True, eq=False)
class WatchedMasks:
    """What positions would become, candidates or not; as `strategies.base.Watched` it is read by strategies.

    Attributes:
        rows, positions: int (W,).
        logits: (W, V), after suppression.
        end_probability: of the end tokens, suppressed or not, float64 (W,); None if none were named.
    """

    rows: np.ndarray
    positions: np.ndarray
    logits: torch.Tensor
    end_probability: np.ndarray | None

    def most_probable(self, chosen: np.ndarray) -> Predictions:
        """Return the predictions without noise at some of the positions, given by their indices (n,)."""
        logits = self.logits[torch.from_numpy(chosen).to(self.logits.device)]
        return Predictions(*_most_probable(logits), logits)

    @cached_property
    def log_probs(self) -> torch.Tensor:
        """Log-probabilities, float64 (W, V)."""
        return self.logits.double().log_softmax(-1)


def predict(
    logits: torch.Tensor,
    suppressed: tuple[int, ...],
    temperature: float,
    uniform: Callable[[], torch.Tensor],
    random_confidence: Callable[[], torch.Tensor] | None,
) -> Predictions:
    """Choose a token for every position and rate it.

    The Gumbel noise is that of the reference, exp(logits) / (-log u)^temperature, in logarithms: the same token is
    the largest, and none overflows or divides zero by zero at a high temperature.

    Args:
        logits: (N, V); written to.
        suppressed: ids that are never chosen and take no part in the softmax; ids from V on name nothing.
        temperature: 0 takes the most probable token, larger values add Gumbel noise in float64.
        uniform: draws the noise (N, V), float64 in [0, 1); called only if the temperature is above 0.
        random_confidence: draws (N,) float64 for random remasking; None rates by probability.
    """
    logits = suppress(logits, suppressed)
    if temperature > 0:
        noisy = logits.double().sub(uniform().log_().neg_().log_(), alpha=temperature)
        tokens = noisy.argmax(-1)
        confidence = _probability(logits, tokens)
    else:
        tokens, confidence = _most_probable(logits)
    return Predictions(tokens, confidence if random_confidence is None else random_confidence(), logits)


def guide(logits: torch.Tensor, unconditional: torch.Tensor, scale: float) -> torch.Tensor:
    """Return logits (N, V) with classifier-free guidance: those with the prompt, away from those without it."""
    return unconditional + (scale + 1) * (logits - unconditional)


def suppress(logits: torch.Tensor, suppressed: tuple[int, ...]) -> torch.Tensor:
    """Return logits (N, V) in float32 at least, in which no suppressed id can be chosen; written to, not copied."""
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    known = [token for token in suppressed if token < logits.shape[-1]]
    if known:
        logits[:, known] = -torch.inf
    return logits


def entropy(log_probs: torch.Tensor) -> torch.Tensor:
    """Return the entropy in nats, (N,), of log-probabilities (N, V)."""
    # what is impossible counts 0 x a finite number
    return -(log_probs.exp() * log_probs.clamp(min=torch.finfo(log_probs.dtype).min)).sum(-1)


def commit_details(predictions: Predictions, commit: np.ndarray, alternatives: int) -> dict[str, np.ndarray]:
    """Return entropy (N,) and the K most probable tokens (N, K) at the committed candidates (N,), for a step record."""
    at = torch.from_numpy(commit).to(predictions.logits.device)
    log_probs = predictions.logits[at].log_softmax(-1)
    likely = log_probs.topk(min(alternatives, log_probs.shape[-1]), dim=-1)
    return {
        "entropy": entropy(log_probs).cpu().numpy(),
        "alternative_ids": likely.indices.cpu().numpy(),
        "alternative_probs": likely.values.exp().cpu().numpy(),
    }


def _most_probable(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the most probable token (N,) of logits (N, V) and its softmax (N,), float64, without a float64 vocabulary.

    p = 1 / (1 + rest). The rest of the sum leaves out the token's own 1, so that it keeps all of float32's digits
    where p is next to 1, and only the division needs more of them: the error is that of float32's exp, about 1e-7 of
    p and of 1 - p.
    """
    is_on_cpu = logits.device.type == "cpu"  # where some rows at a time stay in its cache
    rows = max(1, _CACHED_NUMBERS // logits.shape[-1]) if is_on_cpu else max(1, len(logits))
    tokens, confidence = [], []
    # one buffer for all pieces: fresh memory costs more than the arithmetic
    buffer = torch.empty_like(logits[:rows])
    for part in logits.split(rows):
        largest, best = part.max(-1, keepdim=True)
        others = torch.sub(part, largest, out=buffer[: len(part)]).scatter_(-1, best, -torch.inf)
        own = (largest - largest).double().exp()  # 1, or not a number where the logit is not finite
        tokens.append(best[:, 0])
        confidence.append((own / (1 + others.exp_().sum(-1, keepdim=True).double()))[:, 0])
    return torch.cat(tokens), torch.cat(confidence)


def _probability(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Return the softmax of logits (N, V) at any tokens, float64 (N,)."""
    return logits.double().log_softmax(-1).gather(-1, tokens[:, None])[:, 0].exp()

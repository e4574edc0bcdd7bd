"""From the logits of masked positions to what each would become, and how sure that is.

'Low-confidence remasking' (LLaDA, arXiv 2502.09992, section 2.4) means here, as in the reference, that only the
most confident predictions are committed; a committed token is never masked again. N positions, V vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

Uniform = Callable[[], torch.Tensor]  # draws (N, V) float64 in [0, 1), once a call


@dataclass(frozen=True)
class Predictions:
    """What masked positions would become.

    Attributes:
        tokens: int64 (N,), the token each would get.
        confidence: float64 (N,), what the choice of positions goes by.
        log_probs: float64 (N, V), after suppression, before noise.
    """

    tokens: torch.Tensor
    confidence: torch.Tensor
    log_probs: torch.Tensor


def predict(
    logits: torch.Tensor,
    suppressed: tuple[int, ...],
    temperature: float,
    uniform: Uniform,
    random_confidence: Callable[[], torch.Tensor] | None,
) -> Predictions:
    """Choose a token for every position and rate it.

    Args:
        logits: (N, V).
        suppressed: ids that are never chosen; they take no part in the softmax.
        temperature: 0 takes the most probable token, larger values add Gumbel noise in float64.
        uniform: source of the noise; called only if the temperature is above 0.
        random_confidence: draws (N,) float64 for random remasking; None rates by probability.
    """
    logits = logits.double()
    known = [token for token in suppressed if token < logits.shape[-1]]
    if known:
        logits = logits.index_fill(-1, torch.tensor(known, device=logits.device), -torch.inf)
    log_probs = logits.log_softmax(-1)
    noisy = logits.exp() / (-uniform().log()) ** temperature if temperature > 0 else logits
    tokens = noisy.argmax(-1)
    if random_confidence is not None:
        return Predictions(tokens, random_confidence(), log_probs)
    return Predictions(tokens, log_probs.gather(-1, tokens[:, None])[:, 0].exp(), log_probs)


def entropy(log_probs: torch.Tensor) -> torch.Tensor:
    """Entropy in nats of (N, V) log-probabilities, (N,)."""
    return -torch.special.xlogy(log_probs.exp(), log_probs.exp()).sum(-1)

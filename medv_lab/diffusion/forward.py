"""The forward process of masked diffusion and its loss.

Symbols: x0 clean tokens, xt tokens at noise level t, t in [0, 1] the noise level, p the chance that a
position is masked, B batch, T positions, N labelled positions of a row. Knows no model, image or tokenizer.

Source: LLaDA (arXiv 2502.09992), equation 3; the offset of p and the weight 1/(p N) are the reference's.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

P_MIN = 1e-3


@dataclass(frozen=True)
class ForwardNoise:
    """One draw of the forward process.

    Attributes:
        t: noise level of each row, float (B,).
        p_mask: chance that a labelled position of the row is masked, float (B,).
        masked: which positions are masked, bool (B, T).
    """

    t: torch.Tensor
    p_mask: torch.Tensor
    masked: torch.Tensor


def masking_probability(t: torch.Tensor) -> torch.Tensor:
    """Return the chance p = 0.999 t + 0.001: never zero, so that the weight 1/p of the loss is finite."""
    return (1 - P_MIN) * t + P_MIN


def draw_noise(
    labels: torch.Tensor,
    *,
    t: torch.Tensor | None = None,
    generator: torch.Generator | None = None,
    ignore_index: int = -100,
) -> ForwardNoise:
    """Draw which labelled positions are masked.

    The numbers are drawn in the reference's order: (B,) for t, unless it is given, then (B, T) uniforms.

    Args:
        labels: (B, T), `ignore_index` where a position is never masked.
        t: noise levels in [0, 1], float (B,), instead of drawing them.
        generator: source of the numbers, on the labels' device; torch's global one by default.
        ignore_index: the label that marks positions outside of the process.

    Raises:
        ValueError: if `t` has another shape or leaves [0, 1].
    """
    batch, length = labels.shape
    if t is None:
        t = torch.rand(batch, generator=generator, device=labels.device)
    elif t.shape != (batch,) or not bool(((t >= 0) & (t <= 1)).all()):
        raise ValueError(f"t is {t}; give one noise level in [0, 1] for each of the {batch} rows")
    p_mask = masking_probability(t)
    uniform = torch.rand(batch, length, generator=generator, device=labels.device)
    return ForwardNoise(t, p_mask, (uniform < p_mask[:, None]) & (labels != ignore_index))


def mask_tokens(
    x0: torch.Tensor, t: torch.Tensor | float, mask_token_id: int, generator: torch.Generator | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mask token ids at noise level t: each becomes the mask with probability 0.999 t + 0.001, on its own.

    Args:
        x0: clean ids (B, T).
        t: noise level in [0, 1], one number or one per row (B,).
        mask_token_id: the id that replaces a token.
        generator: source of the numbers; torch's global one by default.

    Returns:
        (xt, masked): noised ids (B, T) and the bool mask (B, T) that says where.
    """
    levels = torch.as_tensor(t, dtype=torch.float32, device=x0.device).expand(x0.shape[0])
    masked = draw_noise(x0, t=levels, generator=generator, ignore_index=mask_token_id).masked
    return torch.where(masked, mask_token_id, x0), masked


def masked_cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the cross entropy of masked positions in float32, (M,), of logits (M, V) and labels (M,)."""
    return F.cross_entropy(logits.float(), labels, reduction="none")


def masked_diffusion_loss(
    cross_entropy: torch.Tensor, noise: ForwardNoise, labels: torch.Tensor, ignore_index: int = -100
) -> torch.Tensor:
    """Return (1/B) sum over masked positions of CE / (p N), a scalar.

    Source: LLaDA (arXiv 2502.09992), equation 3; 1 / p makes up for how few tokens are masked at small t, and 1 / N for
    the length of the answer.

    Args:
        cross_entropy: (M,), the masked positions row by row, as `noise.masked` selects them.
        noise: the draw; its p weighs the rows.
        labels: (B, T); N counts those of a row that are not `ignore_index`.
        ignore_index: the label that marks positions outside of the process.
    """
    row = noise.masked.nonzero()[:, 0]  # (M,)
    weight = noise.p_mask * (labels != ignore_index).sum(dim=1)  # (B,)
    return (cross_entropy / weight[row]).sum() / labels.shape[0]

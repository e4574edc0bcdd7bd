"""The sampler as it was published, as plainly as it can be written: what the exact sampler is measured against.

One prompt, everything computed anew in every step: the output layer and a float64 softmax at every position, Gumbel
noise over the whole vocabulary at every position where the temperature asks for it, masked positions found by
comparing embeddings, and the whole answer scanned for stop sequences. Written from observations of the published
code, not from the code; guidance and suffixes are left out. P prompt places, L answer places, T = P + L, V vocabulary.
"""

from collections.abc import Iterator, Sequence

import torch

from medv_lab.config import GenerationSettings
from medv_lab.diffusion.passes import Denoiser
from medv_lab.diffusion.schedule import transfer_counts


@torch.no_grad()
def sample_as_published(
    denoiser: Denoiser,
    prefix_embeds: torch.Tensor,
    settings: GenerationSettings,
    *,
    mask_token_id: int,
    suppressed: tuple[int, ...] = (),
    stop_ids: Sequence[Sequence[int]] = (),
) -> Iterator[torch.Tensor]:
    """Fill the answer step by step.

    Args:
        denoiser, settings, mask_token_id, suppressed, stop_ids: as `diffusion.sampler.sample` takes them.
        prefix_embeds: one prompt (1, P, H).

    Yields:
        The answer's ids (L,) after each step, the mask id where masked.

    Raises:
        ValueError: for several prompts, guidance, a cache, or another strategy than low confidence.
    """
    if len(prefix_embeds) != 1 or settings.cfg_scale > 0 or settings.cache != "none":
        raise ValueError("the published loop is kept for one prompt, without guidance and caches")
    if settings.remasking != "low_confidence" or settings.repetition_guard != "none":
        raise ValueError(
            f"remasking is {settings.remasking!r}; the published loop is kept for low_confidence"
        )
    device, prompt, length = prefix_embeds.device, prefix_embeds.shape[1], settings.gen_length
    mask_embed = denoiser.embed_tokens(torch.tensor(mask_token_id, device=device))
    embeds = torch.cat([prefix_embeds, mask_embed.expand(1, length, -1)], dim=1)  # (1, T, H)
    ids = torch.full((1, prompt + length), mask_token_id, device=device)
    generator = torch.Generator(device).manual_seed(settings.seed)
    end = length
    for block in range(settings.num_blocks):
        last = prompt + (block + 1) * settings.block_length
        first = last - settings.block_length
        counts = transfer_counts(settings.block_length, settings.steps_per_block)
        for count in counts:
            masked = (embeds == mask_embed).all(-1)
            if not masked[0, first:last].any() or (
                end < length and not masked[0, prompt : prompt + end].any()
            ):
                break
            logits = denoiser.head(denoiser.body(embeds))  # (1, T, V)
            known = [token for token in suppressed if token < logits.shape[-1]]
            logits[..., known] = torch.where(masked[..., None], -torch.inf, logits[..., known])
            noisy = logits
            if settings.temperature > 0:
                noise = torch.rand(logits.shape, dtype=torch.float64, generator=generator, device=device)
                noisy = logits.double().exp() / (-noise.log()) ** settings.temperature
            chosen = noisy.argmax(-1)
            probabilities = logits.double().softmax(-1)
            confidence = probabilities.gather(-1, chosen[..., None])[..., 0]
            confidence = torch.where(masked, confidence, -torch.inf)
            confidence[:, last:] = -torch.inf
            confidence[:, prompt + end :] = -torch.inf
            best = confidence[0].topk(count).indices
            best = best[confidence[0, best] > -torch.inf]
            ids[0, best] = chosen[0, best]
            embeds[0, best] = denoiser.embed_tokens(chosen[0, best])
            end = min(end, _find_stop(ids[0, prompt:].tolist(), stop_ids, end < length))
            yield ids[0, prompt:].clone()


def _find_stop(answer: list[int], stop_ids: Sequence[Sequence[int]], is_known: bool) -> int:
    """Where the first stop sequence stands, L if nowhere; once one is known only the first of the list is searched."""
    found = len(answer)
    for stop in stop_ids[:1] if is_known else stop_ids:
        for start in range(len(answer) - len(stop) + 1):
            if answer[start : start + len(stop)] == list(stop):
                found = min(found, start)
                break
    return found

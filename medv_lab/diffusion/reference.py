"""The algorithm, as plainly as it can be written: what the sampler is tested against and measured against.

Algorithm 1 of LLaDA-MedV (arXiv 2508.01617), with the costs of the published code: everything is computed anew in
every step, the output layer and a float64 softmax at every position, Gumbel noise over the whole vocabulary at every
position if the temperature is above 0, masks found by comparing embeddings, and the whole answer scanned for stop
sequences. Written from the observed behaviour of the published code, of whose source nothing was used; guidance and
suffixes are left out.

L, B, Z answer length, block length, steps; P prompt, T = P + L, H hidden size, V vocabulary.
"""

from collections.abc import Iterator, Sequence

import torch

from medv_lab.config import GenerationSettings, LowConfidence, NoCache, NoGuard
from medv_lab.diffusion.forward_runner import Denoiser
from medv_lab.strategies.schedule import transfer_counts


@torch.no_grad()
def sample_reference(
    denoiser: Denoiser,
    prefix_embeds: torch.Tensor,
    settings: GenerationSettings,
    *,
    mask_token_id: int,
    suppressed: tuple[int, ...] = (),
    stop_ids: Sequence[Sequence[int]] = (),
    start_ids: torch.Tensor | None = None,
) -> Iterator[torch.Tensor]:
    """Fill the answer step by step.

    Args:
        denoiser, settings, mask_token_id, suppressed, stop_ids: as `diffusion.sampler.sample` takes them.
        prefix_embeds: one prompt (1, P, H).
        start_ids: the answer to start from (1, L), with the mask where a token is wanted; all masks by default.

    Yields:
        The answer's ids (L,) after each step, the mask id where masked.

    Raises:
        ValueError: for several prompts, guidance, a guard, a cache, or another strategy than low confidence.
    """
    choices = (settings.remasking, settings.guard, settings.cache)
    if (
        choices != (LowConfidence(), NoGuard(), NoCache())
        or settings.cfg_scale > 0
        or len(prefix_embeds) != 1
    ):
        given = ", ".join(one.name for one in choices)
        raise ValueError(
            f"remasking, guard and cache are {given}, cfg_scale is {settings.cfg_scale}, and there are "
            f"{len(prefix_embeds)} prompts; the reference is low_confidence for one prompt, without the others"
        )
    device, P, L, B = prefix_embeds.device, prefix_embeds.shape[1], settings.gen_length, settings.block_length
    generator = torch.Generator(device).manual_seed(settings.seed)

    # x_1, fully noised. The prompt is known only by its embeddings: x means something from index P on.
    mask_embed = denoiser.embed_tokens(torch.tensor(mask_token_id, device=device))  # (H,)
    x_embeds = torch.cat([prefix_embeds, mask_embed.expand(1, L, -1)], dim=1)  # (1, T, H)
    x = torch.full((1, P + L), mask_token_id, device=device)  # (1, T)
    end = L  # where the answer ends
    least = 0  # and where it may end

    # Infilling: given tokens stand from the first step on, and belong to the answer unless they end it themselves.
    if start_ids is not None:
        x[:, P:] = start_ids
        x_embeds[:, P:] = denoiser.embed_tokens(start_ids)
        end = _find_stop(x[0, P:].tolist(), stop_ids, False)
        given = (start_ids[0, :end] != mask_token_id).nonzero()
        least = int(given.max()) + 1 if len(given) else 0
    first_end = end

    for block in range(L // B):
        first, last = P + block * B, P + (block + 1) * B
        is_open = (x[0, first:last] == mask_token_id) & (
            torch.arange(first, last, device=device) < P + first_end
        )
        for num_transfer in transfer_counts(int(is_open.sum()), settings.steps_per_block):
            mask_index = (x_embeds == mask_embed).all(-1)  # (1, T)
            has_ended = end < L and not mask_index[0, P : P + end].any()
            if has_ended or not mask_index[0, first:last].any():
                break

            # Predict x0, a token for every position; with Gumbel noise if the temperature is above 0.
            logits = denoiser.head(denoiser.backbone(x_embeds))  # (1, T, V)
            known = [token for token in suppressed if token < logits.shape[-1]]
            logits[..., known] = torch.where(mask_index[..., None], -torch.inf, logits[..., known])
            noisy = logits
            if settings.temperature > 0:
                noise = torch.rand(logits.shape, dtype=torch.float64, generator=generator, device=device)
                noisy = logits.double().exp() / (-noise.log()) ** settings.temperature
            x0 = noisy.argmax(-1)  # (1, T)

            # Confidence: the probability of x0, nowhere but at masks up to the end of the block and of the answer.
            confidence = logits.double().softmax(-1).gather(-1, x0[..., None])[..., 0]  # (1, T)
            confidence = torch.where(mask_index, confidence, -torch.inf)
            confidence[:, last:] = -torch.inf
            confidence[:, P + end :] = -torch.inf

            # Keep the most confident predictions; all others stay masked ("low-confidence remasking").
            keep = confidence[0].topk(num_transfer).indices
            keep = keep[confidence[0, keep] > -torch.inf]
            x[0, keep] = x0[0, keep]
            x_embeds[0, keep] = denoiser.embed_tokens(x0[0, keep])

            end = min(end, _find_stop(x[0, P:].tolist(), stop_ids, end < L, least))
            yield x[0, P:].clone()


def _find_stop(answer: list[int], stop_ids: Sequence[Sequence[int]], is_known: bool, least: int = 0) -> int:
    """Return where the first stop of the list that is there stands, `least` or later, L if none does.

    Once one is known only the first of the list is searched.
    """
    for stop in stop_ids[:1] if is_known else stop_ids:
        for start in range(least, len(answer) - len(stop) + 1):
            if answer[start : start + len(stop)] == list(stop):
                return start
    return len(answer)

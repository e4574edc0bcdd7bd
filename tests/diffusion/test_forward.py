import math

import pytest
import torch

from medv_lab.diffusion.forward import draw_noise, mask_tokens, masked_cross_entropy, masked_diffusion_loss

LABELS = torch.tensor([[-100, 4, 5, 6], [1, 2, -100, -100]])


def test_only_labelled_positions_are_masked():
    noise = draw_noise(LABELS, t=torch.ones(2))
    assert torch.equal(noise.masked, LABELS != -100)
    assert torch.equal(noise.p_mask, torch.ones(2))


def test_share_of_masks_follows_t():
    torch.manual_seed(0)
    labels = torch.zeros(3, 20000, dtype=torch.long)
    t = torch.tensor([0.0, 0.3, 0.8])
    share = draw_noise(labels, t=t).masked.float().mean(dim=1)
    torch.testing.assert_close(share, 0.999 * t + 0.001, rtol=0, atol=0.02)


def test_generator_makes_the_draw_repeatable():
    first, second = (draw_noise(LABELS, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first.t, second.t)
    assert torch.equal(first.masked, second.masked)


@pytest.mark.parametrize("t", [torch.tensor([0.5]), torch.tensor([0.5, 1.5]), torch.tensor([-0.1, 0.5])])
def test_wrong_noise_levels_are_refused(t):
    with pytest.raises(ValueError, match=r"one noise level in \[0, 1\] for each of the 2 rows"):
        draw_noise(LABELS, t=t)


def test_loss_weighs_rows_by_their_probability_and_labels():
    noise = draw_noise(LABELS, t=torch.ones(2))
    ce = masked_cross_entropy(torch.zeros(5, 10), LABELS[noise.masked])
    loss = masked_diffusion_loss(ce, noise, LABELS)
    assert loss.item() == pytest.approx(math.log(10))  # each row averages to log V at p = 1
    ce[:3] = 0
    assert masked_diffusion_loss(ce, noise, LABELS).item() == pytest.approx(math.log(10) / 2)


def test_nothing_masked_gives_zero_with_a_gradient():
    noise = draw_noise(torch.full((1, 3), -100), t=torch.zeros(1))
    logits = torch.zeros(0, 10, requires_grad=True)
    ce = masked_cross_entropy(logits, torch.zeros(0, dtype=torch.long))
    loss = masked_diffusion_loss(ce, noise, torch.full((1, 3), -100))
    loss.backward()
    assert loss.item() == 0


def test_mask_tokens_replaces_exactly_the_masked_positions():
    x0 = torch.arange(10, 30).view(2, 10)
    xt, masked = mask_tokens(x0, 0.5, 99, torch.Generator().manual_seed(0))
    assert torch.equal(xt == 99, masked)
    assert torch.equal(xt[~masked], x0[~masked])
    assert 0 < masked.sum() < x0.numel()

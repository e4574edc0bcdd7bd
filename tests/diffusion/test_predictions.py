"""What masked positions become, and how confident that is."""

import numpy as np
import pytest
import torch

from medv_lab.diffusion.predictions import entropy, predict

LOGITS = torch.randn(40, 30, generator=torch.Generator().manual_seed(1)) * 3


def uniform():
    return torch.rand(40, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def no_draw():
    raise AssertionError("nothing is to be drawn")


def test_the_confidence_is_the_probability_of_the_token_among_those_allowed():
    predictions = predict(LOGITS.clone(), (3, 4), 0.0, no_draw, None)
    allowed = LOGITS.double()
    allowed[:, [3, 4]] = -torch.inf
    expected = allowed.softmax(-1).max(-1)
    assert torch.equal(predictions.tokens, expected.indices)
    torch.testing.assert_close(predictions.confidence, expected.values)


@pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
def test_without_a_float64_softmax_the_confidence_keeps_its_digits_also_next_to_one(scale):
    logits = torch.randn(12, 20_000, generator=torch.Generator().manual_seed(3)) * scale
    logits[torch.arange(12), 7] += torch.linspace(0, 60, 12)
    exact = logits.double().softmax(-1)
    predictions = predict(logits.clone(), (), 0.0, no_draw, None)
    chosen, tokens = exact.max(-1)
    assert torch.equal(predictions.tokens, tokens)
    torch.testing.assert_close(predictions.confidence, chosen, rtol=1e-6, atol=0)
    doubt = exact.scatter(-1, tokens[:, None], 0.0).sum(-1)
    torch.testing.assert_close(1 - predictions.confidence, doubt, rtol=1e-5, atol=1e-15)
    assert torch.equal(predictions.confidence.argsort(), chosen.argsort())
    torch.testing.assert_close(predictions.log_probs.exp(), exact)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_coarse_logits_are_rated_in_float32(dtype):
    coarse = LOGITS.to(dtype)
    ours, theirs = (
        predict(coarse.clone(), (), 0.0, no_draw, None),
        predict(coarse.float(), (), 0.0, no_draw, None),
    )
    assert torch.equal(ours.confidence, theirs.confidence)
    assert torch.equal(ours.tokens, theirs.tokens)


@pytest.mark.parametrize("temperature", [0.2, 0.7, 1.0, 3.0])
def test_noise_takes_the_token_that_the_published_formula_takes(temperature):
    predictions = predict(LOGITS.clone(), (), temperature, uniform, None)
    expected = (LOGITS.double().exp() / (-uniform().log()) ** temperature).argmax(-1)
    assert torch.equal(predictions.tokens, expected)
    assert not torch.equal(predictions.tokens, LOGITS.argmax(-1))


def test_at_temperature_one_tokens_come_as_often_as_their_probability_says():
    logits = torch.tensor([0.5, 0.3, 0.2]).log().expand(20000, 3)
    torch.manual_seed(0)
    tokens = predict(logits, (), 1.0, lambda: torch.rand(20000, 3, dtype=torch.float64), None).tokens
    share = torch.bincount(tokens, minlength=3) / 20000
    torch.testing.assert_close(share, torch.tensor([0.5, 0.3, 0.2]), rtol=0, atol=0.015)


def test_suppressed_tokens_stay_out_at_any_temperature_and_draw():
    smallest_and_largest = torch.tensor([2**-53, 1 - 2**-53], dtype=torch.float64)
    edge = smallest_and_largest.repeat_interleave(20)[:, None].repeat(1, 30)
    for temperature in (0.5, 40.0):
        for draw in (uniform, edge.clone):
            tokens = predict(LOGITS.clone(), tuple(range(29)), temperature, draw, None).tokens
            assert set(tokens.tolist()) <= {29}


def test_suppressed_ids_outside_of_a_cut_vocabulary_name_nothing():
    assert torch.equal(
        predict(LOGITS.clone(), (30, 99), 0.0, no_draw, None).tokens,
        predict(LOGITS.clone(), (), 0.0, no_draw, None).tokens,
    )


def test_random_remasking_rates_by_the_draw():
    drawn = torch.arange(40) / 40
    predictions = predict(LOGITS.clone(), (), 0.0, no_draw, lambda: drawn)
    assert torch.equal(predictions.confidence, drawn)
    assert torch.equal(predictions.tokens, LOGITS.argmax(-1))


def test_entropy_is_that_of_the_distribution_and_survives_impossible_tokens():
    probabilities = torch.tensor([[0.25, 0.25, 0.25, 0.25], [1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    np.testing.assert_allclose(entropy(probabilities.log()), [np.log(4), 0], atol=1e-12)

"""Levels cover [t_min, 1]; the draws do not depend on the number of processes."""

import pytest
import torch
from medv_lab.training.noise import NoiseSource, stratified_levels

from medv_lab.diffusion.forward import draw_noise


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_levels_cover_every_part_once():
    levels = stratified_levels(64, 0.3, generator())
    strata = ((levels - 0.3) / (1 - 0.3) * 64).floor().int()
    assert sorted(strata.tolist()) == list(range(64))
    assert levels.tolist() != sorted(levels.tolist())


def test_uniform_draws_are_the_reference_s():
    labels = (
        torch.arange(30).reshape(3, 10).masked_fill(torch.rand(3, 10, generator=generator(1)) < 0.3, -100)
    )
    noise = NoiseSource("uniform", 0, generator(2), -100)(labels)
    expected = draw_noise(labels, generator=generator(2))
    assert torch.equal(noise.masked, expected.masked)
    assert torch.equal(noise.p_mask, expected.p_mask)


@pytest.mark.parametrize("levels", ["uniform", "stratified"])
def test_every_process_takes_its_rows_of_one_draw(monkeypatch, levels):
    lengths, rows = (7, 9), 3
    whole = NoiseSource(levels, 0, generator(), -100)(torch.zeros(2 * rows, max(lengths), dtype=torch.long))
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    monkeypatch.setattr("torch.distributed.all_reduce", lambda tensor, op: tensor.fill_(max(lengths)))
    for process, length in enumerate(lengths):
        monkeypatch.setattr("torch.distributed.get_rank", lambda process=process: process)
        own = NoiseSource(levels, 0, generator(), -100)(torch.zeros(rows, length, dtype=torch.long))
        part = slice(process * rows, (process + 1) * rows)
        assert torch.equal(own.t, whole.t[part])
        assert torch.equal(own.masked, whole.masked[part, :length])

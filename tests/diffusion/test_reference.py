"""The algorithm, written plainly, gives what the exact sampler gives, pass by pass."""

from dataclasses import replace

import pytest

from medv_lab.diffusion.reference import sample_reference
from tests.diffusion.toy import MASK, SETTINGS, STOP, Toy, prompts, run


@pytest.mark.parametrize(
    "variation",
    [{}, {"steps": 4}, {"steps": 24}, {"temperature": 0.7, "noise": "reference", "seed": 3}],
    ids=str,
)
@pytest.mark.parametrize("stops", [[], [[STOP]], [[STOP], [4, 5], [7]]], ids=["free", "stop", "stops"])
def test_it_is_the_exact_sampler(variation, stops):
    settings, (ids, mask) = replace(SETTINGS, **variation), prompts(4)
    ended = 0
    for row in range(len(ids)):
        own = ids[row : row + 1, mask[row].bool()]
        records = run(Toy(), own, None, settings, stops=stops, suppressed=(2, 99))
        toy = Toy()
        published = list(
            sample_reference(
                toy, toy.embed_tokens(own), settings, mask_token_id=MASK, suppressed=(2, 99), stop_ids=stops
            )
        )
        assert [ids.tolist() for ids in published] == [record.canvas[0].tolist() for record in records]
        ended += records[-1].stops[0] < settings.gen_length
    assert ended > 0 or not stops


@pytest.mark.parametrize(
    "change",
    [{"cfg_scale": 1.0}, {"cache": "dual"}, {"remasking": "random"}, {"guard": "spread"}],
    ids=str,
)
def test_what_it_does_not_do_is_refused(change):
    toy, (ids, _) = Toy(), prompts(1)
    with pytest.raises(ValueError, match="the reference is low_confidence for one"):
        next(sample_reference(toy, toy.embed_tokens(ids), replace(SETTINGS, **change), mask_token_id=MASK))

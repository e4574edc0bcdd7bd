import pytest

from medv_lab.strategies.schedule import transfer_counts


@pytest.mark.parametrize(("masked", "steps"), [(0, 3), (5, 5), (8, 3), (3, 8), (64, 7)])
def test_transfer_counts_sum_to_the_masked_positions(masked, steps):
    counts = transfer_counts(masked, steps)
    assert sum(counts) == masked
    assert len(counts) == steps
    assert counts == sorted(counts, reverse=True)
    assert max(counts) - min(counts) <= 1


def test_impossible_counts_are_refused():
    with pytest.raises(ValueError, match="steps 0"):
        transfer_counts(3, 0)
    with pytest.raises(ValueError, match="masked is -1"):
        transfer_counts(-1, 2)

"""Settings that go together: the explorer offers these, so that nothing else can be chosen. L, B, Z as in `config`."""

from medv_lab.config import REFERENCE_SUPPRESSION
from medv_lab.strategies.base import Cache, Guard, Strategy

LENGTHS = (8, 16, 32, 48, 64, 96, 128, 192, 256, 512)


def lengths(most: int | None = None) -> tuple[int, ...]:
    """Return the L that are offered, rising; no longer than `most`."""
    return tuple(length for length in LENGTHS if most is None or length <= most) or (most,)


def block_lengths(gen_length: int, is_growing: bool = False) -> tuple[int, ...]:
    """Return every B that divides L, rising; L alone for an answer that grows."""
    if is_growing:
        return (gen_length,)
    return tuple(block for block in range(1, gen_length + 1) if gen_length % block == 0)


def step_counts(gen_length: int, block_length: int) -> tuple[int, ...]:
    """Return every Z up to L that gives all blocks equally many passes, rising."""
    blocks = gen_length // block_length
    return tuple(range(blocks, gen_length + 1, blocks))


def most_passes(strategy: Strategy, gen_length: int, steps: int) -> int | None:
    """Return the `max_passes` that a chosen Z stands for: Z where the strategy does not read it and it is below L."""
    is_capped = strategy.is_adaptive and not strategy.is_growing and steps < gen_length
    return steps if is_capped else None


def settle_lengths(
    gen_length: int, block_length: int, steps: int, before: int | None = None, is_growing: bool = False
) -> tuple[int, int]:
    """Return the valid (B, Z) closest to what was set for the length `before`, for an L that was just chosen.

    B stays if it divides L, else the closest divisor is taken, of two the smaller; Z keeps its share of L.
    """
    block = _closest(block_lengths(gen_length, is_growing), min(block_length, gen_length))
    target = steps * gen_length / (before or gen_length)
    return block, _closest(step_counts(gen_length, block), target)


def guards(strategy: Strategy) -> tuple[str, ...]:
    """Return the names of the guards that a strategy can have."""
    return ("none",) if strategy.is_revising or strategy.is_growing else tuple(Guard.known)


def caches(strategy: Strategy, record_attention: bool) -> tuple[str, ...]:
    """Return the names of the caches that a strategy can have; attention is recorded without any."""
    is_uncached = strategy.verifies or strategy.is_growing or record_attention
    return ("none",) if is_uncached else tuple(Cache.known)


def read_stops(text: str) -> tuple[str, ...]:
    """Read stop texts from a line, separated by commas; none from an empty line."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def read_suppressed(text: str) -> str | tuple[int, ...]:
    """Read suppressed tokens: "reference", ids separated by commas, or nothing for none.

    Raises:
        ValueError: for anything else.
    """
    text = text.strip()
    if text == REFERENCE_SUPPRESSION:
        return text
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isdecimal() for part in parts):
        raise ValueError(
            f"suppressed tokens are {text!r}; give {REFERENCE_SUPPRESSION!r}, ids such as '1, 5', or nothing"
        )
    return tuple(map(int, parts))


def _closest(options: tuple[int, ...], target: float) -> int:
    return min(options, key=lambda option: (abs(option - target), option))

"""Which settings go together: what the explorer offers, so that nothing else can be chosen. L, B, Z as in `config`."""

from dataclasses import fields

from medv_lab.config import (
    CACHES,
    GROWING,
    REFERENCE_SUPPRESSION,
    REMASKING,
    REPETITION_GUARDS,
    REVISING,
    GenerationSettings,
)

LENGTHS = (8, 16, 32, 48, 64, 96, 128, 192, 256, 512)


def lengths(most: int | None = None) -> tuple[int, ...]:
    """The L that are offered, rising; no longer than `most`."""
    return tuple(length for length in LENGTHS if most is None or length <= most) or (most,)


def block_lengths(gen_length: int, is_growing: bool = False) -> tuple[int, ...]:
    """Every B that divides L, rising; L alone for an answer that grows."""
    if is_growing:
        return (gen_length,)
    return tuple(block for block in range(1, gen_length + 1) if gen_length % block == 0)


def step_counts(gen_length: int, block_length: int) -> tuple[int, ...]:
    """Every Z up to L that gives all blocks equally many passes, rising."""
    blocks = gen_length // block_length
    return tuple(range(blocks, gen_length + 1, blocks))


def settle_lengths(
    gen_length: int, block_length: int, steps: int, before: int | None = None, is_growing: bool = False
) -> tuple[int, int, int]:
    """The valid (L, B, Z) closest to what was set, for the L that was just chosen.

    B stays if it divides L, else the closest divisor is taken, of two the smaller; Z keeps its share of L.

    Args:
        gen_length: L, which is kept.
        block_length, steps: B and Z as they stand.
        before: the L that they were set for; the same by default.
        is_growing: whether the answer grows.
    """
    block = _closest(block_lengths(gen_length, is_growing), min(block_length, gen_length))
    wanted = steps * gen_length / (before or gen_length)
    return gen_length, block, _closest(step_counts(gen_length, block), wanted)


def guards(remasking: str) -> tuple[str, ...]:
    """The repetition guards that a strategy can have."""
    return ("none",) if remasking in (*REVISING, *GROWING) else tuple(REPETITION_GUARDS)


def caches(remasking: str, record_attention: bool) -> tuple[str, ...]:
    """The caches that a strategy can have; attention is recorded without any."""
    return ("none",) if remasking in ("wino", *GROWING) or record_attention else CACHES


def parameters(remasking: str, guard: str) -> dict[str, float]:
    """The parameters that a strategy and a guard read, with their defaults."""
    return {**REMASKING[remasking], **REPETITION_GUARDS[guard]}


def read_stops(text: str) -> tuple[str, ...]:
    """Stop texts of a line, separated by commas; none for an empty line."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def read_suppressed(text: str) -> str | tuple[int, ...]:
    """What is never predicted: "reference", ids separated by commas, or nothing.

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


def changed_settings(settings: GenerationSettings) -> dict[str, object]:
    """The settings that are not the defaults, L, B and Z always."""
    default = GenerationSettings()
    values = {field.name: getattr(settings, field.name) for field in fields(settings)}
    always = ("gen_length", "block_length", "steps")
    return {
        name: value for name, value in values.items() if name in always or value != getattr(default, name)
    }


def _closest(options: tuple[int, ...], wanted: float) -> int:
    return min(options, key=lambda option: (abs(option - wanted), option))

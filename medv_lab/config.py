"""Settings of a generation, checked when they are made; L, B, Z are the paper's symbols.

L = gen_length (answer positions), B = block_length (positions filled before the next block starts),
Z = steps (forward passes in all, Z B / L of them a block).
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from math import isqrt
from sys import float_info
from typing import Any

# Strategy: the settings that only it reads, with their defaults.
REMASKING: Mapping[str, Mapping[str, float]] = {
    "low_confidence": {},
    "random": {},
    "entropy": {},
    "margin": {},
    "position": {"position_decay": 0.25},
    "threshold": {"threshold": 0.9},
    "factor": {"factor": 1.0},
    "entropy_bound": {"entropy_bound": 0.1},
    "kl_stability": {"threshold": 0.9, "kl_bound": 0.01, "stable_passes": 2},
    "remdm": {"remask_cap": 0.04},
    "wino": {"threshold": 0.6, "verify_threshold": 0.9},
    "revise_duplicates": {"revisions": 1},
    "daedal": {
        "threshold": 0.9,
        "unsure_threshold": 0.1,
        "end_threshold": 0.5,
        "expand_threshold": 0.9,
        "end_window": 32,
        "growth": 8,
        "max_length": 256,
    },
}
GROWING = ("daedal",)
REVISING = ("remdm", "wino", "revise_duplicates")
# Guard against repetition: likewise.
REPETITION_GUARDS: Mapping[str, Mapping[str, float]] = {
    "none": {},
    "penalty": {"repetition_penalty": 0.5},
    "one_of_run": {},
    "spread": {"spacing": 4},
}
# Parameter: type, least and most value.
PARAMETERS: Mapping[str, tuple[type, float, float]] = {
    "threshold": (float, 0, 1),
    "factor": (float, 0, float_info.max),
    "entropy_bound": (float, 0, float_info.max),
    "kl_bound": (float, 0, float_info.max),
    "stable_passes": (int, 1, 2**31),
    "position_decay": (float, 0, float_info.max),
    "remask_cap": (float, 0, 1),
    "verify_threshold": (float, 0, 1),
    "revisions": (int, 1, 2**31),
    "repetition_penalty": (float, 0, float_info.max),
    "spacing": (int, 1, 2**31),
    "unsure_threshold": (float, 0, 1),
    "end_threshold": (float, 0, 1),
    "expand_threshold": (float, 0, 1),
    "end_window": (int, 1, 2**31),
    "growth": (int, 2, 2**31),
    "max_length": (int, 1, 2**31),
}
CACHES = ("none", "prefix", "dual", "image")
NOISE = ("masked", "reference")
REFERENCE_SUPPRESSION = "reference"
MAX_SEED = 2**63 - 1
MAX_DIVISOR_SEARCH = 100_000  # keeps the message about absurd lengths quick


class SettingsError(ValueError):
    """Settings that no run can have; the text says what was given, what is allowed and what to do."""


@dataclass(frozen=True)
class GenerationSettings:
    """How an answer is generated; vary it with `dataclasses.replace`.

    Attributes:
        gen_length: L, positions of the answer; where it may grow ("daedal"), those that it starts with.
        block_length: B, a divisor of L.
        steps: Z, a multiple of L / B; more than L is allowed, since a full block ends early.
        temperature: of the Gumbel noise on the logits; 0 takes the most probable token.
        remasking: the strategy, which says what each pass commits and revokes. "low_confidence" and "random" are
            exact; `diffusion.strategies` and `diffusion.revision` describe all. Those that choose how many to
            commit, or revoke, need at most Z passes.
        cache: what of a pass is kept for the next; only "none" is exact; `diffusion.cache` describes all.
        cache_refresh: compute everything every so many passes of a block; None only in its first pass.
        repetition_guard: keeps a pass from committing equal tokens side by side; `diffusion.repetition`.
        threshold, factor, entropy_bound, kl_bound, stable_passes, position_decay, remask_cap, verify_threshold,
            revisions, repetition_penalty, spacing, unsure_threshold, end_threshold, expand_threshold, end_window,
            growth, max_length: parameters of single strategies and guards; None for the
            default in `REMASKING` or `REPETITION_GUARDS`, an error where nothing reads them.
        cfg_scale: weight of classifier-free guidance; 0 switches it off.
        suppressed_tokens: ids never predicted, or "reference": end of text, start of text, both headers.
        stop: texts before which the answer ends.
        suffix: text that follows the answer positions and is seen while they are filled.
        seed: of all draws.
        noise: "masked" draws noise where it is used; "reference" for every position and the whole vocabulary
            at each step, which reproduces the published sampler's draws.
        alternatives: how many of the most probable tokens a trace keeps for each commit.

    Raises:
        SettingsError: for a wrong type or value.
    """

    gen_length: int = 64
    block_length: int = 32
    steps: int = 64
    temperature: float = 0.0
    remasking: str = "low_confidence"
    cfg_scale: float = 0.0
    suppressed_tokens: str | tuple[int, ...] = REFERENCE_SUPPRESSION
    stop: tuple[str, ...] = ("<|eot_id|>",)
    suffix: str = ""
    seed: int = 0
    noise: str = "masked"
    alternatives: int = 5
    cache: str = "none"
    cache_refresh: int | None = None
    repetition_guard: str = "none"
    threshold: float | None = None
    factor: float | None = None
    entropy_bound: float | None = None
    kl_bound: float | None = None
    stable_passes: int | None = None
    position_decay: float | None = None
    remask_cap: float | None = None
    verify_threshold: float | None = None
    revisions: int | None = None
    repetition_penalty: float | None = None
    spacing: int | None = None
    unsure_threshold: float | None = None
    end_threshold: float | None = None
    expand_threshold: float | None = None
    end_window: int | None = None
    growth: int | None = None
    max_length: int | None = None

    def __post_init__(self) -> None:
        for name in ("gen_length", "block_length", "steps"):
            _require_int(name, getattr(self, name), 1)
        _require_int("seed", self.seed, 0, MAX_SEED)
        _require_int("alternatives", self.alternatives, 1)
        for name in ("temperature", "cfg_scale"):
            _require_number(name, getattr(self, name))
        for name, allowed in (
            ("remasking", REMASKING),
            ("repetition_guard", REPETITION_GUARDS),
            ("noise", NOISE),
            ("cache", CACHES),
        ):
            value = getattr(self, name)
            if not isinstance(value, str) or value not in allowed:
                raise SettingsError(f"{name} is {value!r}; allowed are {', '.join(allowed)}")
        self._check_parameters()
        self._check_cache()
        self._check_lengths()
        self._check_texts()

    def _check_parameters(self) -> None:
        if self.remasking in (*REVISING, *GROWING) and self.repetition_guard != "none":
            raise SettingsError(
                f"repetition_guard is {self.repetition_guard!r}, but remasking {self.remasking!r} chooses without one; "
                f"give 'none', or a strategy that only commits (not {', '.join((*REVISING, *GROWING))})"
            )
        read = self._defaults()
        for name, (kind, least, most) in PARAMETERS.items():
            value = getattr(self, name)
            if value is None:
                continue
            if name not in read:
                readers = [
                    repr(choice)
                    for table in (REMASKING, REPETITION_GUARDS)
                    for choice, parameters in table.items()
                    if name in parameters
                ]
                raise SettingsError(
                    f"{name} is {value!r}, but remasking {self.remasking!r} with repetition_guard "
                    f"{self.repetition_guard!r} does not read it; leave it out, or choose {' or '.join(readers)}"
                )
            if kind is int:
                _require_int(name, value, int(least), int(most))
            else:
                _require_number(name, value, most)

    def _defaults(self) -> dict[str, float]:
        return {**REMASKING[self.remasking], **REPETITION_GUARDS[self.repetition_guard]}

    def parameter(self, name: str) -> float:
        """A parameter of the chosen strategy or guard: as it was set, or its default.

        Raises:
            KeyError: if the chosen ones do not read it.
        """
        default, value = self._defaults()[name], getattr(self, name)
        return default if value is None else value

    def _check_cache(self) -> None:
        if self.cache_refresh is not None:
            _require_int("cache_refresh", self.cache_refresh, 1)
            if self.cache == "none":
                raise SettingsError(
                    f"cache_refresh is {self.cache_refresh}, but cache 'none' keeps nothing; leave it out, "
                    "or choose a cache"
                )
        if self.cache != "none" and self.remasking in ("wino", *GROWING):
            raise SettingsError(
                f"cache is {self.cache!r}, but remasking {self.remasking!r} computes places that no cache has; "
                "give 'none'"
            )

    def _check_lengths(self) -> None:
        length, block, steps = self.gen_length, self.block_length, self.steps
        if length % block:
            low = range(1, min(isqrt(length), MAX_DIVISOR_SEARCH) + 1)
            divisors = {b for d in low if length % d == 0 for b in (d, length // d)}
            near = sorted(divisors, key=lambda b: abs(b - block))[:3]
            raise SettingsError(
                f"gen_length {length} is not divisible by block_length {block}; give a block_length that divides it, "
                f"near are {', '.join(map(str, sorted(near)))}"
            )
        blocks = length // block
        if steps % blocks:
            low = max(blocks, steps // blocks * blocks)
            raise SettingsError(
                f"steps {steps} is not divisible by the {blocks} blocks (gen_length {length} / block_length {block}); "
                f"give a multiple of {blocks}, near are {low} or {low + blocks}"
            )
        if self.remasking in GROWING and (blocks > 1 or length > self.parameter("max_length")):
            raise SettingsError(
                f"gen_length is {length}, block_length {block} and max_length {self.parameter('max_length')}, but "
                f"{self.remasking!r} grows one block from gen_length to max_length; give block_length = gen_length, "
                "and max_length as large or larger"
            )

    def _check_texts(self) -> None:
        if not isinstance(self.stop, tuple) or not all(isinstance(text, str) for text in self.stop):
            raise SettingsError(f"stop is {self.stop!r}; give a tuple of texts, e.g. ('<|eot_id|>',), or ()")
        if not isinstance(self.suffix, str):
            raise SettingsError(f"suffix is {self.suffix!r}; give a text, or ''")
        tokens = self.suppressed_tokens
        is_ids = isinstance(tokens, tuple) and all(type(token) is int and token >= 0 for token in tokens)
        is_reference = isinstance(tokens, str) and tokens == REFERENCE_SUPPRESSION
        if not is_ids and not is_reference:
            raise SettingsError(
                f"suppressed_tokens is {tokens!r}; give 'reference' or a tuple of token ids, () for none"
            )

    @property
    def L(self) -> int:
        """gen_length."""
        return self.gen_length

    @property
    def B(self) -> int:
        """block_length."""
        return self.block_length

    @property
    def Z(self) -> int:
        """Steps."""
        return self.steps

    @property
    def num_blocks(self) -> int:
        """L / B."""
        return self.gen_length // self.block_length

    @property
    def steps_per_block(self) -> int:
        """Z B / L."""
        return self.steps // self.num_blocks

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON holds them; `from_dict` reads them back."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "GenerationSettings":
        """Settings from a mapping, e.g. of a manifest; lists become tuples.

        Raises:
            SettingsError: for an unknown name (the closest known one is suggested) or a wrong value.
        """
        if not isinstance(values, Mapping):
            raise SettingsError(f"settings are {values!r}; give a mapping from names to values")
        known = [field.name for field in fields(cls)]
        for name in values:
            if name not in known:
                close = get_close_matches(str(name), known, n=1)
                hint = f"did you mean {close[0]}? " if close else ""
                raise SettingsError(f"unknown setting {name!r}; {hint}allowed are {', '.join(known)}")
        return cls(
            **{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        )


def _require_int(name: str, value: Any, least: int, most: int | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise SettingsError(f"{name} is {value!r}; give a whole number, {least} or larger")
    if most is not None and value > most:
        raise SettingsError(f"{name} is {value!r}; give a whole number from {least} to {most}")


def _require_number(name: str, value: Any, most: float = float_info.max) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= most:  # NaN is in no range
        allowed = "0 or larger" if most == float_info.max else f"from 0 to {most}"
        raise SettingsError(f"{name} is {value!r}; give a number, {allowed}")


PRESETS = {
    "paper-vqa": GenerationSettings(gen_length=64, block_length=64, steps=64),
    "paper-open-ended": GenerationSettings(gen_length=256, block_length=64, steps=256),
    "demo": GenerationSettings(gen_length=128, block_length=128, steps=128),
    "embedded-vqa": GenerationSettings(gen_length=16, block_length=16, steps=16),
    "embedded-description": GenerationSettings(gen_length=96, block_length=32, steps=96),
    # a quarter of the passes or fewer, none of them over the whole sequence but each block's first; on the embedded
    # model the quickest that keeps 98 % of the exact fact score (results/studies/frontier)
    "fast": GenerationSettings(
        gen_length=128, block_length=32, steps=32, cache="dual", repetition_guard="penalty"
    ),
}

"""Settings of a generation, checked when they are made; L, B, Z are the paper's symbols.

L = gen_length (answer positions), B = block_length (positions filled before the next block starts),
Z = steps (forward passes in all, Z B / L of them per block).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from math import isqrt
from typing import Any

from medv_lab.strategies.base import Cache, Guard, SettingsError, Strategy, check_number
from medv_lab.strategies.caches import DualCache, ImageCache, IntervalCache, NoCache, PrefixCache
from medv_lab.strategies.committing import (
    Entropy,
    EntropyBound,
    Factor,
    KlStability,
    LowConfidence,
    Margin,
    PositionDecay,
    Random,
    Threshold,
)
from medv_lab.strategies.editing import EditTokens
from medv_lab.strategies.growing import Daedal
from medv_lab.strategies.guards import NoGuard, RepetitionPenalty, Spread, SureEnd
from medv_lab.strategies.parallel import Credit, Hierarchical, StochasticTransfer
from medv_lab.strategies.revising import (
    ReMDM,
    ReMDMConfidence,
    ReMDMLoop,
    ReMDMRescale,
    Wino,
)

__all__ = [
    "PRESETS",
    "Credit",
    "Daedal",
    "DualCache",
    "EditTokens",
    "Entropy",
    "EntropyBound",
    "Factor",
    "GenerationSettings",
    "Hierarchical",
    "ImageCache",
    "IntervalCache",
    "KlStability",
    "LowConfidence",
    "Margin",
    "NoCache",
    "NoGuard",
    "PositionDecay",
    "PrefixCache",
    "Random",
    "ReMDM",
    "ReMDMConfidence",
    "ReMDMLoop",
    "ReMDMRescale",
    "RepetitionPenalty",
    "SettingsError",
    "Spread",
    "StochasticTransfer",
    "SureEnd",
    "Threshold",
    "Wino",
]

NOISE = ("masked", "reference")
REFERENCE_SUPPRESSION = "reference"
MAX_SEED = 2**63 - 1
MAX_STEPS = 1_000_000  # passes are listed before the first of them is made
MAX_DIVISOR_SEARCH = 100_000  # keeps the message about absurd lengths quick


@dataclass(frozen=True)
class GenerationSettings:
    """How an answer is generated; vary it with `dataclasses.replace`.

    Strategy, guard and cache are objects with their own parameters, `Threshold(0.9)`; a name, "threshold", is
    shorthand for the object with its defaults. A class of a user's own is passed the same way (`strategies.base`).

    Attributes:
        gen_length: L, positions of the answer; where it may grow (`Daedal`), those that it starts with.
        block_length: B, positions per block, a divisor of L.
        steps: Z, forward passes of a paced strategy, a multiple of L / B; more than L is allowed, since a full block
            ends early. Adaptive ones take as many as they need.
        temperature: of the Gumbel noise on the logits; 0 takes the most probable token.
        remasking: the strategy, which says what each pass commits and remasks. `LowConfidence` and `Random`
            reproduce the published sampler; `strategies` describes all.
        guard: says which of the rated candidates a pass commits, e.g. no equal tokens side by side. See
            `strategies.guards`.
        cache: what of a pass is kept for the next; exact only with "none" or `refresh=1`. See `strategies.caches`.
        cfg_scale: weight of classifier-free guidance; 0 switches it off.
        max_passes: most forward passes of an adaptive strategy, a multiple of L / B, or None for no limit but L. A
            pass then commits at least the remaining masks divided by the remaining passes, as if Z set a floor.
        defer_ends: tokens that end an answer may be predicted, but their confidence counts as minus infinity: they are
            committed where nothing else is left (a switch of LLaDA's own code).
        suppressed_tokens: ids never predicted, or "reference": end of text, start of text, start and end of header.
        stop: texts before which the answer ends.
        suffix: text that follows the answer positions and is seen while they are filled.
        seed: of all draws.
        noise: "masked" draws noise where it is used; "reference" for every position and the whole vocabulary
            at each step, which reproduces the published sampler's draws.
        alternatives: how many of the most probable tokens a trace keeps for each commit.
        lookahead: how many later states are guessed and run beside each pass, which changes no token and saves
            passes in sequence (`diffusion.lookahead`); one prompt at a time, and not where a pass verifies or grows.

    Raises:
        SettingsError: for a wrong type or value, or choices that do not go together.
    """

    gen_length: int = 64
    block_length: int = 32
    steps: int = 64
    temperature: float = 0.0
    remasking: Strategy = field(default_factory=LowConfidence)
    guard: Guard = field(default_factory=NoGuard)
    cache: Cache = field(default_factory=NoCache)
    cfg_scale: float = 0.0
    max_passes: int | None = None
    defer_ends: bool = False
    suppressed_tokens: str | tuple[int, ...] = REFERENCE_SUPPRESSION
    stop: tuple[str, ...] = ("<|eot_id|>",)
    suffix: str = ""
    seed: int = 0
    noise: str = "masked"
    alternatives: int = 5
    lookahead: int = 0

    def __post_init__(self) -> None:
        for name in ("gen_length", "block_length", "steps", "alternatives"):
            check_number(name, getattr(self, name), int, 1)
        if self.steps > MAX_STEPS:
            raise SettingsError(f"steps is {self.steps}; {MAX_STEPS} are the most, and gen_length are enough")
        if self.max_passes is not None:
            check_number("max_passes", self.max_passes, int, 1)
        if not isinstance(self.defer_ends, bool):
            raise SettingsError(f"defer_ends is {self.defer_ends!r}; give True or False")
        check_number("seed", self.seed, int, 0, MAX_SEED)
        check_number("lookahead", self.lookahead, int)
        for name in ("temperature", "cfg_scale"):
            check_number(name, getattr(self, name), float)
        if not isinstance(self.noise, str) or self.noise not in NOISE:
            raise SettingsError(f"noise is {self.noise!r}; allowed are {', '.join(NOISE)}")
        for name, kind in (("remasking", Strategy), ("guard", Guard), ("cache", Cache)):
            object.__setattr__(self, name, kind.make(getattr(self, name)))  # frozen, but not yet whole
        self._check_choices()
        self._check_lengths()
        self._check_texts()

    def _check_choices(self) -> None:
        strategy, has_guard = self.remasking, not isinstance(self.guard, NoGuard)
        if has_guard and (strategy.is_revising or strategy.is_growing):
            others = [name for name, one in Strategy.known.items() if one.is_revising or one.is_growing]
            raise SettingsError(
                f"guard is {self.guard.name!r}, but remasking {strategy.name!r} chooses without one; give 'none', or a "
                f"strategy that only commits (not {', '.join(others)})"
            )
        has_cache = not isinstance(self.cache, NoCache)
        if has_cache and (strategy.verifies or strategy.is_growing):
            raise SettingsError(
                f"cache is {self.cache.name!r}, but remasking {strategy.name!r} computes positions that no cache has; "
                "give 'none'"
            )

        if self.lookahead and (strategy.verifies or strategy.is_growing):
            raise SettingsError(
                f"lookahead is {self.lookahead}, but passes of remasking {strategy.name!r} hold more than the answer's "
                "next state; give 0"
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
        for name, passes in (("steps", steps), ("max_passes", self.max_passes or blocks)):
            if passes % blocks:
                low = max(blocks, passes // blocks * blocks)
                raise SettingsError(
                    f"{name} {passes} is not divisible by the {blocks} blocks (gen_length {length} / block_length "
                    f"{block}); give a multiple of {blocks}, near are {low} or {low + blocks}"
                )
        self.remasking.longest(length)  # refuses what it cannot start with
        if self.max_passes is not None and (self.remasking.is_growing or not self.remasking.is_adaptive):
            raise SettingsError(
                f"max_passes is {self.max_passes}, but remasking {self.remasking.name!r} "
                + ("grows" if self.remasking.is_growing else "is paced by steps")
                + "; give None, or an adaptive strategy of fixed length"
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

    @property
    def is_alone(self) -> bool:
        """True where prompts are answered one at a time."""
        return self.remasking.is_growing or self.lookahead > 0

    @property
    def most_passes(self) -> int:
        """How many passes an answer takes at the most, masks of the prompt and checks of the length left aside."""
        most = (self.max_passes or self.longest) if self.remasking.is_adaptive else self.steps
        return most + self.num_blocks * self.remasking.post_passes

    @property
    def longest(self) -> int:
        """How long the answer may become: L, more only where it grows."""
        return self.remasking.longest(self.gen_length)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON holds them; `from_dict` reads them back.

        Strategy, guard and cache are their names, or {"name": name, parameter: value, ...} where they have parameters.
        """
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {
            name: value.to_dict() if isinstance(value, Strategy | Guard | Cache) else value
            for name, value in values.items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "GenerationSettings":
        """Make settings from a mapping, e.g. of a manifest; lists become tuples.

        Raises:
            SettingsError: for an unknown name (the closest known one is suggested) or a wrong value.
        """
        if not isinstance(values, Mapping):
            raise SettingsError(f"settings are {values!r}; give a mapping from names to values")
        known = [one.name for one in fields(cls)]
        for name in values:
            if name not in known:
                close = get_close_matches(str(name), known, n=1)
                hint = f"did you mean {close[0]}? " if close else ""
                raise SettingsError(f"unknown setting {name!r}; {hint}allowed are {', '.join(known)}")
        return cls(
            **{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        )


PRESETS = {
    "paper-vqa": GenerationSettings(gen_length=64, block_length=64, steps=64),
    "paper-open-ended": GenerationSettings(gen_length=256, block_length=64, steps=256),
    "demo": GenerationSettings(gen_length=128, block_length=128, steps=128),
    "embedded-vqa": GenerationSettings(gen_length=16, block_length=16, steps=16),
    "embedded-description": GenerationSettings(gen_length=96, block_length=32, steps=96),
    # commits what it is sure of, in about a fifth of the passes, and computes the active block alone between its first
    # passes; on the embedded model the quickest of at most L / 4 passes that keeps 98 % of the exact fact score
    # (results/studies)
    "fast": GenerationSettings(
        gen_length=96, block_length=32, steps=96, remasking=EntropyBound(0.5), cache=DualCache()
    ),
}

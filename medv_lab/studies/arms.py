"""The arms that studies compare, each a way to ask for a description. Settings only; nothing is run here.

All arms of a study answer the same questions. L, B, Z are the paper's symbols; the model's descriptions fit L = 128.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from medv_lab.config import PRESETS, Daedal, GenerationSettings, Threshold
from medv_lab.phantoms.reports import REQUESTS

QUESTION = REQUESTS["detailed"][0]
DEMO_SUFFIX = " Answer concisely in English."  # which the official demo adds to every question
EXACT = GenerationSettings(gen_length=128, block_length=32, steps=128)
Z_SWEEP = (128, 64, 32, 16, 8)  # L to L / 16
B_SWEEP = (16, 32, 64, 128)
L_SWEEP = (32, 64, 128)


@dataclass(frozen=True)
class Arm:
    """One way to answer; arms of a group are drawn alike. A dtype of None is the model's own."""

    name: str
    group: str
    settings: GenerationSettings
    question: str = QUESTION
    dtype: str | None = None


def frontier_arms() -> list[Arm]:
    """List every strategy, guard and cache at a quarter or an eighth of the passes, and the exact sampler at all Z."""
    quarter, eighth = replace(EXACT, steps=32), replace(EXACT, steps=16)
    arms = _z_sweep()
    for name in ("random", "entropy", "margin", "position"):
        arms.append(Arm(f"{name} Z=16", "other order", replace(eighth, remasking=name)))
    for name in ("threshold", "factor", "entropy_bound", "kl_stability"):
        arms.append(Arm(f"{name} Z<=32", "adaptive", replace(quarter, remasking=name)))
    for name in ("penalty", "one_of_run", "spread"):
        arms.append(Arm(f"{name} Z=16", "guard", replace(eighth, guard=name)))
    for name in ("remdm", "wino", "revise_duplicates"):
        arms.append(Arm(f"{name} Z=16", "revision", replace(eighth, remasking=name)))
    for name in ("prefix", "dual"):
        arms.append(Arm(f"{name} cache Z=32", "cache", replace(quarter, cache=name)))
    arms += [
        Arm("image cache Z=16", "cache", replace(eighth, cache="image")),
        Arm("dual cache, spread Z=16", "cache", replace(eighth, cache="dual", guard="spread")),
        Arm("dual cache, penalty Z=32", "cache", replace(quarter, cache="dual", guard="penalty")),
    ]
    sure = replace(quarter, cache="dual", remasking=Threshold(0.7))
    daedal = Daedal(end_window=16, max_length=EXACT.gen_length)
    growing = GenerationSettings(gen_length=32, block_length=32, steps=32, remasking=daedal)
    return [
        *arms,
        Arm("dual cache, threshold 0.7 Z<=32", "cache", sure),
        Arm("dual cache, threshold 0.7 Z<=16", "cache", replace(sure, steps=16)),
        Arm("daedal Z<=32", "length", growing),
        Arm("fast", "fast", PRESETS["fast"]),
    ]


def steps_arms() -> list[Arm]:
    """Vary Z, B and L one at a time, as Tables 3 and 5 of the paper do; low confidence throughout."""
    arms = _z_sweep()
    for block in B_SWEEP:
        settings = replace(EXACT, block_length=block, steps=32)
        arms.append(Arm(f"low_confidence B={block} Z=32", "B", settings))
    for length in L_SWEEP:
        settings = replace(EXACT, gen_length=length, block_length=min(32, length), steps=length)
        arms.append(Arm(f"low_confidence L=Z={length}", "L", settings))
    return arms


def eos_arms() -> list[Arm]:
    """Vary the suppression of end of text, the demo's suffix, and the dtype, each by itself.

    Without suppression the model may end its answer, most easily where one block is the whole answer. The last two arms
    round the model's weights: load it in float32.
    """
    arms = []
    for block in (32, 128):
        base = replace(EXACT, block_length=block, steps=32)
        for said, tokens in (("suppressed", "reference"), ("free", ())):
            settings = replace(base, suppressed_tokens=tokens)
            arms.append(Arm(f"B={block}, ends {said}", "end tokens", settings))
            arms.append(Arm(f"B={block}, ends {said}, suffix", "suffix", settings, QUESTION + DEMO_SUFFIX))
    for dtype in ("bfloat16", "float16"):
        arms.append(Arm(f"B=32, ends suppressed, {dtype}", "dtype", replace(EXACT, steps=32), dtype=dtype))
    return arms


# Study: its arms, and the one that the others are compared with.
STUDIES: dict[str, tuple[Callable[[], list[Arm]], str]] = {
    "frontier": (frontier_arms, "low_confidence Z=128"),
    "steps": (steps_arms, "low_confidence Z=128"),
    "eos": (eos_arms, "B=32, ends suppressed"),
}


def _z_sweep() -> list[Arm]:
    return [Arm(f"low_confidence Z={steps}", "Z", replace(EXACT, steps=steps)) for steps in Z_SWEEP]

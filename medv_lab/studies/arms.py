"""The arms that studies compare, each a way to ask for a description. Settings only; nothing is run here.

All arms of a study answer questions about the same pictures. L, B, Z are the paper's symbols; the model's
descriptions fit L = 96.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from medv_lab.config import (
    PRESETS,
    Daedal,
    EntropyBound,
    Factor,
    GenerationSettings,
    KlStability,
    Threshold,
)
from medv_lab.phantoms.reports import REQUESTS

QUESTION = REQUESTS["detailed"][0]
DEMO_SUFFIX = " Answer concisely in English."  # which the official demo adds to every question
EXACT = PRESETS["embedded-description"]
QUARTER = replace(EXACT, steps=24)
Z_SWEEP = (96, 48, 24, 12, 6)  # L to L / 16
B_SWEEP = (16, 32, 48, 96)
L_SWEEP = (32, 64, 96, 128)


@dataclass(frozen=True)
class Arm:
    """One way to answer; arms of a group are drawn alike. A dtype of None is the model's own."""

    name: str
    group: str
    settings: GenerationSettings
    question: str = QUESTION
    dtype: str | None = None


def frontier_arms() -> list[Arm]:
    """List every strategy, guard and cache at a quarter of the passes or about it, and the exact sampler at all Z.

    Adaptive strategies have Z = L: they may commit a single token in a pass, and take fewer passes by themselves.
    """
    arms = _z_sweep()
    for name in ("random", "entropy", "margin", "position"):
        arms.append(Arm(f"{name} Z=24", "other order", replace(QUARTER, remasking=name)))
    adaptive = {
        "threshold 0.9": Threshold(0.9),
        "threshold 0.8": Threshold(0.8),
        "factor 1": Factor(1.0),
        "entropy_bound 0.1": EntropyBound(0.1),
        "entropy_bound 0.2": EntropyBound(0.2),
        "kl_stability": KlStability(),
    }
    arms += [Arm(name, "adaptive", replace(EXACT, remasking=rule)) for name, rule in adaptive.items()]
    for name in ("penalty", "one_of_run", "spread"):
        arms.append(Arm(f"{name} Z=24", "guard", replace(QUARTER, guard=name)))
    for name in ("remdm", "wino", "revise_duplicates"):
        arms.append(Arm(f"{name} Z=24", "revision", replace(QUARTER, remasking=name)))
    for name in ("prefix", "dual", "image"):
        arms.append(Arm(f"{name} cache Z=24", "cache", replace(QUARTER, cache=name)))
    bounded = replace(EXACT, remasking=EntropyBound(0.2))
    growing = GenerationSettings(
        gen_length=32, block_length=32, steps=32, remasking=Daedal(end_window=16, max_length=EXACT.gen_length)
    )
    return [
        *arms,
        Arm("dual cache, entropy_bound 0.2", "cache", replace(bounded, cache="dual")),
        Arm(
            "dual cache, entropy_bound 0.2, penalty", "cache", replace(bounded, cache="dual", guard="penalty")
        ),
        Arm("daedal Z<=32", "length", growing),
        Arm("fast", "fast", PRESETS["fast"]),
    ]


def steps_arms() -> list[Arm]:
    """Vary Z, B and L one at a time, as Tables 3 and 5 of the paper do, and the length that is asked for."""
    arms = _z_sweep()
    for block in B_SWEEP:
        arms.append(Arm(f"low_confidence B={block} Z=24", "B", replace(QUARTER, block_length=block)))
    for length in L_SWEEP:
        settings = replace(EXACT, gen_length=length, steps=length)
        arms.append(Arm(f"low_confidence L=Z={length}", "L", settings))
    for length, (request, *_) in REQUESTS.items():
        arms.append(Arm(f"asked for: {length}", "request", EXACT, request))
    return arms


def eos_arms() -> list[Arm]:
    """Vary the suppression of end of text, the demo's suffix, and the dtype, each by itself.

    Without suppression the model may end its answer, most easily where one block is the whole answer. The last two arms
    round the model's weights: load it in float32.
    """
    arms = []
    for block in (32, EXACT.gen_length):
        base = replace(QUARTER, block_length=block)
        for said, tokens in (("suppressed", "reference"), ("free", ())):
            settings = replace(base, suppressed_tokens=tokens)
            arms.append(Arm(f"B={block}, ends {said}", "end tokens", settings))
            arms.append(Arm(f"B={block}, ends {said}, suffix", "suffix", settings, QUESTION + DEMO_SUFFIX))
    for dtype in ("bfloat16", "float16"):
        arms.append(Arm(f"B=32, ends suppressed, {dtype}", "dtype", QUARTER, dtype=dtype))
    return arms


# Study: its arms, and the one that the others are compared with.
STUDIES: dict[str, tuple[Callable[[], list[Arm]], str]] = {
    "frontier": (frontier_arms, "low_confidence Z=96"),
    "steps": (steps_arms, "low_confidence Z=96"),
    "eos": (eos_arms, "B=32, ends suppressed"),
}


def _z_sweep() -> list[Arm]:
    return [Arm(f"low_confidence Z={steps}", "Z", replace(EXACT, steps=steps)) for steps in Z_SWEEP]

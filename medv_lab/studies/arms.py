"""The arms that studies compare, each a way to ask for a description. Settings only; nothing is run here.

All arms of a study answer questions about the same pictures. L, B, Z are the paper's symbols; the model's
descriptions fit L = 96.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from medv_lab.config import (
    PRESETS,
    Credit,
    Daedal,
    EditTokens,
    EntropyBound,
    Factor,
    GenerationSettings,
    Hierarchical,
    KlStability,
    Threshold,
    Wino,
)
from medv_lab.phantoms.reports import REQUESTS

QUESTION = REQUESTS["detailed"][0]
DEMO_SUFFIX = " Answer concisely in English."  # which the official demo adds to every question
EXACT = PRESETS["embedded-description"]
QUARTER = replace(EXACT, steps=24)
Z_SWEEP = (96, 48, 24, 12, 6)  # L to L / 16
B_SWEEP = (16, 32, 48, 96)
L_SWEEP = (32, 64, 96, 128)
# What adaptive strategies are varied by, from careful to quick.
THRESHOLDS = (0.95, 0.9, 0.8, 0.7, 0.6, 0.5)
FACTORS = (1.0, 2.0)
ENTROPY_BOUNDS = (0.1, 0.2, 0.5)
KL_STABILITIES = ((0.9, 0.01), (0.6, 0.1))  # threshold, bound of the divergence
WINOS = ((0.6, 0.9), (0.5, 0.6))  # thresholds of drafts and of their verification


@dataclass(frozen=True)
class Arm:
    """One way to answer; arms of a group are drawn alike. A dtype of None is the model's own."""

    name: str
    group: str
    settings: GenerationSettings
    question: str = QUESTION
    dtype: str | None = None


def frontier_arms() -> list[Arm]:
    """List every strategy, guard and cache: paced ones at a quarter of the passes, the exact sampler at all Z.

    Adaptive strategies take as many passes as they need, so that each is varied by its own parameters.
    """
    arms = _z_sweep()
    for name in ("random", "stochastic", "entropy", "margin", "position"):
        arms.append(Arm(f"{name} Z=24", "other order", replace(QUARTER, remasking=name)))
    adaptive = {f"threshold {least}": Threshold(least) for least in THRESHOLDS}
    adaptive |= {f"factor {factor:g}": Factor(factor) for factor in FACTORS}
    adaptive |= {f"entropy_bound {bound}": EntropyBound(bound) for bound in ENTROPY_BOUNDS}
    adaptive |= {
        f"kl_stability {least} {bound}": KlStability(least, bound) for least, bound in KL_STABILITIES
    }
    adaptive |= {"hierarchical 0.9 0.3": Hierarchical(), "credit 0.9": Credit()}
    arms += [Arm(name, "adaptive", replace(EXACT, remasking=rule)) for name, rule in adaptive.items()]
    for least, verified in WINOS:
        settings = replace(EXACT, remasking=Wino(least, verified))
        arms.append(Arm(f"wino {least} {verified}", "revision", settings))
    arms.append(Arm("edit 0.7 0.5", "revision", replace(EXACT, remasking=EditTokens())))
    for name in ("penalty", "spread", "sure_end"):
        arms.append(Arm(f"{name} Z=24", "guard", replace(QUARTER, guard=name)))
    for name in ("remdm", "remdm_rescale", "remdm_conf", "remdm_loop"):
        arms.append(Arm(f"{name} Z=24", "revision", replace(QUARTER, remasking=name)))
    for name in ("prefix", "dual", "image", "interval"):
        arms.append(Arm(f"{name} cache Z=24", "cache", replace(QUARTER, cache=name)))
    growing = GenerationSettings(
        gen_length=32, block_length=32, steps=32, remasking=Daedal(end_window=16, max_length=EXACT.gen_length)
    )
    return [
        *arms,
        Arm(
            "dual cache, entropy_bound 0.2",
            "cache",
            replace(EXACT, remasking=EntropyBound(0.2), cache="dual"),
        ),
        Arm("daedal", "length", growing),
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
    """Vary what becomes of end tokens, the demo's suffix, and the dtype, each by itself.

    Free to predict end of text, the model may end its answer, most easily where one block is the whole answer;
    deferred, ends may be predicted and are committed last. The last two arms round the model's weights: load it in
    float32.
    """
    arms = []
    for block in (32, EXACT.gen_length):
        base = replace(QUARTER, block_length=block)
        for said, tokens in (("suppressed", "reference"), ("free", ()), ("deferred", ())):
            settings = replace(base, suppressed_tokens=tokens, defer_ends=said == "deferred")
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

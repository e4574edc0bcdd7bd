"""Counterfactual pairs: two pictures that differ in one fact, and a question whose answer that fact decides.

Both pictures have the same seed, hence the same background, pose, noise and marker: whoever answers both right has
read the fact and not a habit of the pictures. A pair counts only if both answers are right, so chance is the square
of what it is for one question.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from medv_lab.metrics.intervals import bootstrap_interval
from medv_lab.phantoms.benchmark import SEED, Item, Respond, Scored, evaluate_phantoms
from medv_lab.phantoms.questions import PROBES, Question
from medv_lab.phantoms.scenes import GRADES, KINDS, SIDES, ZONES, Scene, is_held_out, make_scene

PROBE_OF_CHANGE = {
    "presence": "normality",
    "kind": "finding",
    "side": "side",
    "zone": "zone",
    "grade": "extent",
}
CHANGES = tuple(PROBE_OF_CHANGE)
_PROBES = {probe.name: probe for probe in PROBES}


@dataclass(frozen=True)
class Pair:
    """One question on two pictures; `change` is the fact in which they differ."""

    change: str
    first: Item
    second: Item


def make_pairs(split: str, per_change: int) -> list[Pair]:
    """So many pairs for every kind of change, from the first scenes of a split that have exactly one finding.

    Raises:
        ValueError: for an unknown split, or fewer than one pair a change.
    """
    if per_change < 1:
        raise ValueError(f"per_change is {per_change}; it must be at least 1")
    rng = np.random.default_rng([SEED, 1])
    pairs: list[Pair] = []
    for change in CHANGES:
        made = index = 0
        while made < per_change:
            scene = make_scene(split, index)
            index += 1
            others = _others(change, scene) if len(scene.findings) == 1 else []
            if (
                split != "compositional"
            ):  # there the first picture holds what training holds out, and the second may
                others = [
                    other for other in others if not any(is_held_out(scene.domain, f) for f in other.findings)
                ]
            if others:
                pairs.append(_pair(change, scene, others[rng.integers(len(others))], rng))
                made += 1
    return pairs


def evaluate_pairs(pairs: Sequence[Pair], respond: Respond) -> list[tuple[Scored, Scored]]:
    """Answers and scores of both pictures of every pair, in their order."""
    scored = evaluate_phantoms([item for pair in pairs for item in (pair.first, pair.second)], respond)
    return list(zip(scored[::2], scored[1::2], strict=True))


def summarise_pairs(pairs: Sequence[Pair], results: Sequence[tuple[Scored, Scored]]) -> pd.DataFrame:
    """By change: pairs, share with both answers right with its 95 % interval, and share with one answer for both.

    Returns:
        Columns change, pairs, both_right, low, high, same_answer; shares in percent.
    """
    rows = []
    for change in CHANGES:
        own = [result for pair, result in zip(pairs, results, strict=True) if pair.change == change]
        if own:
            both = bootstrap_interval([100 * (one.score == two.score == 1) for one, two in own])
            same = 100 * np.mean([one.answer == two.answer for one, two in own])
            rows.append((change, len(own), both.estimate, both.low, both.high, same))
    return pd.DataFrame(rows, columns=["change", "pairs", "both_right", "low", "high", "same_answer"])


def _pair(change: str, scene: Scene, other: Scene, rng: np.random.Generator) -> Pair:
    probe = _PROBES[PROBE_OF_CHANGE[change]]
    text = probe.wordings[rng.integers(len(probe.wordings))]
    first, second = (
        Item(Question(0, probe.family, probe.name, text, probe.answer(one), probe.is_closed), one)
        for one in (scene, other)
    )
    return Pair(change, first, second)


def _others(change: str, scene: Scene) -> list[Scene]:
    """All scenes that differ from this one in nothing but the named fact of its only finding."""
    if change == "presence":
        return [replace(scene, findings=())]
    finding, kinds = scene.findings[0], KINDS[scene.domain]
    alternatives = {
        "kind": [kind for kind in kinds if kinds[kind] == kinds[finding.kind]],  # graded on the same scale
        "side": SIDES,
        "zone": ZONES,
        "grade": GRADES[kinds[finding.kind]],
    }[change]
    return [
        replace(scene, findings=(replace(finding, **{change: value}),))
        for value in alternatives
        if value != getattr(finding, change)
    ]

"""Phantom VQA as three benchmarks, the small world's counterpart of VQA-RAD, SLAKE and PathVQA (Table 2).

    radiology      chest x-ray, abdominal ct and brain mri of the test split: as VQA-RAD and SLAKE, pictures of scanners
    tissue         histology and gross pathology of the test split: as PathVQA, what a pathologist looks at
    compositional  all five domains, findings in places where training never showed them: beyond the training data

Questions are balanced within each benchmark: a wording has each of its answers equally often, so chance is the same
for whoever sees no picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from medv_lab.evaluation.responders import Query
from medv_lab.metrics.scoring import VqaItem
from medv_lab.phantoms.benchmark import IMAGE_SIZE, SCENES, SEED
from medv_lab.phantoms.questions import Question, balanced_questions
from medv_lab.phantoms.rendering import render
from medv_lab.phantoms.scenes import DOMAINS, Scene, make_scenes

BENCHMARKS = {  # name: (split, domains)
    "radiology": ("test", DOMAINS[:3]),
    "tissue": ("test", DOMAINS[3:]),
    "compositional": ("compositional", DOMAINS),
}


@dataclass(frozen=True)
class PhantomVqa:
    """One question of a benchmark; `id` is unique over all three."""

    id: str
    benchmark: str
    question: Question
    scene: Scene


@cache
def make_benchmarks(rounds: int) -> tuple[PhantomVqa, ...]:
    """All questions of the three benchmarks, in their order.

    Args:
        rounds: balanced rounds of each; one asks about 100 questions.

    Raises:
        ValueError: for fewer than one round.
    """
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}; give 1 or more")
    found: list[PhantomVqa] = []
    for name, (split, domains) in BENCHMARKS.items():
        scenes = [scene for scene in make_scenes(split, SCENES) if scene.domain in domains]
        questions = balanced_questions(scenes, rounds, SEED)
        found += [
            PhantomVqa(f"{name}/{number:04}", name, question, scenes[question.scene])
            for number, question in enumerate(questions)
        ]
    return tuple(found)


def benchmark_queries(asked: Sequence[PhantomVqa], with_pictures: bool = True) -> list[Query]:
    """What a responder is asked; without pictures, what the questions give away."""
    return [
        Query(one.id, one.question.text, render(one.scene, size=IMAGE_SIZE) if with_pictures else None)
        for one in asked
    ]


def benchmark_items(asked: Sequence[PhantomVqa], answers: Sequence[str]) -> list[VqaItem]:
    """What the metrics score.

    Raises:
        ValueError: for another number of answers than of questions.
    """
    return [
        VqaItem("CLOSED" if one.question.is_closed else "OPEN", one.question.answer, answer)
        for one, answer in zip(asked, answers, strict=True)
    ]

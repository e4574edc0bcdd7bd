"""The phantom benchmark: balanced questions about held-out pictures, as `Question`s with their true answers.

`make_questions` asks about one split, with the right pictures, with those of other questions, or with none: what a
question gives away by itself. `make_benchmarks` divides the phantoms into three, the counterpart of VQA-RAD, SLAKE and
PathVQA (Table 2):

    radiology      chest x-ray, abdominal ct and brain mri of the test split: as VQA-RAD and SLAKE, pictures of scanners
    tissue         histology and gross pathology of the test split: as PathVQA, what a pathologist looks at
    compositional  all five domains, findings where training never showed them: beyond the training data

`make_descriptions` asks for reports of one split's pictures.

Questions are balanced within what is asked: a wording has each of its answers equally often, so chance is
1 / number of answers for whoever sees no picture.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from medv_lab.phantoms.questions import balanced_questions
from medv_lab.phantoms.rendering import render
from medv_lab.phantoms.reports import REQUESTS, find_others, write_report
from medv_lab.phantoms.scenes import DOMAINS, Scene, make_scenes
from medv_lab.records import Question

SCENES = 3000
SEED = 20_260_101

PICTURES = ("right", "shuffled", "none")  # which picture a question is shown with
BENCHMARKS = {  # name: (split, domains)
    "radiology": ("test", DOMAINS[:3]),
    "tissue": ("test", DOMAINS[3:]),
    "compositional": ("compositional", DOMAINS),
}


def make_questions(split: str, rounds: int, pictures: str = "right") -> list[Question]:
    """Draw `rounds` balanced rounds of every probe on the first scenes of a split.

    Args:
        split: "validation", "test" or "compositional" ("train" for a look at what was learned).
        rounds: one round asks every probe once for each of its answers, about 130 questions.
        pictures: "right"; "shuffled" (each question on another one's picture) or "none", which show what the
            questions give away.

    Returns:
        Questions with the tags family and domain; domain and truth are those of the picture that is shown, "none" and
        None without one.

    Raises:
        ValueError: for an unknown split or choice of pictures, or fewer than one round.
    """
    return _ask(split, split, make_scenes(split, SCENES), rounds, pictures)


def make_benchmarks(rounds: int, with_pictures: bool = True) -> list[Question]:
    """Draw the questions of the three benchmarks, in their order.

    Args:
        rounds: balanced rounds of each; one asks about 100 questions.
        with_pictures: without, questions show what they give away by themselves.

    Returns:
        Questions with the tags benchmark, family and domain; ids are unique over all three.

    Raises:
        ValueError: for fewer than one round.
    """
    questions: list[Question] = []
    for name, (split, domains) in BENCHMARKS.items():
        scenes = [scene for scene in make_scenes(split, SCENES) if scene.domain in domains]
        questions += _ask(name, split, scenes, rounds, "right" if with_pictures else "none", benchmark=name)
    return questions


def make_descriptions(
    split: str, descriptions: int, length: str = "detailed", pictures: str = "right"
) -> list[Question]:
    """Ask for a report of each of the first pictures of a split; the wordings of the request take turns.

    Args:
        split: "validation", "test" or "compositional".
        descriptions: how many.
        length: of the reports that are asked for, one of `LENGTHS`.
        pictures: "right", or "shuffled": each scene's request is shown with the picture of another scene, that of the
            control "another picture".

    Returns:
        Questions with the tag domain, and as reference and truth a report of the scene and the scene itself, to which
        a description is held also where another picture is shown.

    Raises:
        ValueError: for an unknown split, length or choice of pictures, or fewer than two descriptions.
    """
    if length not in REQUESTS:
        raise ValueError(f"length is {length!r}; allowed are {', '.join(REQUESTS)}")
    if pictures not in PICTURES[:2]:
        raise ValueError(f"pictures is {pictures!r}; allowed are {', '.join(PICTURES[:2])}")
    rng, scenes = np.random.default_rng([SEED, 3]), make_scenes(split, descriptions)
    others, requests = find_others(scenes), REQUESTS[length]
    shown = scenes if pictures == "right" else [scenes[other] for other in others]
    return [
        Question(
            id=f"{split}-{length}/{number:04}",
            text=requests[number % len(requests)],
            image=render(seen),
            reference=write_report(scene, rng, length),
            kind="detailed_description",
            split=split,
            tags={"domain": scene.domain},
            truth=scene,
        )
        for number, (scene, seen) in enumerate(zip(scenes, shown, strict=True))
    ]


def _ask(
    name: str, split: str, scenes: Sequence[Scene], rounds: int, pictures: str, **tags: str
) -> list[Question]:
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}; give 1 or more (one round asks each question once per answer)")
    if pictures not in PICTURES:
        raise ValueError(f"pictures is {pictures!r}; allowed are {', '.join(PICTURES)}")
    draws = balanced_questions(scenes, rounds, SEED)
    shown = [scenes[draw.scene] for draw in draws]
    if pictures == "shuffled":
        order = np.random.default_rng(SEED).permutation(len(shown)).tolist()
        # Rotating a random order by one leaves no question with its own picture.
        donors = dict(zip(order, np.roll(order, 1).tolist(), strict=True))
        shown = [shown[donors[number]] for number in range(len(shown))]
    questions = []
    for number, (draw, scene) in enumerate(zip(draws, shown, strict=True)):
        question = Question(
            id=f"{name}/{number:04}",
            text=draw.text,
            reference=draw.answer,
            kind="closed" if draw.probe.is_closed else "open",
            split=split,
            tags={**tags, "family": draw.probe.family, "domain": "none"},
        )
        if pictures != "none":
            seen = {**question.tags, "domain": scene.domain}
            question = replace(question, image=render(scene), truth=scene, tags=seen)
        questions.append(question)
    return questions

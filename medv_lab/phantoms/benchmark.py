"""The phantom benchmark: balanced questions on held-out pictures, scored as the paper scores VQA.

Closed questions count by accuracy, open ones by token recall (the share of the true answer's words that the
answer holds). The questions are made by balanced rounds, so chance is 1 / number of answers for whoever sees no
picture. Whatever answers is behind `Respond`; this module knows no model.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medv_lab.metrics.intervals import Interval, bootstrap_interval, paired_difference
from medv_lab.phantoms.questions import Question, balanced_questions
from medv_lab.phantoms.rendering import render
from medv_lab.phantoms.scenes import Scene, make_scenes

IMAGE_SIZE = 72
SCENES = 3000
SEED = 20_260_101

PICTURES = ("right", "shuffled", "none")  # which picture a question is shown with
COLUMNS = ("group", "kind", "questions", "score", "low", "high")

Respond = Callable[
    [Sequence[np.ndarray | None], Sequence[str]], list[str]
]  # (pictures, questions) -> answers


@dataclass(frozen=True)
class Item:
    """One question of the benchmark and the picture it is asked about; None shows no picture."""

    question: Question
    scene: Scene | None


@dataclass(frozen=True)
class Scored:
    """One answer with its score in [0, 1]."""

    family: str
    is_closed: bool
    question: str
    truth: str
    answer: str
    score: float


def make_items(split: str, rounds: int, pictures: str = "right") -> list[Item]:
    """The benchmark: `rounds` balanced rounds of every probe on the first scenes of a split.

    Args:
        split: "validation", "test" or "compositional" ("train" for a look at what was learned).
        rounds: one round asks every probe once for each of its answers, about 130 questions.
        pictures: "right"; "shuffled" (each question on another one's picture) or "none", which show what the
            questions give away.

    Raises:
        ValueError: for an unknown split or choice of pictures, or fewer than one round.
    """
    if rounds < 1:
        raise ValueError(
            f"rounds is {rounds}; it must be at least 1 (one round asks each question once per answer)"
        )
    if pictures not in PICTURES:
        raise ValueError(f"pictures is {pictures!r}; allowed are {', '.join(PICTURES)}")
    scenes = make_scenes(split, SCENES)
    items = [Item(question, scenes[question.scene]) for question in balanced_questions(scenes, rounds, SEED)]
    if pictures == "none":
        return [replace(item, scene=None) for item in items]
    return shuffled(items) if pictures == "shuffled" else items


def shuffled(items: Sequence[Item], seed: int = SEED) -> list[Item]:
    """The same questions, each on another item's picture: what is left is what the questions give away."""
    shift = np.random.default_rng(seed).permutation(len(items))
    # Rotating a random order by one place leaves no item with its own picture.
    donors = dict(zip(shift.tolist(), np.roll(shift, 1).tolist(), strict=True))
    return [Item(item.question, items[donors[number]].scene) for number, item in enumerate(items)]


def score_answer(question: Question, answer: str) -> float:
    """Accuracy (closed: the first word) or token recall (open) of one answer, in [0, 1]."""
    words = _words(answer)
    if question.is_closed:
        return float(words[:1] == [question.answer])
    truth = _words(question.answer)
    return sum(word in words for word in truth) / len(truth)


def evaluate_phantoms(items: Sequence[Item], respond: Respond, batch_size: int = 64) -> list[Scored]:
    """Ask every question and score the answers, in the order of the items.

    Args:
        items: from `make_items`.
        respond: answers a batch: pictures uint8 (72, 72, 3), None where none is shown, and questions.
        batch_size: questions a call.
    """
    results: list[Scored] = []
    for start in range(0, len(items), batch_size):
        batch = items[start : start + batch_size]
        pictures = [None if item.scene is None else render(item.scene, size=IMAGE_SIZE) for item in batch]
        answers = respond(pictures, [item.question.text for item in batch])
        for item, answer in zip(batch, answers, strict=True):
            question = item.question
            score = score_answer(question, answer)
            results.append(
                Scored(question.family, question.is_closed, question.text, question.answer, answer, score)
            )
    return results


def summarise(results: Sequence[Scored], groups: Sequence[str] | None = None) -> pd.DataFrame:
    """Mean score with a 95 % bootstrap interval, over all closed, all open, and by group.

    Args:
        results: from `evaluate_phantoms`.
        groups: the group of every result, e.g. its picture's domain (`domains_of`); its family by default.

    Returns:
        Columns `COLUMNS`: group, kind, questions, score, low, high; scores in percent.
    """
    table = pd.DataFrame([asdict(result) for result in results])
    table["group"] = table.family if groups is None else list(groups)
    rows = []
    for is_closed, kind in ((True, "closed"), (False, "open")):
        part = table[table.is_closed == is_closed]
        groups = [("all", part.score), *((family, group.score) for family, group in part.groupby("group"))]
        for name, scores in groups:
            if len(scores):
                found = bootstrap_interval(100 * scores.to_numpy())
                rows.append((name, kind, len(scores), found.estimate, found.low, found.high))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def domains_of(items: Sequence[Item]) -> list[str]:
    """The domain of each item's picture, "none" where none is shown."""
    return ["none" if item.scene is None else item.scene.domain for item in items]


def compare(first: Sequence[Scored], second: Sequence[Scored]) -> dict[str, Interval]:
    """Mean score of `first` minus that of `second` on the same questions, in points, for closed and open ones.

    Raises:
        ValueError: if the two did not answer the same questions in the same order.
    """
    asked = [[(result.question, result.truth) for result in results] for results in (first, second)]
    if asked[0] != asked[1]:
        raise ValueError(
            "the two results answer different questions; score both on the same split and rounds"
        )
    return {
        kind: paired_difference(
            [100 * result.score for result in first if result.is_closed == is_closed],
            [100 * result.score for result in second if result.is_closed == is_closed],
        )
        for is_closed, kind in ((True, "closed"), (False, "open"))
    }


def write_results(results: Sequence[Scored], manifest: Mapping[str, Any], folder: Path) -> None:
    """Write a folder: answers.jsonl (one line an answer), scores.csv and manifest.json."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(asdict(result)) + "\n" for result in results]
    (folder / "answers.jsonl").write_text("".join(lines), encoding="utf-8")
    summarise(results).to_csv(folder / "scores.csv", index=False, float_format="%.4f", lineterminator="\n")
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def read_results(folder: Path) -> tuple[list[Scored], dict[str, Any]]:
    """Answers and manifest of a folder that `write_results` wrote.

    Raises:
        ValueError: if the folder lacks a file or holds something else.
    """
    try:
        lines = (folder / "answers.jsonl").read_text(encoding="utf-8").splitlines()
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        return [Scored(**json.loads(line)) for line in lines], manifest
    except (OSError, TypeError, ValueError) as error:
        raise ValueError(
            f"{folder.name} holds no scored answers ({error}); give a folder that 'medv evaluate phantoms "
            "--output' wrote"
        ) from error


def _words(text: str) -> list[str]:
    return text.lower().replace(".", " ").replace(",", " ").split()

"""The phantom benchmark: balanced questions on held-out pictures, scored as the paper scores VQA.

Closed questions count by accuracy, open ones by token recall (the share of the true answer's words that the
answer holds). The questions are made by balanced rounds, so chance is 1 / number of answers for whoever sees no
picture. Whatever answers is behind `Respond`; this module knows no model.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from medv_lab.data.phantoms import render
from medv_lab.data.questions import Question, balanced_questions
from medv_lab.data.scenes import Scene, make_scenes

IMAGE_SIZE = 72
SCENES = 3000
SEED = 20_260_101

Respond = Callable[[Sequence[np.ndarray], Sequence[str]], list[str]]  # (pictures, questions) -> answers


@dataclass(frozen=True)
class Item:
    """One question of the benchmark and the picture it is asked about."""

    question: Question
    scene: Scene


@dataclass(frozen=True)
class Scored:
    """One answer with its score in [0, 1]."""

    family: str
    is_closed: bool
    question: str
    truth: str
    answer: str
    score: float


def make_items(split: str, rounds: int) -> list[Item]:
    """The benchmark: `rounds` balanced rounds of every probe on the first scenes of a split.

    Raises:
        ValueError: for an unknown split, or fewer than one round.
    """
    if rounds < 1:
        raise ValueError(
            f"rounds is {rounds}; it must be at least 1 (one round asks each question once per answer)"
        )
    scenes = make_scenes(split, SCENES)
    return [Item(question, scenes[question.scene]) for question in balanced_questions(scenes, rounds, SEED)]


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
        items: from `make_items` (or `shuffled`).
        respond: answers a batch: pictures uint8 (72, 72, 3) and questions.
        batch_size: questions a call.
    """
    results: list[Scored] = []
    for start in range(0, len(items), batch_size):
        batch = items[start : start + batch_size]
        answers = respond(
            [render(item.scene, size=IMAGE_SIZE) for item in batch], [item.question.text for item in batch]
        )
        for item, answer in zip(batch, answers, strict=True):
            question = item.question
            score = score_answer(question, answer)
            results.append(
                Scored(question.family, question.is_closed, question.text, question.answer, answer, score)
            )
    return results


def summarise(results: Sequence[Scored], resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Mean score with a 95 % bootstrap interval, over all closed, all open, and by family.

    Returns:
        Columns group, kind, questions, score, low, high; scores in percent.
    """
    table = pd.DataFrame([asdict(result) for result in results])
    rows = []
    for is_closed, kind in ((True, "closed"), (False, "open")):
        part = table[table.is_closed == is_closed]
        groups = [("all", part.score), *((family, group.score) for family, group in part.groupby("family"))]
        for name, scores in groups:
            low, high = bootstrap_mean(scores.to_numpy(), resamples, seed)
            rows.append((name, kind, len(scores), 100 * scores.mean(), 100 * low, 100 * high))
    return pd.DataFrame(rows, columns=["group", "kind", "questions", "score", "low", "high"])


def bootstrap_mean(scores: np.ndarray, resamples: int, seed: int) -> tuple[float, float]:
    """95 % percentile bootstrap interval of a mean."""
    rng = np.random.default_rng(seed)
    means = scores[rng.integers(0, len(scores), (resamples, len(scores)))].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def write_results(results: Sequence[Scored], path: Path) -> None:
    """One JSON line an answer."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(asdict(result)) + "\n" for result in results))


def _words(text: str) -> list[str]:
    return text.lower().replace(".", " ").replace(",", " ").split()

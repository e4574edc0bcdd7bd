"""The two nouns of every evaluation: what is asked, and what was answered.

Data sets and phantoms make a `Question`, every responder turns it into a `Prediction`, every scorer and judge reads
the pair, and every results folder holds their fields. No information is parsed out of an id or a name: whatever is
known has a field of its own.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from medv_lab.limits import parse_json, read_file
from medv_lab.store import StoreError, read_lines

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Question:
    """One question, and all that is known of its answer.

    Attributes:
        id: unique among the questions that are asked together.
        text: the question.
        image: anything `data.images.open_image` takes, a list of such, or None.
        reference: a true answer; empty where none is known.
        kind: "closed" or "open" in visual question answering; of conversations "conversation" or
            "detailed_description".
        split: of the data set, e.g. "test".
        tags: names under which scores are averaged besides the kind, e.g. {"domain": "brain mri", "family": "side"}.
        caption, context: what a judge may read of the picture, which it does not see.
        truth: what the picture shows where that is known: a phantom's `Scene`, or phrases; None elsewhere.
    """

    id: str
    text: str
    image: Any = field(default=None, repr=False, compare=False)
    reference: str = ""
    kind: str = "open"
    split: str = ""
    tags: Mapping[str, str] = field(default_factory=dict, compare=False)
    caption: str = field(default="", repr=False)
    context: str = field(default="", repr=False)
    truth: Any = field(default=None, repr=False, compare=False)

    @property
    def is_closed(self) -> bool:
        """True for a yes/no question, or one with a choice of answers."""
        return self.kind == "closed"


@dataclass(frozen=True)
class Prediction:
    """One answer, with who gave it and what it cost.

    Attributes:
        question_id: of the `Question`.
        system: what tables call whoever answered.
        text: the answer.
        run: digest of model and settings, under which a results folder's manifest describes them.
        settings: the settings in force.
        passes: forward passes (NFE); None where they cannot be known.
        seconds: wall time of the batch divided by its questions; None where nobody measured.
        batch: how many questions were answered together.
        trace: file of the answer's trace, relative to the results folder; None where none is kept.
        notes: what is to be known of the answer, as an `Answer` has it.
        refusal: why there is no answer, where an endpoint's content filter or the model refused; None elsewhere. Scores
            leave such predictions out.
    """

    question_id: str
    system: str
    text: str
    run: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    passes: int | None = None
    seconds: float | None = None
    batch: int = 1
    trace: str | None = None
    notes: tuple[str, ...] = field(default=(), compare=False)
    refusal: str | None = None

    @property
    def words(self) -> int:
        """Number of words of the answer."""
        return len(self.text.split())

    def to_dict(self) -> dict[str, Any]:
        """Return what is known, without the settings, which a results folder's manifest has once for all answers."""
        return {
            name: value
            for name, value in vars(self).items()
            if name != "settings" and value is not None and value != ()
        }

    @staticmethod
    def check(record: Mapping[str, Any]) -> None:
        """Raise a KeyError or ValueError for a record that no `to_dict` has made."""
        for name, kind in (("question_id", str), ("system", str), ("text", str), ("run", str)):
            if not isinstance(record[name], kind):
                raise ValueError(f"{name} is {record[name]!r:.40}")
        for name in ("passes", "seconds", "batch"):
            if not isinstance(record.get(name, 0), int | float):
                raise ValueError(f"{name} is {record[name]!r:.40}")

    @classmethod
    def from_dict(cls, record: Mapping[str, Any], settings: Mapping[str, Any]) -> "Prediction":
        """Read it back from a record, which may hold more, and the settings of its run."""
        known = {one.name for one in fields(cls)}
        own = {name: record[name] for name in record if name in known}
        return cls(settings=settings, **own | {"notes": tuple(record.get("notes", ()))})


def require_distinct(questions: Sequence[Question]) -> None:
    """Raise a ValueError for questions with the same id."""
    twice = [name for name, count in Counter(question.id for question in questions).items() if count > 1]
    if twice:
        raise ValueError(f"{len(twice)} question ids come twice, the first is {twice[0]!r}; ids must differ")


def pair_up(
    questions: Sequence[Question], predictions: Sequence[Prediction]
) -> list[tuple[Question, Prediction]]:
    """Return every question with its answer.

    Args:
        questions: what was asked.
        predictions: one system's answers, in the order of the questions.

    Raises:
        ValueError: if they are not the answers to these questions in this order.
    """
    asked = [question.id for question in questions]
    answered = [prediction.question_id for prediction in predictions]
    if asked != answered:
        odd = next((pair for pair in zip(asked, answered, strict=False) if pair[0] != pair[1]), None)
        raise ValueError(
            f"{len(answered)} answers were given to {len(asked)} questions"
            + (f", and {odd[1]!r} stands where {odd[0]!r} was asked" if odd else "")
            + "; give one answer per question, in the order of the questions"
        )
    return list(zip(questions, predictions, strict=True))


def answered(
    questions: Sequence[Question], predictions: Sequence[Prediction]
) -> tuple[list[Question], list[Prediction]]:
    """Return the questions that were not refused, and their answers, in order.

    Raises:
        ValueError: if these are not the answers to these questions, or all of them were refused.
    """
    pairs = [pair for pair in pair_up(questions, predictions) if pair[1].refusal is None]
    if predictions and not pairs:
        raise ValueError(
            f"all {len(predictions)} questions were refused ({predictions[0].refusal!r:.200}), so that there is "
            "nothing to score"
        )
    return [question for question, _ in pairs], [prediction for _, prediction in pairs]


def read_predictions(folder: Path) -> dict[str, list[Prediction]]:
    """Read the complete answers of a results folder by run, each in the order of its questions.

    Raises:
        ValueError: if the folder has none.
    """
    found = {}
    for run, about in read_manifest(folder).items():
        lines = read_lines(folder / f"answers-{run}.jsonl")
        if lines:
            found[run] = [Prediction.from_dict(line, about["settings"]) for line in lines]
    if not found:
        raise ValueError(f"{folder.name} has no answers; give a results folder whose run has ended")
    return found


def read_manifest(folder: Path) -> dict[str, dict[str, Any]]:
    """Read what the manifest of a results folder says of each run; {} where there is none.

    Raises:
        StoreError: if the file was damaged.
    """
    path = folder / MANIFEST
    try:
        found = parse_json(read_file(path)) if path.is_file() else {}
    except ValueError as error:
        raise StoreError(
            f"{path.name} of {folder.name} is no JSON ({error}); delete it, and run again"
        ) from error
    if not isinstance(found, dict):
        raise StoreError(f"{path.name} of {folder.name} is no table of runs; delete it, and run again")
    return found

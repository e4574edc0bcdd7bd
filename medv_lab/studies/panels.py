"""Questions and pictures of the qualitative panels, and under which settings systems answer them.

A panels folder is a results folder of `runner` with more:
    questions.jsonl   one line per `Example`
    pictures/         what the examples show
    repetition.csv    repetition of every system's descriptions at every setting, with 95 % intervals
and, where a diffusion model was asked, the trace of one description. Its manifest says of each run in which `PARTS`
of the plan it takes part.
This module reads and writes files, and needs no torch.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from medv_lab.config import PRESETS, GenerationSettings
from medv_lab.metrics.intervals import bootstrap_interval
from medv_lab.metrics.repetition import measure_repetition
from medv_lab.phantoms.questions import PROBES
from medv_lab.phantoms.rendering import render
from medv_lab.phantoms.reports import CAPTION_REQUESTS, make_caption, make_description
from medv_lab.phantoms.scenes import Scene, make_scene
from medv_lab.records import Prediction, Question
from medv_lab.store import read_lines, write_lines

QUESTIONS, REPETITION, TRACE = "questions.jsonl", "repetition.csv", "unmasking_example.npz"
GROUPS = ("description", "query", "vqa")
PARTS = (
    "main",
    "steps",
    "lengths",
    "blocks",
    "short",
)  # main: at length, from where one thing at a time is varied
SPLIT = "test"
SCENES, DESCRIPTIONS = 100, 10  # pictures to choose from; the first so many are described, two of each domain
DESCRIPTION = "Describe the image."
QUERIES = ("Describe this image in detail.", "What is the main message of this image?")
# (family, domain): two open questions and a closed one, in the order of Figure 3.
VQA = (("finding", "chest x-ray"), ("zone", "abdominal ct"), ("presence", "histology"))
METRICS = ("adjacent_duplicates", "looped")


@dataclass(frozen=True)
class Example:
    """One question of the panels.

    Attributes:
        id: names it in results.
        group: "description", "query" (both answered at length) or "vqa".
        domain: kind of image.
        question, reference: texts.
        picture: file in the panels folder.
        scene: number in the phantom test split, by which claims are checked; None for other pictures.
        phrases: texts to mark in an answer where there is no scene.
    """

    id: str
    group: str
    domain: str
    question: str
    reference: str
    picture: str
    scene: int | None = None
    phrases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.group not in GROUPS:
            raise ValueError(f"group of {self.id} is {self.group!r}; allowed are {', '.join(GROUPS)}")

    def to_question(self, folder: Path) -> Question:
        """Return the question that a system is asked, with its picture in a panels folder."""
        about = {"reference": self.reference, "kind": self.group, "tags": {"domain": self.domain}}
        return Question(self.id, self.question, folder / self.picture, **about)


@dataclass(frozen=True)
class Plan:
    """The settings that systems are asked under.

    Attributes:
        long: for descriptions and queries.
        short: for visual question answering.
        steps, lengths, blocks: Z of the sweep at the L and B of `long`; L of the sweep with Z = L and B of its own;
            B of the sweep at the L and Z of `long`.
        length_block: B of the sweep over lengths.
    """

    long: GenerationSettings
    short: GenerationSettings
    steps: tuple[int, ...]
    lengths: tuple[int, ...]
    blocks: tuple[int, ...]
    length_block: int

    def sweep(self) -> dict[GenerationSettings, list[str]]:
        """Return all settings for descriptions, `long` first, each with the parts of the plan it belongs to."""
        long, parts = self.long, {}
        wanted = [
            ("main", long),
            *(("steps", replace(long, steps=steps)) for steps in self.steps),
            *(
                ("lengths", replace(long, gen_length=length, steps=length, block_length=self.length_block))
                for length in self.lengths
            ),
            *(("blocks", replace(long, block_length=block)) for block in self.blocks),
        ]
        for part, settings in wanted:
            parts.setdefault(settings, []).append(part)
        return parts


PLANS: Mapping[str, Plan] = {
    "embedded": Plan(
        PRESETS["embedded-description"],
        PRESETS["paper-vqa"],
        steps=(96, 48, 24, 12, 6),
        lengths=(32, 64, 96, 128),
        blocks=(16, 32, 48, 96),
        length_block=32,
    ),
    "full": Plan(
        PRESETS["paper-open-ended"],
        PRESETS["paper-vqa"],
        steps=(256, 128, 64, 32, 16),
        lengths=(32, 64, 128, 256),
        blocks=(32, 64, 128, 256),
        length_block=32,
    ),
}


@dataclass(frozen=True)
class PanelAnswer:
    """An answer of a panels folder with its question.

    Attributes:
        example: the question.
        prediction: the answer.
        parts: of the plan, some of `PARTS`.
        file: the answers file it stands in.
    """

    example: Example
    prediction: Prediction
    parts: tuple[str, ...]
    file: Path

    @property
    def system(self) -> str:
        """Name of whoever answered."""
        return self.prediction.system

    @property
    def answer(self) -> str:
        """Text of the answer."""
        return self.prediction.text

    @property
    def lengths(self) -> tuple[int, int | None, int | None]:
        """(L, B, Z); B and Z are None for a system that writes from left to right."""
        settings = self.prediction.settings
        if "gen_length" in settings:
            return tuple(settings[name] for name in ("gen_length", "block_length", "steps"))
        return settings["max_new_tokens"], None, None


def phantom_examples(folder: Path) -> list[Example]:
    """Return the questions about phantoms of the test split, and write their pictures."""
    scenes = [make_scene(SPLIT, number) for number in range(SCENES)]
    examples = [
        _describe(scene, number, "Describe the image.", "description")
        for number, scene in enumerate(scenes[:DESCRIPTIONS])
    ]
    examples += [_describe(scenes[number], number, text, "query") for number, text in enumerate(QUERIES)]
    examples += [_ask(family, domain, scenes) for family, domain in VQA]
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    for example in examples:
        Image.fromarray(render(scenes[example.scene])).save(folder / example.picture, optimize=True)
    return examples


def write_examples(examples: Sequence[Example], folder: Path) -> None:
    """Write questions.jsonl."""
    write_lines(folder / QUESTIONS, [asdict(example) for example in examples])


def read_examples(path: Path) -> list[Example]:
    """Read the questions of a file of JSON Lines.

    Raises:
        ValueError: for a line that is no `Example`.
    """
    examples = []
    for number, line in enumerate(read_lines(path), 1):
        try:
            examples.append(Example(**{**line, "phrases": tuple(line.get("phrases", ()))}))
        except TypeError as error:
            raise ValueError(f"line {number} of {path.name} is no question of a panel: {error}") from error
    return examples


def read_panels(folder: Path) -> list[PanelAnswer]:
    """Read all answers of a panels folder, in the order of its manifest and questions.

    Raises:
        ValueError: for an answer to a question that the folder does not have.
    """
    by_id = {example.id: example for example in read_examples(folder / QUESTIONS)}
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    answers = []
    for run, about in manifest.items():
        file = folder / f"answers-{run}.jsonl"
        for line in read_lines(file):
            found = Prediction.from_dict(line, about["settings"])
            if found.question_id not in by_id:
                raise ValueError(
                    f"{file.name} answers {found.question_id!r}, which {QUESTIONS} does not have"
                )
            answers.append(PanelAnswer(by_id[found.question_id], found, tuple(about["parts"]), file))
    return answers


def tabulate_repetition(answers: Sequence[PanelAnswer]) -> pd.DataFrame:
    """Tabulate repetition of descriptions in words, one row per system, setting and metric, with 95 % intervals.

    Columns: system, L, B, Z, questions, words (mean), metric, estimate, low, high.
    """
    groups: dict[tuple[Any, ...], list[list[str]]] = {}
    for one in answers:
        if one.example.group == "description":
            groups.setdefault((one.system, *one.lengths), []).append(one.answer.lower().split())
    rows = []
    for key, texts in groups.items():
        measured = [measure_repetition(words) for words in texts]
        for metric in METRICS:
            found = bootstrap_interval([getattr(one, metric) for one in measured])
            mean_words = float(np.mean([len(words) for words in texts]))
            rows.append((*key, len(texts), mean_words, metric, found.estimate, found.low, found.high))
    columns = ("system", "L", "B", "Z", "questions", "words", "metric", "estimate", "low", "high")
    table = pd.DataFrame(rows, columns=columns)
    return table.astype({"L": "Int64", "B": "Int64", "Z": "Int64"})


def _describe(scene: Scene, number: int, question: str, group: str) -> Example:
    write = make_caption if question in CAPTION_REQUESTS else make_description
    reference = write(scene, np.random.default_rng(number))
    name = f"pictures/{SPLIT}-{number:02d}.png"
    return Example(f"{group}-{number:02d}", group, scene.domain, question, reference, name, number)


def _ask(family: str, domain: str, scenes: Sequence[Scene]) -> Example:
    """The first question of a family that applies to a scene of the domain with one finding."""
    for number, scene in enumerate(scenes):
        if scene.domain != domain or len(scene.findings) != 1:
            continue
        for probe in PROBES:
            answer = probe.answer(scene) if probe.family == family else None
            if answer is not None:
                picture = f"pictures/{SPLIT}-{number:02d}.png"
                return Example(f"vqa-{family}", "vqa", domain, probe.wordings[0], answer, picture, number)
    raise ValueError(f"none of {len(scenes)} pictures answers a question of {family!r} on {domain}")

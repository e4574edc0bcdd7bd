"""Questions and pictures of the qualitative panels, and under which settings systems answer them.

A panels folder is a results folder of `runner` with more:
    questions.jsonl   one line per question: id, group, domain, question, reference, picture (a file of the folder), and
                      its scene (number in the phantom test split) or phrases that are true of the picture
    pictures/         what the questions are about
    repetition.csv    repetition of every system's descriptions at every setting, with 95 % intervals
and, where a diffusion model was asked, the trace of one description. Its manifest says of each run in which `PARTS`
of the plan it takes part.
This module reads and writes files, and needs no torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from medv_lab.config import PRESETS, GenerationSettings
from medv_lab.metrics.intervals import bootstrap_interval
from medv_lab.metrics.repetition import measure_repetition
from medv_lab.phantoms.questions import PROBES
from medv_lab.phantoms.rendering import render
from medv_lab.phantoms.reports import REQUESTS, write_report
from medv_lab.phantoms.scenes import Scene, make_scene
from medv_lab.records import Prediction, Question, read_manifest, read_predictions
from medv_lab.store import read_lines, write_lines

QUESTIONS, REPETITION, TRACE = "questions.jsonl", "repetition.csv", "unmasking_example.npz"
GROUPS = ("description", "query", "vqa")
# Parts of a plan. main: at length, from where one thing at a time is varied; short: visual question answering.
PARTS = ("main", "steps", "lengths", "blocks", "short")
SPLIT = "test"
SCENES, DESCRIPTIONS = 100, 10  # pictures to choose from; the first so many are described, two of each domain
DESCRIPTION = "Describe the image."
QUERIES = ("Describe this image in detail.", "What is the main message of this image?")
# (family, domain): two open questions and a closed one, in the order of Figure 3.
VQA = (("finding", "chest x-ray"), ("zone", "abdominal ct"), ("presence", "histology"))
METRICS = ("adjacent_duplicates", "looped")
_NEEDED, _KNOWN = ("id", "group", "domain", "question", "reference", "picture"), ("scene", "phrases")


@dataclass(frozen=True)
class PanelPlan:
    """The settings that systems are asked under.

    Attributes:
        long: for descriptions and queries.
        short: for visual question answering.
        steps, lengths, blocks: Z of the sweep at the L and B of `long`; L of the sweep with Z = L and B = 32; B of the
            sweep at the L and Z of `long`.
    """

    long: GenerationSettings
    short: GenerationSettings
    steps: tuple[int, ...]
    lengths: tuple[int, ...]
    blocks: tuple[int, ...]

    def sweep(self) -> dict[GenerationSettings, list[str]]:
        """Return all settings for descriptions, `long` first, each with the parts of the plan it belongs to."""
        brief = replace(self.long, block_length=32)
        wanted = [("main", self.long)]
        wanted += [("steps", replace(self.long, steps=steps)) for steps in self.steps]
        wanted += [("lengths", replace(brief, gen_length=length, steps=length)) for length in self.lengths]
        wanted += [("blocks", replace(self.long, block_length=block)) for block in self.blocks]
        parts: dict[GenerationSettings, list[str]] = {}
        for part, settings in wanted:
            parts.setdefault(settings, []).append(part)
        return parts


PLANS: Mapping[str, PanelPlan] = {
    "embedded": PanelPlan(
        PRESETS["embedded-description"],
        PRESETS["paper-vqa"],
        steps=(96, 48, 24, 12, 6),
        lengths=(32, 64, 96, 128),
        blocks=(16, 32, 48, 96),
    ),
    "full": PanelPlan(
        PRESETS["paper-open-ended"],
        PRESETS["paper-vqa"],
        steps=(256, 128, 64, 32, 16),
        lengths=(32, 64, 128, 256),
        blocks=(32, 64, 128, 256),
    ),
}


@dataclass(frozen=True)
class PanelAnswer:
    """An answer of a panels folder with its question.

    Attributes:
        question: of the kind "description", "query" (both answered at length) or "vqa"; its tag "domain" is the kind
            of image, its truth the `Scene`, or a tuple of phrases that are true of the picture.
        prediction: the answer.
        parts: of the plan, some of `PARTS`.
    """

    question: Question
    prediction: Prediction
    parts: tuple[str, ...]

    @property
    def lengths(self) -> tuple[int, int | None, int | None]:
        """(L, B, Z); B and Z are None for a system that writes from left to right."""
        settings = self.prediction.settings
        if "gen_length" in settings:
            return tuple(settings[name] for name in ("gen_length", "block_length", "steps"))
        return settings["max_new_tokens"], None, None

    @property
    def file(self) -> str:
        """Name of the file that the answer stands in."""
        return f"answers-{self.prediction.run}.jsonl"


def read_questions(path: Path) -> list[Question]:
    """Read the questions of a file of JSON Lines; pictures are relative to it.

    Raises:
        ValueError: for a line that is no question of a panel.
    """
    questions = []
    for number, line in enumerate(read_lines(path), 1):
        odd = sorted({*_NEEDED} - line.keys()) or sorted(line.keys() - {*_NEEDED, *_KNOWN})
        if odd or line["group"] not in GROUPS:
            raise ValueError(
                f"line {number} of {path.name} is no question of a panel ({', '.join(odd) or line['group']}); give "
                f"{', '.join(_NEEDED)}, and scene or phrases, in one of the groups {', '.join(GROUPS)}"
            )
        scene = line.get("scene")
        truth = tuple(line.get("phrases", ())) if scene is None else make_scene(SPLIT, scene)
        picture, tags = path.parent / line["picture"], {"domain": line["domain"]}
        about = {"reference": line["reference"], "kind": line["group"], "tags": tags, "truth": truth}
        questions.append(Question(line["id"], line["question"], picture, **about))
    return questions


def write_phantom_questions(folder: Path) -> None:
    """Write questions about phantoms of the test split, and their pictures."""
    scenes = [make_scene(SPLIT, number) for number in range(SCENES)]
    asked = [("description", number, DESCRIPTION) for number in range(DESCRIPTIONS)]
    asked += [("query", number, text) for number, text in enumerate(QUERIES)]
    found = []
    for group, number, text in asked:
        length = next(length for length, requests in REQUESTS.items() if text in requests)
        reference = write_report(scenes[number], np.random.default_rng(number), length)
        found.append((f"{group}-{number:02d}", group, number, text, reference))
    found += [(f"vqa-{family}", "vqa", *_ask(family, domain, scenes)) for family, domain in VQA]
    lines = []
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    for name, group, number, text, reference in found:
        picture = f"pictures/{SPLIT}-{number:02d}.png"
        Image.fromarray(render(scenes[number])).save(folder / picture, optimize=True)
        line = {"id": name, "group": group, "domain": scenes[number].domain, "question": text}
        line |= {"reference": reference, "picture": picture, "scene": number, "phrases": []}
        lines.append(line)
    write_lines(folder / QUESTIONS, lines)


def read_panels(folder: Path) -> list[PanelAnswer]:
    """Read all answers of a panels folder, in the order of its manifest and questions.

    Raises:
        ValueError: if it has none, or for an answer to a question that the folder does not have.
    """
    by_id = {question.id: question for question in read_questions(folder / QUESTIONS)}
    manifest, answers = read_manifest(folder), []
    for run, predictions in read_predictions(folder).items():
        for found in predictions:
            if found.question_id not in by_id:
                raise ValueError(f"run {run} answers {found.question_id!r}, which {QUESTIONS} does not have")
            answers.append(PanelAnswer(by_id[found.question_id], found, tuple(manifest[run]["parts"])))
    return answers


def tabulate_repetition(answers: Sequence[PanelAnswer]) -> pd.DataFrame:
    """Tabulate repetition of descriptions in words, one row per system, setting and metric, with 95 % intervals.

    Columns: system, L, B, Z, questions, words (mean), metric, estimate, low, high.
    """
    described = [one for one in answers if one.question.kind == "description"]
    groups = {(one.prediction.system, *one.lengths): [] for one in described}
    for one in described:
        groups[one.prediction.system, *one.lengths].append(one.prediction.text.lower().split())
    rows = []
    for key, texts in groups.items():
        measured = [measure_repetition(words) for words in texts]
        mean_words = float(np.mean([len(words) for words in texts]))
        for metric in METRICS:
            found = bootstrap_interval([getattr(one, metric) for one in measured])
            rows.append((*key, len(texts), mean_words, metric, found.estimate, found.low, found.high))
    columns = ("system", "L", "B", "Z", "questions", "words", "metric", "estimate", "low", "high")
    return pd.DataFrame(rows, columns=columns).astype({"L": "Int64", "B": "Int64", "Z": "Int64"})


def _ask(family: str, domain: str, scenes: Sequence[Scene]) -> tuple[int, str, str]:
    """Find the first question of a family on a scene of the domain with one finding: scene, question, answer."""
    for number, scene in enumerate(scenes):
        if scene.domain == domain and len(scene.findings) == 1:
            for probe in PROBES:
                answer = probe.answer(scene) if probe.family == family else None
                if answer is not None:
                    return number, probe.wordings[0], answer
    raise ValueError(f"none of {len(scenes)} pictures answers a question of {family!r} on {domain}")

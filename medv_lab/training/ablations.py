"""The training ablations: a grid of arms and seeds, trained, scored and tabulated.

A cell is an arm trained with a seed, stage by stage, and scored. Cells are records of one store under a hash of all
that decides them, so none is run twice, by whichever process or machine; the weights after every stage are shared
among arms in the same way (`medv_lab.training.stages`). Changes of recipes, data, tokenizer and vision tower give
another digest; after one to the model or the trainer ask for `fresh` weights.

A results folder has
    store/                      the records
    cells/ARM-EQUAL-SEED.json   one cell: scores, seconds, digest of its recipe, manifest
    table.csv                   arms in rows: mean over seeds and 95 % interval of every score
    differences.csv             every arm minus ours, paired by seed
"""

import copy
import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import set_seed

from medv_lab.config import GenerationSettings
from medv_lab.evaluation.autoregressive import NextTokenResponder
from medv_lab.evaluation.benchmarks import score_phantoms
from medv_lab.evaluation.responders import DiffusionResponder, Responder, describe_model
from medv_lab.evaluation.runner import answer_all
from medv_lab.metrics.intervals import Interval, seed_interval
from medv_lab.metrics.repetition import measure_repetition
from medv_lab.model.causal import MedVForNextToken
from medv_lab.model.checkpoints import load
from medv_lab.model.modeling import MedVForMaskedDiffusion, MedVLanguageModel
from medv_lab.model.processing import MedVProcessor
from medv_lab.phantoms.benchmark import make_questions
from medv_lab.phantoms.facts import score_facts
from medv_lab.phantoms.rendering import render
from medv_lab.phantoms.reports import CAPTION_REQUESTS
from medv_lab.phantoms.scenes import make_scenes
from medv_lab.records import Prediction, Question
from medv_lab.runtime import make_manifest
from medv_lab.store import Store, content_key, replace_text
from medv_lab.training.embedded import make_processor
from medv_lab.training.pipelines import (
    DATA_SETS,
    OURS,
    AblationArm,
    Amounts,
    PhantomData,
    data_digest,
    make_arms,
)
from medv_lab.training.recipes import Engine, EvalConfig
from medv_lab.training.stages import Log, Stage, StageRunner

ANSWER = GenerationSettings(gen_length=8, block_length=8, steps=8)
CAPTION = GenerationSettings(gen_length=32, block_length=32, steps=32)
HASTY_CAPTION = GenerationSettings(gen_length=32, block_length=32, steps=4)
AMOUNTS, EVALUATION, ENGINE = Amounts(), EvalConfig(), Engine()


class AblationRunner:
    """Trains and scores cells; what they share is made once.

    Args:
        cache: folder outside of the repository for weights, about 15 MB per stage, and features.
        amounts: of training data.
        evaluation: how cells are scored.
        engine: how stages are carried out.
        log: receives progress.
    """

    def __init__(
        self,
        cache: Path,
        *,
        amounts: Amounts = AMOUNTS,
        evaluation: EvalConfig = EVALUATION,
        engine: Engine = ENGINE,
        log: Log = print,
    ) -> None:
        self.amounts, self.evaluation, self.engine, self.log = amounts, evaluation, engine, log
        self.stages = StageRunner(cache, engine=engine, log=log)
        self.data = PhantomData(amounts, self.stages.cache)

    @cached_property
    def shipped(self) -> tuple[MedVForMaskedDiffusion, MedVProcessor]:
        """Load the embedded checkpoint, whose vision tower, sizes and tokenizer all arms have."""
        return load("embedded", device="cpu", dtype="float32", attn_implementation="eager")

    @cached_property
    def vision_digest(self) -> str:
        """Return the digest of the shipped vision tower."""
        return describe_model(self.shipped[0].model.vision_tower, "")["sha256"]

    def digest(self, arm: AblationArm, seed: int) -> str:
        """Hash all that decides a cell: its weights, and how it is scored."""
        weights = self.weights_digest(arm, seed, len(arm.stages))
        return content_key(weights, asdict(self.evaluation))[:16]

    def weights_digest(self, arm: AblationArm, seed: int, stages: int) -> str:
        """Hash what decides the weights of an arm after its first `stages` stages."""
        tokens = self.shipped[1].tokenizer.backend_tokenizer.to_str()
        start = [self.vision_digest, tokens, asdict(self.amounts), seed, arm.is_causal]
        trained = [[asdict(stage), data_digest(stage.data)] for stage in arm.stages[:stages]]
        return content_key(*start, trained)[:16]

    def train(self, arm: AblationArm, seed: int, *, fresh: bool = False) -> MedVLanguageModel:
        """Return the trained model of a cell.

        Args:
            arm: what to train.
            seed: of weights, data, order and noise.
            fresh: train every stage that this runner has not trained itself, whatever is kept.
        """
        # fresh weights around the shipped vision tower
        shipped = self.shipped[0]
        config = copy.deepcopy(shipped.config)
        config.is_causal = arm.is_causal
        set_seed(seed)
        kind = MedVForNextToken if arm.is_causal else MedVForMaskedDiffusion
        model = kind._from_config(config, attn_implementation="eager", dtype=torch.float32).eval()
        model.model.vision_tower.load_state_dict(shipped.model.vision_tower.state_dict())

        stages = [
            Stage(
                name=f"    {stage.data}: {stage.recipe.name}",
                key=self.weights_digest(arm, seed, number),
                recipe=stage.recipe,
                load_data=lambda stage=stage: self.data.load(stage, seed, *self.shipped, self.vision_digest),
            )
            for number, stage in enumerate(arm.stages, start=1)
        ]
        self.stages.train(model, stages, seed=seed, fresh=fresh)
        return model

    def run(self, arm: AblationArm, seed: int, *, fresh: bool = False) -> dict[str, Any]:
        """Train and score a cell.

        Returns:
            A JSON-able record of arm, seed, digest, scores, seconds and manifest.
        """
        started = time.perf_counter()
        model = self.train(arm, seed, fresh=fresh)
        trained = time.perf_counter() - started
        processor = make_processor(self.shipped[1].tokenizer, model.config)
        scores = self.score(model, processor)
        settings = {
            "arm": asdict(arm),
            "amounts": asdict(self.amounts),
            "evaluation": asdict(self.evaluation),
        }
        settings |= {"vision_tower": self.vision_digest, "compiled": self.engine.compile}
        return {
            "arm": arm.name,
            "equal": arm.equal,
            "seed": seed,
            "digest": self.digest(arm, seed),
            "steps": arm.steps,
            "scores": scores,
            "seconds": {"training": round(trained, 1), "all": round(time.perf_counter() - started, 1)},
            "manifest": make_manifest(
                settings, seed=seed, model=describe_model(model, arm.name), device="cpu", dtype="float32"
            ),
        }

    def save(self, arm: AblationArm, seed: int, folder: Path) -> None:
        """Save a cell's model with its processor as a checkpoint folder that `load` reads."""
        model = self.train(arm, seed)
        model.save_pretrained(folder)
        make_processor(self.shipped[1].tokenizer, model.config).save_pretrained(folder)

    def score(self, model: MedVLanguageModel, processor: MedVProcessor) -> dict[str, float]:
        """Measure all scores of a model, in percent."""
        brief, plain, hasty = self._responders(model, processor)
        questions = make_questions("test", self.evaluation.rounds)
        scores = measure_answers(questions, answer_all(questions, brief))
        elsewhere = make_questions("test", self.evaluation.rounds, "shuffled")
        points = score_phantoms(elsewhere, answer_all(elsewhere, brief))
        for kind in ("closed", "open"):
            own = [score for question, score in zip(elsewhere, points, strict=True) if question.kind == kind]
            scores[f"{kind} shuffled"] = 100 * np.mean(own)
        scores |= self._measure_captions(plain)
        if hasty is not None:
            scores |= {f"{name} hasty": value for name, value in self._measure_captions(hasty).items()}
        return {name: round(float(value), 4) for name, value in scores.items()}

    def _responders(
        self, model: MedVLanguageModel, processor: MedVProcessor
    ) -> tuple[Responder, Responder, Responder | None]:
        """Return those for answers, for captions, and for captions in few steps, which only a denoiser can write."""
        if isinstance(model, MedVForNextToken):
            return *(NextTokenResponder(model, processor, own) for own in (ANSWER, CAPTION)), None
        return tuple(DiffusionResponder(model, processor, own) for own in (ANSWER, CAPTION, HASTY_CAPTION))

    def _measure_captions(self, responder: Responder, batch_size: int = 50) -> dict[str, float]:
        scenes = make_scenes("test", self.evaluation.captions)
        questions = [Question(str(n), CAPTION_REQUESTS[0], render(scene)) for n, scene in enumerate(scenes)]
        texts = [prediction.text for prediction in answer_all(questions, responder, batch_size)]
        facts = [score_facts(text, scene) for text, scene in zip(texts, scenes, strict=True)]
        repetition = [measure_repetition(text.split()) for text in texts]
        return {
            "facts": 100 * np.mean([one.f1 for one in facts]),
            "facts precision": 100 * np.mean([one.precision for one in facts]),
            "facts recall": 100 * np.mean([one.recall for one in facts]),
            "duplicates": 100 * np.mean([one.adjacent_duplicates for one in repetition]),
            "words": np.mean([one.length for one in repetition]),
        }


def measure_answers(questions: list[Question], predictions: list[Prediction]) -> dict[str, float]:
    """Compute mean scores in percent of closed and of open questions: all, and by data set, domain and family."""
    groups: dict[str, list[float]] = {}
    for question, score in zip(questions, score_phantoms(questions, predictions), strict=True):
        kind, domain, family = question.kind, question.tags["domain"], question.tags["family"]
        data_set = next(name for name, domains in DATA_SETS.items() if domain in domains)
        for name in (kind, f"{kind} {data_set}", f"{kind} {domain}", f"{kind} {family}"):
            groups.setdefault(name, []).append(100 * score)
    return {name: float(np.mean(groups[name])) for name in sorted(groups)}


def run_ablations(
    arms: Sequence[AblationArm],
    seeds: Iterable[int],
    runner: AblationRunner,
    folder: Path,
    *,
    rerun: bool = False,
) -> list[dict[str, Any]]:
    """Run what is missing of a grid, all arms of one seed before the next, and write cells and tables.

    A run that is killed loses the cell in work, and of that only the stage in work. Several processes may share a
    folder; a cell that another one finishes in the meantime is not run again.

    Args:
        arms, seeds: the grid.
        runner: trains and scores.
        folder: of results.
        rerun: train and score every cell anew, shared stages too, and replace what is there.

    Returns:
        The cells of the grid.
    """
    cells = []
    with Store(folder / "store", "cells") as store:
        for seed in seeds:
            for arm in arms:
                path = folder / "cells" / f"{arm.name}-{arm.equal}-{seed}.json"
                what = f"{arm.name}, equal in {arm.equal}, seed {seed}"
                _take_exported(store, path)
                store.refresh()
                cell = arm.name, arm.equal, seed, runner.digest(arm, seed)
                runs = _count_runs(store, *cell)
                if rerun or not runs:
                    runner.log(f"{what}: {arm.steps} steps")
                    store.put(content_key(*cell, runs), runner.run(arm, seed, fresh=rerun))
                    runs += 1
                record = {k: v for k, v in store[content_key(*cell, runs - 1)].items() if k != "key"}
                text = json.dumps(record, indent=1) + "\n"
                if not path.is_file() or path.read_text(encoding="utf-8") != text:
                    replace_text(path, text)
                    write_tables(folder)
                runner.log(f"{what}: {summarise_cell(record)}")
                cells.append(record)
    return cells


def _count_runs(store: Store, *cell: Any) -> int:
    """Count the runs of a cell in the store; records never change, so a rerun adds one, and the last one stands."""
    runs = 0
    while content_key(*cell, runs) in store:
        runs += 1
    return runs


def _take_exported(store: Store, path: Path) -> None:
    """Put a cell that was exported elsewhere into the store, e.g. in a fresh clone of the repository."""
    if path.is_file():
        cell = json.loads(path.read_text(encoding="utf-8"))
        store.put(content_key(cell["arm"], cell["equal"], cell["seed"], cell["digest"], 0), cell)


def read_cells(folder: Path) -> list[dict[str, Any]]:
    """Read all cells of a results folder, in the order of the grid.

    Raises:
        ValueError: if there is none.
    """
    names = {(arm.name, arm.equal): number for number, arm in enumerate(make_arms())}
    cells = [json.loads(path.read_text(encoding="utf-8")) for path in (folder / "cells").glob("*.json")]
    if not cells:
        raise ValueError(f"{folder.name} has no cells; run `medv ablations --output` with it")
    return sorted(cells, key=lambda c: (names.get((c["arm"], c["equal"]), len(names)), c["seed"]))


def summarise_cell(cell: Mapping[str, Any]) -> str:
    """Write the main scores of a cell in one line."""
    names = ("closed", "open", "facts", "duplicates")
    return ", ".join(f"{name} {cell['scores'][name]:.1f}" for name in names)


def tabulate(cells: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Tabulate mean over seeds and 95 % interval of every score.

    Returns:
        Columns arm, equal, score, seeds, steps, mean, low, high, in the order of the cells.
    """
    return pd.DataFrame(
        [
            {"arm": arm, "equal": equal, "score": name, "seeds": len(own), "steps": own[0]["steps"]}
            | _row(seed_interval([cell["scores"][name] for cell in own]))
            for (arm, equal), own in _by_arm(cells).items()
            for name in own[0]["scores"]
        ]
    )


def compare_arms(cells: Sequence[Mapping[str, Any]], base: str = OURS) -> pd.DataFrame:
    """Subtract a base arm from every arm in every score that both have, over the seeds that both have.

    Args:
        cells: from `read_cells`.
        base: name of the arm to compare with.

    Returns:
        Columns arm, base, equal, score, seeds, mean, low, high; the base is equal in the same (steps or compute) as
        the arm, or in steps where it has no such cells.
    """
    by_arm = _by_arm(cells)
    rows = []
    for (arm, equal), own in by_arm.items():
        others = by_arm.get((base, equal)) or by_arm.get((base, "steps"), [])
        scores = {cell["seed"]: cell["scores"] for cell in others}
        pairs = [(cell["scores"], scores[cell["seed"]]) for cell in own if cell["seed"] in scores]
        if arm == base or not pairs:
            continue
        for name in (name for name in pairs[0][0] if name in pairs[0][1]):
            found = seed_interval([one[name] - other[name] for one, other in pairs])
            rows.append(
                {"arm": arm, "base": base, "equal": equal, "score": name, "seeds": len(pairs)} | _row(found)
            )
    return pd.DataFrame(rows, columns=["arm", "base", "equal", "score", "seeds", "mean", "low", "high"])


def write_tables(folder: Path) -> None:
    """Write table.csv and differences.csv from the cells."""
    cells = read_cells(folder)
    for name, table in (("table", tabulate(cells)), ("differences", compare_arms(cells))):
        replace_text(
            folder / f"{name}.csv", table.to_csv(index=False, float_format="%.3f", lineterminator="\n")
        )


def check_against(table: pd.DataFrame, cell: Mapping[str, Any]) -> pd.DataFrame:
    """Tell whether a cell's main scores lie in the intervals of a table, widened to seeds that are yet to be drawn.

    The interval of a mean over n seeds says where the mean lies; one more seed lies in a wider one, by sqrt(n + 1).

    Returns:
        Columns score, value, low, high, is_within.
    """
    own = table[(table.arm == cell["arm"]) & (table.equal == cell["equal"])].set_index("score")
    rows = []
    for name in ("closed", "open", "facts"):
        row = own.loc[name]
        half = (row.high - row["mean"]) * math.sqrt(row.seeds + 1)
        value, low, high = cell["scores"][name], row["mean"] - half, row["mean"] + half
        rows.append(
            {"score": name, "value": value, "low": low, "high": high, "is_within": low <= value <= high}
        )
    return pd.DataFrame(rows)


def _by_arm(cells: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], list[Mapping[str, Any]]]:
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for cell in cells:
        found.setdefault((cell["arm"], cell["equal"]), []).append(cell)
    return found


def _row(interval: Interval) -> dict[str, float]:
    return {"mean": interval.estimate, "low": interval.low, "high": interval.high}

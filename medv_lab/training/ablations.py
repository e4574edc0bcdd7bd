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
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pandas.core.groupby import SeriesGroupBy
from transformers import set_seed

from medv_lab.config import GenerationSettings
from medv_lab.evaluation.autoregressive import NextTokenResponder
from medv_lab.evaluation.benchmarks import score_phantoms
from medv_lab.evaluation.responders import DiffusionResponder, Responder, describe_model
from medv_lab.evaluation.runner import answer_all
from medv_lab.metrics.intervals import seed_interval
from medv_lab.metrics.repetition import measure_repetition
from medv_lab.model.causal import MedVForNextToken
from medv_lab.model.checkpoints import load
from medv_lab.model.modeling import MedVForMaskedDiffusion, MedVLanguageModel
from medv_lab.model.processing import MedVProcessor
from medv_lab.phantoms.benchmark import make_questions
from medv_lab.phantoms.facts import score_facts
from medv_lab.phantoms.rendering import render
from medv_lab.phantoms.reports import REQUESTS
from medv_lab.phantoms.scenes import make_scenes
from medv_lab.records import Prediction, Question
from medv_lab.runtime import ATTENTION, make_manifest, resolve_device, resolve_precision
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
from medv_lab.training.trainer import ENGINE

ANSWER = GenerationSettings(gen_length=8, block_length=8, steps=8)
CAPTION = GenerationSettings(gen_length=32, block_length=32, steps=32)
HASTY_CAPTION = GenerationSettings(gen_length=32, block_length=32, steps=4)
MAIN_SCORES = ("closed", "open", "facts", "duplicates")
AMOUNTS, EVALUATION = Amounts(), EvalConfig()


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
        self.device = resolve_device(engine.device).device
        self.attention = ATTENTION[self.device.type]

    @cached_property
    def shipped(self) -> tuple[MedVForMaskedDiffusion, MedVProcessor]:
        """Load the embedded checkpoint, whose vision tower, sizes and tokenizer all arms have."""
        return load("embedded", device=str(self.device), dtype="float32", attn_implementation=self.attention)

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
        model = kind._from_config(config, attn_implementation=self.attention, dtype=torch.float32)
        model.to(self.device).eval()
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
            "vision_tower": self.vision_digest,
            "compiled": self.engine.compile,
            "precision": [resolve_precision(stage.recipe.precision, self.device) for stage in arm.stages],
        }
        return {
            "arm": arm.name,
            "equal": arm.equal,
            "seed": seed,
            "digest": self.digest(arm, seed),
            "steps": arm.steps,
            "scores": scores,
            "seconds": {"training": round(trained, 1), "all": round(time.perf_counter() - started, 1)},
            "manifest": make_manifest(
                settings,
                seed=seed,
                model=describe_model(model, arm.name),
                device=model.device,
                dtype="float32",
            ),
        }

    def save(self, arm: AblationArm, seed: int, folder: Path) -> None:
        """Save a cell's model with its processor as a checkpoint folder that `load` reads."""
        model = self.train(arm, seed)
        model.save_pretrained(folder)
        make_processor(self.shipped[1].tokenizer, model.config).save_pretrained(folder)

    def score(self, model: MedVLanguageModel, processor: MedVProcessor) -> dict[str, float]:
        """Measure all scores of a model, in percent."""
        respond = NextTokenResponder if isinstance(model, MedVForNextToken) else DiffusionResponder
        brief, plain, hasty = (respond(model, processor, own) for own in (ANSWER, CAPTION, HASTY_CAPTION))
        asked = {kind: make_questions("test", self.evaluation.rounds, kind) for kind in ("right", "shuffled")}
        found = {kind: measure_answers(some, answer_all(some, brief)) for kind, some in asked.items()}
        scores = found["right"] | {f"{kind} shuffled": found["shuffled"][kind] for kind in ("closed", "open")}
        scores |= self._measure_captions(plain)
        if respond is DiffusionResponder:  # only a denoiser can write in few steps
            scores |= {f"{name} hasty": value for name, value in self._measure_captions(hasty).items()}
        return {name: round(float(value), 4) for name, value in scores.items()}

    def _measure_captions(self, responder: Responder, batch_size: int = 50) -> dict[str, float]:
        scenes = make_scenes("test", self.evaluation.captions)
        questions = [
            Question(str(n), REQUESTS["sentence"][0], render(scene)) for n, scene in enumerate(scenes)
        ]
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
                if path.is_file():  # exported elsewhere, if this is a fresh clone of the repository
                    there = json.loads(path.read_text(encoding="utf-8"))
                    names = (there[name] for name in ("arm", "equal", "seed", "digest"))
                    store.put(content_key(*names, 0), there)
                store.refresh()
                cell = arm.name, arm.equal, seed, runner.digest(arm, seed)
                # records never change, so a rerun adds one, and the last one stands
                runs = next(number for number in count() if content_key(*cell, number) not in store)
                if rerun or not runs:
                    runner.log(f"{what}: {arm.steps} steps")
                    store.put(content_key(*cell, runs), runner.run(arm, seed, fresh=rerun))
                    runs += 1
                record = {k: v for k, v in store[content_key(*cell, runs - 1)].items() if k != "key"}
                text = json.dumps(record, indent=1) + "\n"
                if not path.is_file() or path.read_text(encoding="utf-8") != text:
                    replace_text(path, text)
                    write_tables(folder)
                shown = (f"{name} {record['scores'][name]:.1f}" for name in MAIN_SCORES)
                runner.log(f"{what}: {', '.join(shown)}")
                cells.append(record)
    return cells


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


def tabulate(cells: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Tabulate mean over seeds and 95 % interval of every score.

    Returns:
        Columns arm, equal, score, seeds, steps, mean, low, high, in the order of the cells.
    """
    groups = _list_scores(cells).groupby(["arm", "equal", "score"], sort=False)
    return _add_intervals(groups.agg(seeds=("seed", "size"), steps=("steps", "first")), groups.value)


def compare_arms(cells: Sequence[Mapping[str, Any]], base: str = OURS) -> pd.DataFrame:
    """Subtract a base arm from every arm in every score that both have, over the seeds that both have.

    Args:
        cells: from `read_cells`.
        base: name of the arm to compare with.

    Returns:
        Columns arm, base, equal, score, seeds, mean, low, high; the base is equal in the same (steps or compute) as
        the arm, or in steps where it has no such cells.
    """
    scores = _list_scores(cells)
    own, others = scores[scores.arm != base], scores[scores.arm == base]
    own = own.assign(base=base, against=own.equal.where(own.equal.isin(others.equal), "steps"))
    pairs = own.merge(
        others,
        left_on=["against", "score", "seed"],
        right_on=["equal", "score", "seed"],
        suffixes=("", " of base"),
    )
    pairs["difference"] = pairs["value"] - pairs["value of base"]
    groups = pairs.groupby(["arm", "base", "equal", "score"], sort=False)
    return _add_intervals(groups.agg(seeds=("seed", "size")), groups.difference)


def _list_scores(cells: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """List every score of every cell, one per row."""
    about = ("arm", "equal", "seed", "steps")
    rows = [
        {name: cell[name] for name in about} | {"score": score, "value": value}
        for cell in cells
        for score, value in cell["scores"].items()
    ]
    return pd.DataFrame(rows)


def _add_intervals(table: pd.DataFrame, values: SeriesGroupBy) -> pd.DataFrame:
    """Add mean, low and high of the values of every row's seeds."""
    found = [seed_interval(own) for _, own in values]
    return table.assign(
        mean=[one.estimate for one in found], low=[one.low for one in found], high=[one.high for one in found]
    ).reset_index()


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
    own = own.loc[["closed", "open", "facts"]]
    half = (own.high - own["mean"]) * np.sqrt(own.seeds + 1)
    value, low, high = own.index.map(cell["scores"]), own["mean"] - half, own["mean"] + half
    found = pd.DataFrame(
        {"value": value, "low": low, "high": high, "is_within": (low <= value) & (value <= high)}
    )
    return found.reset_index()

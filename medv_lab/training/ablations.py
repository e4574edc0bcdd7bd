"""Cells of the training ablations: an arm trained with a seed, stage by stage, and scored.

The weights after every stage are kept under a hash of all that decides them (`medv_lab.training.stages`), so arms that
begin alike share that part, whichever process trains it. Changes of recipes, data, tokenizer and vision tower give
another digest; after one to the model or the trainer ask for `fresh` weights.

A cell keeps the outcome of every question and every text, in percent (words as they are), in the order in which
`score` asks; all means and intervals follow from them (`medv_lab.studies.ablation_grid`).
"""

import copy
import time
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from medv_lab.config import GenerationSettings
from medv_lab.evaluation.autoregressive import NextTokenResponder
from medv_lab.evaluation.benchmarks import score_phantoms
from medv_lab.evaluation.responders import DiffusionResponder, describe_model
from medv_lab.evaluation.runner import answer_all
from medv_lab.metrics.repetition import measure_repetition
from medv_lab.model.causal import MedVForNextToken
from medv_lab.model.checkpoints import load
from medv_lab.model.modeling import MedVForMaskedDiffusion, MedVLanguageModel
from medv_lab.model.processing import MedVProcessor
from medv_lab.phantoms.benchmark import make_questions
from medv_lab.phantoms.facts import score_description
from medv_lab.phantoms.rendering import render
from medv_lab.phantoms.reports import REQUESTS
from medv_lab.phantoms.scenes import Scene, make_scenes
from medv_lab.records import Prediction, Question
from medv_lab.runtime import ATTENTION, make_manifest, resolve_device, resolve_precision
from medv_lab.store import content_key
from medv_lab.training.embedded import make_processor
from medv_lab.training.pipelines import DATA_SETS, AblationArm, Amounts, PhantomData, data_digest
from medv_lab.training.recipes import Engine, EvalConfig
from medv_lab.training.stages import Log, Stage, StageRunner
from medv_lab.training.trainer import ENGINE

# End of text is not suppressed: where it is, a model with little training goes on behind the end of its answer.
ANSWER = GenerationSettings(gen_length=8, block_length=8, steps=8, suppressed_tokens=())
CAPTION = replace(ANSWER, gen_length=32, block_length=32, steps=32)
HASTY_CAPTION = replace(CAPTION, steps=4)
DESCRIPTION = replace(CAPTION, gen_length=96, steps=96)
HASTY_DESCRIPTION = replace(DESCRIPTION, steps=12)
BATCH_SIZE = 50  # texts at once
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
            A JSON-able record of arm, seed, digest, steps, outcomes, seconds and manifest.
        """
        started = time.perf_counter()
        model = self.train(arm, seed, fresh=fresh)
        trained = time.perf_counter() - started
        processor = make_processor(self.shipped[1].tokenizer, model.config)
        outcomes = self.score(model, processor)
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
            "outcomes": outcomes,
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

    def score(self, model: MedVLanguageModel, processor: MedVProcessor) -> dict[str, list[float]]:
        """Score every answer and every text of a model.

        Returns:
            Outcomes by score: closed and open (all, and by data set, domain and family; "... shuffled" with another
            question's picture), then what `score_text` gives of captions, and of descriptions as "description ...";
            "... hasty" in few steps.
        """
        is_causal = isinstance(model, MedVForNextToken)
        respond = NextTokenResponder if is_causal else DiffusionResponder

        # questions
        brief, found = respond(model, processor, ANSWER), {}
        for pictures in ("right", "shuffled"):
            questions = make_questions("test", self.evaluation.rounds, pictures)
            found[pictures] = score_answers(questions, answer_all(questions, brief))
        shuffled = {f"{kind} shuffled": found["shuffled"][kind] for kind in ("closed", "open")}
        outcomes = found["right"] | shuffled

        # texts
        for prefix, length, number, settings, hasty in (
            ("", "sentence", self.evaluation.captions, CAPTION, HASTY_CAPTION),
            ("description ", "detailed", self.evaluation.descriptions, DESCRIPTION, HASTY_DESCRIPTION),
        ):
            scenes = make_scenes("test", number)
            requests = [
                Question(str(n), REQUESTS[length][0], render(scene)) for n, scene in enumerate(scenes)
            ]
            for suffix, own in (("", settings), (" hasty", hasty)):
                if suffix and is_causal:
                    continue  # only a denoiser can write in few steps
                answers = answer_all(requests, respond(model, processor, own), BATCH_SIZE)
                scores = [score_text(one.text, scene) for one, scene in zip(answers, scenes, strict=True)]
                for name in scores[0] if scores else ():
                    outcomes[f"{prefix}{name}{suffix}"] = [one[name] for one in scores]
        return {name: [_shorten(value) for value in values] for name, values in outcomes.items()}


def score_text(text: str, scene: Scene) -> dict[str, float]:
    """Score a caption or a description: what `score_description` gives, adjacent duplicates in percent, and words."""
    repetition = measure_repetition(text.split())
    shape = {"duplicates": 100 * repetition.adjacent_duplicates, "words": repetition.length}
    return score_description(text, scene) | shape


def score_answers(questions: list[Question], predictions: list[Prediction]) -> dict[str, list[float]]:
    """List scores in percent of closed and of open questions: all, and by data set, domain and family."""
    groups: dict[str, list[float]] = {}
    for question, score in zip(questions, score_phantoms(questions, predictions), strict=True):
        kind, domain, family = question.kind, question.tags["domain"], question.tags["family"]
        data_set = next(name for name, domains in DATA_SETS.items() if domain in domains)
        for name in (kind, f"{kind} {data_set}", f"{kind} {domain}", f"{kind} {family}"):
            groups.setdefault(name, []).append(100 * score)
    return {name: groups[name] for name in sorted(groups)}


def _shorten(value: float) -> float:
    """Round to a tenth of a percent, without a decimal where there is none, since every cell keeps thousands."""
    rounded = round(float(value), 1)
    return int(rounded) if rounded.is_integer() else rounded

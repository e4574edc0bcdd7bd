"""One cell of the ablations: an arm trained with a seed, stage by stage, and scored.

The weights after every stage are kept in a cache folder under a digest of all that led to them, so that arms share
what they have in common and a run that was killed loses at most the stage in work. A cache file that is there is
taken as it is; `fresh` trains anew. Changes of recipes, data, tokenizer and vision tower give another digest; after
one to the model or the trainer ask for `fresh`.
"""

import copy
import hashlib
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from medv_lab.config import GenerationSettings
from medv_lab.evaluation.autoregressive import NextTokenResponder
from medv_lab.evaluation.responders import DiffusionResponder, Query, Responder, describe_model, respond_with
from medv_lab.metrics.repetition import measure_repetition
from medv_lab.model.causal import MedVForNextToken
from medv_lab.model.checkpoints import load
from medv_lab.model.modeling import MedVForMaskedDiffusion, MedVLanguageModel
from medv_lab.model.processing import MedVProcessor
from medv_lab.phantoms.benchmark import Item, Scored, evaluate_phantoms, make_items, shuffled
from medv_lab.phantoms.facts import score_facts
from medv_lab.phantoms.rendering import render
from medv_lab.phantoms.reports import CAPTION_REQUESTS
from medv_lab.phantoms.scenes import make_scenes
from medv_lab.runtime import make_manifest, seed_everything
from medv_lab.training.embedded import make_processor
from medv_lab.training.examples import LONG_FILL_SHARE, Collator, ExampleDataset
from medv_lab.training.pipelines import DATA_SETS, Arm, Stage
from medv_lab.training.trainer import Engine, run_stage
from medv_lab.training.worlds import Amounts, PixelCollator, Worlds, data_digest, save_whole

ANSWER = GenerationSettings(gen_length=8, block_length=8, steps=8)
CAPTION = GenerationSettings(gen_length=32, block_length=32, steps=32)
HASTY_CAPTION = GenerationSettings(gen_length=32, block_length=32, steps=4)
KINDS = {"closed": True, "open": False}

Log = Callable[[str], None]


@dataclass(frozen=True)
class Exam:
    """What a cell is asked: `rounds` of balanced test questions (about 130 each) and captions of test pictures."""

    rounds: int = 4
    captions: int = 100


AMOUNTS, EXAM, ENGINE = Amounts(), Exam(), Engine()


class Workshop:
    """Trains and scores cells; what they share is made once."""

    def __init__(
        self,
        cache: Path,
        *,
        amounts: Amounts = AMOUNTS,
        exam: Exam = EXAM,
        engine: Engine = ENGINE,
        log: Log = print,
    ) -> None:
        """`cache` is a folder outside of the repository; weights take about 15 MB a stage."""
        self.cache, self.amounts, self.exam, self.engine, self.log = cache, amounts, exam, engine, log
        self.worlds = Worlds(amounts, cache)
        self._made: set[Path] = set()  # weights that this workshop trained itself

    @cached_property
    def shipped(self) -> tuple[MedVForMaskedDiffusion, MedVProcessor]:
        """The embedded checkpoint, which lends its vision tower, its sizes and its tokenizer."""
        return load("embedded", device="cpu", dtype="float32", attn_implementation="eager")

    @cached_property
    def tower(self) -> str:
        """Digest of the shipped vision tower."""
        return describe_model(self.shipped[0].model.vision_tower, "")["sha256"]

    def digest(self, arm: Arm, seed: int) -> str:
        """Digest of all that decides a cell: its weights, and what it is asked."""
        asked = [self.weights_digest(arm, seed, len(arm.stages)), asdict(self.exam)]
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]

    def weights_digest(self, arm: Arm, seed: int, stages: int) -> str:
        """Digest of what decides the weights of an arm after its first `stages` stages."""
        tokens = self.shipped[1].tokenizer.backend_tokenizer.to_str()
        asked = [self.tower, tokens, asdict(self.amounts), seed, arm.is_causal]
        asked.append([[asdict(stage), data_digest(stage.data)] for stage in arm.stages[:stages]])
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]

    def train(self, arm: Arm, seed: int, *, fresh: bool = False) -> MedVLanguageModel:
        """The trained model of a cell.

        Args:
            arm: what to train.
            seed: of weights, data, order and noise.
            fresh: train every stage that this workshop has not trained itself, whatever the cache holds.
        """
        model = self._start(arm, seed)
        files = [
            self.cache / f"{self.weights_digest(arm, seed, n + 1)}.safetensors"
            for n in range(len(arm.stages))
        ]
        usable = self._made if fresh else [file for file in files if file.is_file()]
        known = [number for number, file in enumerate(files) if file in usable]
        if known:
            model.load_state_dict(load_file(files[known[-1]]))
        for number in range(known[-1] + 1 if known else 0, len(arm.stages)):
            self._train_stage(model, arm.stages[number], seed)
            save_whole(model.state_dict(), files[number])
            self._made.add(files[number])
        return model

    def _start(self, arm: Arm, seed: int) -> MedVLanguageModel:
        """Fresh weights around the shipped vision tower."""
        lender = self.shipped[0]
        config = copy.deepcopy(lender.config)
        config.is_causal = arm.is_causal
        seed_everything(seed)
        kind = MedVForNextToken if arm.is_causal else MedVForMaskedDiffusion
        model = kind._from_config(config, attn_implementation="eager", dtype=torch.float32)
        model.model.vision_tower.load_state_dict(lender.model.vision_tower.state_dict())
        return model.eval()

    def _train_stage(self, model: MedVLanguageModel, stage: Stage, seed: int) -> None:
        tokenizer = self.shipped[1].tokenizer
        # long canvases cost too much where batches are not grouped by length
        share = LONG_FILL_SHARE if stage.recipe.group_by_length else 0.0
        dataset = ExampleDataset(self.worlds.examples(stage.data, seed), tokenizer, seed, share)
        with tempfile.TemporaryDirectory() as scratch:
            run_stage(
                model,
                stage.recipe,
                dataset,
                self._collator(model, stage),
                seed=seed,
                folder=Path(scratch),
                log=lambda line: self.log(f"    {stage.data}: {line}"),
                engine=self.engine,
            )

    def _collator(self, model: MedVLanguageModel, stage: Stage) -> Collator:
        pad = self.shipped[1].tokenizer.eos_token_id
        if stage.data == "text":
            return Collator(pad, None)
        if stage.recipe.vision_tower_lr is not None:
            return PixelCollator(pad, self.worlds.images(stage.data))
        return Collator(pad, self.worlds.features(stage.data, self.shipped[0], self.tower))

    def run(self, arm: Arm, seed: int, *, fresh: bool = False) -> dict[str, Any]:
        """Train and score a cell: a JSON-able record of arm, seed, digest, scores, seconds and manifest."""
        started = time.perf_counter()
        model = self.train(arm, seed, fresh=fresh)
        trained = time.perf_counter() - started
        processor = make_processor(self.shipped[1].tokenizer, model.config)
        scores = self.score(model, processor)
        settings = {"arm": asdict(arm), "amounts": asdict(self.amounts), "exam": asdict(self.exam)}
        settings |= {"vision_tower": self.tower, "compiled": self.engine.compile}
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

    def save(self, arm: Arm, seed: int, folder: Path) -> None:
        """Write a cell's model with its processor as a checkpoint folder that `load` reads."""
        model = self.train(arm, seed)
        model.save_pretrained(folder)
        make_processor(self.shipped[1].tokenizer, model.config).save_pretrained(folder)

    def score(self, model: MedVLanguageModel, processor: MedVProcessor) -> dict[str, float]:
        """All scores of a model, in percent; see `measure_*`."""
        brief, plain, hasty = self._responders(model, processor)
        items = make_items("test", self.exam.rounds)
        results = evaluate_phantoms(items, respond_with(brief))
        scores = measure_answers(items, results)
        elsewhere = evaluate_phantoms(shuffled(items), respond_with(brief))
        for kind, is_closed in KINDS.items():
            own = [result.score for result in elsewhere if result.is_closed is is_closed]
            scores[f"{kind} shuffled"] = 100 * np.mean(own)
        scores |= self._measure_captions(plain)
        if hasty is not None:
            scores |= {f"{name} hasty": value for name, value in self._measure_captions(hasty).items()}
        return {name: round(float(value), 4) for name, value in scores.items()}

    def _responders(
        self, model: MedVLanguageModel, processor: MedVProcessor
    ) -> tuple[Responder, Responder, Responder | None]:
        """For answers, for captions, and for captions in few steps, which only a denoiser can write."""
        if isinstance(model, MedVForNextToken):
            lengths = (ANSWER.gen_length, CAPTION.gen_length)
            return *(NextTokenResponder(model, processor, max_new_tokens=length) for length in lengths), None
        return tuple(DiffusionResponder(model, processor, own) for own in (ANSWER, CAPTION, HASTY_CAPTION))

    def _measure_captions(self, responder: Responder, batch_size: int = 50) -> dict[str, float]:
        scenes = make_scenes("test", self.exam.captions)
        queries = [Query(str(n), CAPTION_REQUESTS[0], render(scene)) for n, scene in enumerate(scenes)]
        parts = [queries[start : start + batch_size] for start in range(0, len(queries), batch_size)]
        texts = [reply.text for part in parts for reply in responder.answer(part)]
        facts = [score_facts(text, scene) for text, scene in zip(texts, scenes, strict=True)]
        repetition = [measure_repetition(text.split()) for text in texts]
        return {
            "facts": 100 * np.mean([one.f1 for one in facts]),
            "facts precision": 100 * np.mean([one.precision for one in facts]),
            "facts recall": 100 * np.mean([one.recall for one in facts]),
            "duplicates": 100 * np.mean([one.adjacent_duplicates for one in repetition]),
            "words": np.mean([one.length for one in repetition]),
        }


def measure_answers(items: list[Item], results: list[Scored]) -> dict[str, float]:
    """Mean scores in percent of closed and of open questions: all, and by data set, domain and family."""
    groups: dict[str, list[float]] = {}
    for item, result in zip(items, results, strict=True):
        kind, domain = "closed" if result.is_closed else "open", item.scene.domain
        data_set = next(name for name, domains in DATA_SETS.items() if domain in domains)
        for name in (kind, f"{kind} {data_set}", f"{kind} {domain}", f"{kind} {result.family}"):
            groups.setdefault(name, []).append(100 * result.score)
    return {name: float(np.mean(groups[name])) for name in sorted(groups)}

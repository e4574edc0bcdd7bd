"""How the embedded checkpoint is made: from nothing, by our own code, on phantoms.

    python -m medv_lab.training.embedded --output medv_lab/embedded

1. A vision tower is pretrained against statements (SigLIP's loss), then frozen.
2. A backbone is pretrained by masked diffusion, on reports without their pictures and on questions about facts that are
   given as text: what LLaDA is to LLaDA-MedV.
3. Alignment: only the projector learns, on captions.
4. Visual instruction tuning: projector and backbone learn, first on single questions alone, then on questions,
   dialogues and reports.
5. Polish: reports, more of them of pictures with two findings, where one was at times given the place of the other,
   and questions. The checkpoint is the mean of the weights before and after this stage.

Its scores on phantoms are printed at the end; `stages.json` beside it has its answers to the same questions after every
stage. The question-only baseline (`--question-only`) takes steps 2, 4 and 5 with the same dialogues and number of
steps, and never sees a picture.
"""

import argparse
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, SiglipModel, set_seed

from medv_lab.config import PRESETS
from medv_lab.evaluation.benchmarks import summarise_phantoms
from medv_lab.evaluation.responders import DiffusionResponder
from medv_lab.evaluation.runner import answer_all
from medv_lab.generation import ask
from medv_lab.inputs.prompts import SPECIAL_TOKENS, special_ids
from medv_lab.model.checkpoints import load
from medv_lab.model.configuration import MedVConfig
from medv_lab.model.modeling import MedVForMaskedDiffusion
from medv_lab.model.processing import MedVProcessor
from medv_lab.phantoms.benchmark import make_questions
from medv_lab.phantoms.questions import balanced_questions
from medv_lab.phantoms.rendering import render
from medv_lab.phantoms.reports import LENGTHS, sample_texts
from medv_lab.phantoms.scenes import Scene, make_scene, make_scenes
from medv_lab.runtime import ATTENTION, make_manifest, resolve_device, resolve_precision
from medv_lab.store import content_key, replace_text
from medv_lab.training.examples import (
    Collator,
    Example,
    dialogue_examples,
    encode_examples,
    fact_examples,
    question_examples,
    report_examples,
    training_questions,
    without_images,
)
from medv_lab.training.recipes import TEN_MINUTES, Budget, Engine
from medv_lab.training.stages import Log, Stage, StageRunner, claim_folder
from medv_lab.training.vision import STATEMENTS, VISION, frozen_features, pretrain_vision_tower, render_all

LANGUAGE = {
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    # With the usual 0.02 attention starts out flat at this width, and the pictures are made use of much later.
    "initializer_range": 0.1,
    # for about 150 positions, not for the 16,384 of the published 500,000
    "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0},
}
STAGES = ("text", "alignment", "questions", "instruct", "polish")  # behind the vision tower
STAGES_FILE = "stages.json"
RECORDED_SCENE = 5  # of the validation split
RECORDED = {
    "What type of image is this?": "embedded-vqa",
    "What abnormality is present?": "embedded-vqa",
    "Describe the image.": "embedded-description",
}
"""What is asked after every stage, and by which settings."""
SCORED = (("test", "right"), ("test", "shuffled"), ("compositional", "right"))  # (split, pictures)
ENGINE, BUDGET = Engine(save_steps=500), Budget()


def make_model(tokenizer: PreTrainedTokenizerFast, seed: int, device: str = "cpu") -> MedVForMaskedDiffusion:
    """Make a fresh embedded-size model for a tokenizer, the same on every device."""
    config = MedVConfig(
        **LANGUAGE,
        vocab_size=len(tokenizer),
        vision_config=VISION,
        mm_vision_tower=None,
        mm_patch_merge_type="flat",
        image_aspect_ratio="square",
        image_grid_pinpoints=None,
        max_position_embeddings=1024,
        tokenizer_model_max_length=1024,
        **special_ids(tokenizer).config_fields(),
    )
    set_seed(seed)
    place = resolve_device(device).device
    return MedVForMaskedDiffusion._from_config(config, attn_implementation=ATTENTION[place.type]).to(place)


def make_processor(tokenizer: PreTrainedTokenizerFast, config: MedVConfig) -> MedVProcessor:
    """Make the processor that asks as the embedded model was taught: no system prompt, the newline kept."""
    return MedVProcessor.from_config(tokenizer, config, system_prompt="", drop_after_image=False)


def make_tokenizer(texts: Sequence[str], vocab_size: int = 1024) -> PreTrainedTokenizerFast:
    """Train a small byte-level BPE tokenizer that has LLaDA's special tokens by name.

    No text is out of vocabulary, since single bytes are tokens too.

    Args:
        texts: the training corpus.
        vocab_size: upper limit of the vocabulary, special tokens and the 256 bytes included.
    """
    tokenizer = Tokenizer(models.BPE())
    # Line breaks stand alone, so that a header has the same ids whatever text follows it.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\n+"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=SPECIAL_TOKENS["start"],
        eos_token=SPECIAL_TOKENS["end_of_text"],
        pad_token=SPECIAL_TOKENS["end_of_text"],
        mask_token=SPECIAL_TOKENS["mask"],
        clean_up_tokenization_spaces=False,
    )


def learn_tokenizer(scenes: list[Scene], seed: int) -> PreTrainedTokenizerFast:
    """Train the tokenizer on what is said about phantoms."""
    corpus = sample_texts(scenes[:4000], seed) + [claim.text() for claim in STATEMENTS]
    return make_tokenizer(corpus + ["user", "assistant", "\n\n"] * 4000)


def take_vision_tower(model: MedVForMaskedDiffusion, siglip: SiglipModel) -> None:
    """Copy the pretrained vision tower as it will be saved, in fp16, without its last layer and its pooling head."""
    tower = model.model.vision_tower.vision_tower.vision_model
    source = siglip.vision_model.state_dict()
    tower.load_state_dict({name: source[name].half() for name in tower.state_dict()})


def stage_examples(stage: str, scenes: list[Scene], budget: Budget) -> list[Example]:
    """Make the dialogues of a stage: "text" (to be shown without pictures), one of the others, or "vqa"."""
    seed, rounds = budget.seed, budget.question_rounds
    if stage == "text":
        reports = [one for length in LENGTHS for one in report_examples(length, scenes, seed + 2)]
        return [*reports, *fact_examples(balanced_questions(scenes, rounds, seed + 2), scenes, seed + 2)]
    if stage == "alignment":
        return report_examples("sentence", scenes, seed)
    if stage == "vqa":
        few = scenes[: len(scenes) // 4]
        # trained on questions alone, a model forgot how to describe
        reports = [one for length in LENGTHS for one in report_examples(length, few, seed + 1)]
        return [*question_examples(balanced_questions(scenes, rounds, seed + 1)), *reports]
    questions = question_examples(training_questions(scenes, rounds, seed))
    if stage == "questions":
        return questions
    if stage == "polish":
        reports = report_examples("detailed", scenes, seed + 3)
        # of pictures with two findings alone, a model learned to find two in every picture
        more = [one for copy in (4, 5) for one in report_examples("detailed", scenes, seed + copy)]
        two = [one for one in more if len(scenes[one.scene].findings) == 2]
        few = scenes[: len(scenes) // 4]
        others = [one for length in ("sentence", "brief") for one in report_examples(length, few, seed + 3)]
        return [
            *reports,
            *two,
            *others,
            *question_examples(training_questions(scenes, max(1, rounds // 4), seed + 3)),
        ]
    # half of the rows are questions, or they are forgotten
    detailed = [one for copy in range(3) for one in report_examples("detailed", scenes, seed + copy)]
    others = [one for length in ("sentence", "brief") for one in report_examples(length, scenes, seed + 1)]
    return [*questions, *dialogue_examples(scenes[: len(scenes) // 2], seed), *detailed, *others]


def list_stages(
    budget: Budget,
    scenes: list[Scene],
    tokenizer: PreTrainedTokenizerFast,
    features: torch.Tensor | None,
) -> list[Stage]:
    """List the stages behind the vision tower.

    Args:
        budget: how much of everything.
        scenes: the training phantoms.
        tokenizer: of the model.
        features: of the frozen vision tower, (N, patches, width); None for the question-only baseline, which has no
            alignment, since without pictures the projector has nothing to learn from.
    """
    is_blind = features is None
    sizes = [budget.scenes, budget.question_rounds, budget.vision_steps, budget.seed]
    stages, recipes = [], []
    for name in STAGES:
        if is_blind and name == "alignment":
            continue
        recipe = getattr(budget, name)
        recipes.append(asdict(recipe))

        def load_data(name=name, recipe=recipe) -> tuple[list[dict], Collator]:
            examples, seen = stage_examples(name, scenes, budget), features
            if is_blind or name == "text":
                examples, seen = without_images(examples), None
            items = encode_examples(examples, tokenizer, budget.seed)
            return items, Collator(tokenizer.eos_token_id, seen)

        stages.append(Stage(name, f"{name}-{content_key(sizes, is_blind, recipes)[:16]}", recipe, load_data))
    return stages


def score_model(
    model: MedVForMaskedDiffusion, processor: MedVProcessor, split: str, rounds: int, pictures: str = "right"
) -> pd.DataFrame:
    """Score a model on rounds of balanced questions, in percent; see `summarise_phantoms`."""
    questions = make_questions(split, rounds, pictures)
    responder = DiffusionResponder(model, processor, PRESETS["embedded-vqa"])
    return summarise_phantoms(questions, answer_all(questions, responder))


def record_stage(
    model: MedVForMaskedDiffusion, processor: MedVProcessor, stage: Stage, rounds: int
) -> dict[str, Any]:
    """Return what a model scores and says after a stage: about the same questions and picture after each."""
    table = score_model(model, processor, "validation", rounds)
    scene = make_scene("validation", RECORDED_SCENE)
    return {
        "stage": stage.name,
        "steps": stage.recipe.steps,
        "device": model.device.type,
        "precision": resolve_precision(stage.recipe.precision, model.device),
        "validation": {f"{row.kind} {row.group}": round(row.score, 1) for row in table.itertuples()},
        "scene": RECORDED_SCENE,
        "answers": {
            request: ask(model, processor, render(scene), request, PRESETS[preset], progress=False).text
            for request, preset in RECORDED.items()
        },
    }


def rebuild(
    output: Path,
    *,
    question_only: bool = False,
    budget: Budget = BUDGET,
    device: str = "auto",
    log: Log = print,
) -> None:
    """Train, save and score a checkpoint; a build that was cut off goes on when it is called again.

    Args:
        output: folder of the new checkpoint; `<output>-stages` beside it keeps the weights after every stage until
            the checkpoint is there.
        question_only: train the baseline that sees no picture instead.
        budget: how much of everything.
        device: "auto" (a GPU if there is one), "cpu" or "cuda".
        log: receives progress and scores, line by line.

    Raises:
        ValueError: if the kept stages are those of another build.
        RuntimeError: if a GPU is asked for and there is none.
    """
    started = time.perf_counter()
    scratch = output.with_name(f"{output.name}-stages")
    claim_folder(scratch, {"question_only": question_only} | asdict(budget), resume=True)
    runner = StageRunner(scratch, engine=replace(ENGINE, device=device), log=log)

    # phantoms, tokenizer, fresh weights
    scenes = make_scenes("train", budget.scenes)
    tokenizer = learn_tokenizer(scenes, budget.seed)
    model = make_model(tokenizer, budget.seed, device)

    # step 1: the vision tower, and what it sees from then on
    features = None
    if not question_only:
        images = render_all(scenes)
        key = f"vision-{content_key(budget.scenes, budget.vision_steps, budget.seed)[:16]}"

        def pretrain() -> dict[str, torch.Tensor]:
            siglip = pretrain_vision_tower(
                scenes,
                images,
                tokenizer,
                steps=budget.vision_steps,
                seed=budget.seed,
                device=device,
                checkpoints=scratch / key,
                log=log,
            )
            take_vision_tower(model, siglip)
            return model.model.vision_tower.state_dict()

        model.model.vision_tower.load_state_dict(runner.cache.compute(key, pretrain))
        features = frozen_features(model, images)

    # steps 2 to 5
    record = scratch / STAGES_FILE

    def report(stage: Stage) -> None:
        if question_only:
            return
        before = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else []
        rounds = max(1, budget.score_rounds // 3)
        found = record_stage(model, make_processor(tokenizer, model.config), stage, rounds)
        replace_text(record, json.dumps([*before, found], indent=1) + "\n")
        scores = ", ".join(f"{name} {score:.0f}" for name, score in found["validation"].items())
        log(f"after {stage.name}, on validation: {scores}")

    stages = list_stages(budget, scenes, tokenizer, features)
    runner.train(model, stages, seed=budget.seed, after_stage=report)

    # the mean of the weights before and after the last stage has what it gained, and not what it forgot
    # (Wortsman et al., arXiv 2109.01903)
    before = runner.cache.load(stages[-2].key)
    model.load_state_dict(
        {name: (before[name] + after.cpu()) / 2 for name, after in model.state_dict().items()}
    )

    # the checkpoint, in half precision, and its scores
    model.half().save_pretrained(output)
    make_processor(tokenizer, model.config).save_pretrained(output)
    asked = {"vision_tower": "auto"} | {name: getattr(budget, name).precision for name in STAGES}
    used = {name: resolve_precision(precision, model.device) for name, precision in asked.items()}
    manifest = make_manifest(
        asdict(budget) | {"precision": used}, seed=budget.seed, device=model.device, dtype="float32"
    )
    replace_text(output / "manifest.json", json.dumps(manifest, indent=1) + "\n")
    if record.is_file():
        shutil.copy(record, output)
    shutil.rmtree(scratch)
    log(f"trained in {(time.perf_counter() - started) / 60:.0f} minutes")
    loaded = load(output, device=device, dtype="float32")
    for split, pictures in (("test", "none"),) if question_only else SCORED:
        table = score_model(*loaded, split, budget.score_rounds, pictures)
        table = table.to_string(index=False, float_format="{:.1f}".format)
        log(f"{split} split, pictures {pictures}: score in percent, 95 % interval\n{table}")


def main() -> None:
    """Run the command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description="Rebuild the embedded checkpoint from nothing.")
    parser.add_argument("--output", type=Path, required=True, help="folder of the new checkpoint")
    parser.add_argument(
        "--question-only", action="store_true", help="train the baseline that sees no picture"
    )
    parser.add_argument(
        "--quick", action="store_true", help="the recipe of ten minutes, not that of the shipped checkpoint"
    )
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    arguments = parser.parse_args()
    rebuild(
        arguments.output,
        question_only=arguments.question_only,
        budget=TEN_MINUTES if arguments.quick else BUDGET,
        device=arguments.device,
        log=lambda line: print(line, flush=True),
    )


if __name__ == "__main__":
    main()

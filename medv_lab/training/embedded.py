"""How the embedded checkpoint is made: from nothing, by our own code, on phantoms.

    python -m medv_lab.training.embedded --output medv_lab/embedded

1. A vision tower is pretrained against statements (SigLIP's loss), then frozen.
2. A language tower is pretrained on captions and descriptions without their pictures, by masked diffusion: the small
   world's LLaDA.
3. Alignment: only the projector learns, on captions.
4. Visual instruction tuning: projector and language tower learn, first on single questions alone, then on questions,
   dialogues, descriptions and captions.
5. Fine-tuning: projector and language tower learn, on single questions and a few texts.

Its scores on phantoms are printed at the end. The question-only baseline (`--question-only`) takes steps 2, 4 and 5
with the same dialogues and number of steps, and never sees a picture.
"""

import argparse
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast, SiglipModel

from medv_lab.evaluation.responders import make_respond
from medv_lab.model.checkpoints import load
from medv_lab.model.configuration import MedVConfig
from medv_lab.model.modeling import MedVForMaskedDiffusion
from medv_lab.model.processing import MedVProcessor
from medv_lab.model.prompts import special_ids
from medv_lab.phantoms.benchmark import evaluate_phantoms, make_items, summarise
from medv_lab.phantoms.questions import PROBES, Question, balanced_questions
from medv_lab.phantoms.reports import sample_texts
from medv_lab.phantoms.scenes import Scene, make_scenes
from medv_lab.runtime import make_manifest, seed_everything
from medv_lab.training.examples import (
    LONG_FILL_SHARE,
    Collator,
    Example,
    ExampleDataset,
    caption_examples,
    description_examples,
    dialogue_examples,
    question_examples,
    without_images,
)
from medv_lab.training.recipes import EMBEDDED, Recipe
from medv_lab.training.resuming import claim_folder
from medv_lab.training.tokenizer import make_tokenizer
from medv_lab.training.trainer import Engine, run_stage
from medv_lab.training.vision import (
    STATEMENTS,
    VISION,
    evaluate_statements,
    pretrain_vision_tower,
    render_all,
    to_pixels,
)

LANGUAGE = {
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    # With the usual 0.02 attention starts out flat at this width, and the pictures are made use of much later.
    "initializer_range": 0.1,
}
FEW_ANSWERS = ("side", "zone", "extent", "normality")  # so few of the balanced questions are theirs
LATE = ("presence", "modality")  # yes/no questions about these are learned last


SCORED = (("test", "right"), ("test", "shuffled"), ("compositional", "right"))  # (split, pictures)

ENGINE = Engine(save_steps=500, keep=1)
Log = Callable[[str], None]


@dataclass(frozen=True)
class Budget:
    """How much of everything. The shipped checkpoint came from earlier numbers, which its manifest holds."""

    scenes: int = 20_000
    question_rounds: int = 500
    vision_steps: int = 2400
    text: Recipe = EMBEDDED["text"]
    alignment: Recipe = EMBEDDED["alignment"]
    questions: Recipe = EMBEDDED["questions"]
    instruct: Recipe = EMBEDDED["instruct"]
    vqa: Recipe = EMBEDDED["vqa"]
    score_rounds: int = 6
    seed: int = 0

    def stages(self) -> dict[str, Recipe]:
        """The recipes of what follows the vision tower, in order."""
        return {name: getattr(self, name) for name in EMBEDDED}


def make_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> MedVForMaskedDiffusion:
    """A fresh embedded-size model for a tokenizer."""
    special = special_ids(tokenizer)
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
        bos_token_id=special.start,
        eos_token_id=special.end_of_text,
        mask_token_id=special.mask,
        start_header_token_id=special.start_header,
        end_header_token_id=special.end_header,
        eot_token_id=special.end_of_turn,
    )
    seed_everything(seed)
    return MedVForMaskedDiffusion._from_config(config, attn_implementation="eager")


def make_processor(tokenizer: PreTrainedTokenizerFast, config: MedVConfig) -> MedVProcessor:
    """The processor that asks as the embedded model was taught: no system prompt, the newline kept."""
    return MedVProcessor.from_config(tokenizer, config, system_prompt="", drop_after_image=False)


def learn_tokenizer(scenes: list[Scene], seed: int) -> PreTrainedTokenizerFast:
    """The tokenizer of the small world."""
    corpus = sample_texts(scenes[:4000], seed) + [claim.text() for claim in STATEMENTS]
    return make_tokenizer(corpus + ["user", "assistant", "\n\n"] * 4000)


def take_vision_tower(model: MedVForMaskedDiffusion, siglip: SiglipModel) -> None:
    """Copy the pretrained image tower as it will be saved, in fp16; its last layer and its pooling head stay behind."""
    tower = model.model.vision_tower.vision_tower.vision_model
    source = siglip.vision_model.state_dict()
    tower.load_state_dict({name: source[name].half() for name in tower.state_dict()})


@torch.no_grad()
def frozen_features(model: MedVForMaskedDiffusion, images: torch.Tensor, batch: int = 500) -> torch.Tensor:
    """The frozen tower's features of all pictures, fp16, (N, patches, vision width)."""
    return torch.cat([model.vision_features(to_pixels(part)).half() for part in images.split(batch)])


def training_questions(scenes: list[Scene], budget: Budget, seed: int) -> list[Question]:
    """Balanced questions, those of families with few answers three times as often as the benchmark asks them."""
    more = [probe for probe in PROBES if probe.family in FEW_ANSWERS]
    return [
        *balanced_questions(scenes, budget.question_rounds, seed),
        *balanced_questions(scenes, 2 * budget.question_rounds, seed, more),
    ]


def fine_tuning_questions(scenes: list[Scene], budget: Budget, seed: int) -> list[Question]:
    """Balanced questions, yes/no ones on presence and modality twice as often as the benchmark asks them."""
    more = [probe for probe in PROBES if probe.family in LATE and probe.is_closed]
    return [
        *balanced_questions(scenes, budget.question_rounds, seed),
        *balanced_questions(scenes, budget.question_rounds, seed, more),
    ]


def instruction_examples(scenes: list[Scene], budget: Budget) -> list[Example]:
    """Stage 2: mostly single questions, then texts and dialogues."""
    texts = len(scenes) // 2
    return [
        *question_examples(training_questions(scenes, budget, budget.seed)),
        *caption_examples(scenes, budget.seed),
        *caption_examples(scenes, budget.seed + 1),
        *description_examples(scenes[:texts], budget.seed),
        *dialogue_examples(scenes[:texts], budget.seed),
    ]


def stage_examples(stage: str, scenes: list[Scene], budget: Budget) -> list[Example]:
    """The dialogues of a stage: "text" (to be shown without pictures), "alignment", "questions", "instruct", "vqa"."""
    if stage == "text":
        return [
            *caption_examples(scenes, budget.seed + 2),
            *description_examples(scenes[: len(scenes) // 2], budget.seed + 2),
        ]
    if stage == "alignment":
        return caption_examples(scenes, budget.seed)
    if stage == "questions":
        return question_examples(training_questions(scenes, budget, budget.seed))
    if stage == "instruct":
        return instruction_examples(scenes, budget)
    few = scenes[: len(scenes) // 4]  # trained on questions alone, a model forgot how to describe
    return [
        *question_examples(fine_tuning_questions(scenes, budget, budget.seed + 1)),
        *caption_examples(few, budget.seed + 1),
        *description_examples(few, budget.seed + 1),
    ]


class Builder:
    """Builds the embedded model (or the question-only baseline) stage by stage, logging as it goes.

    Every stage has a seed of its own, so that a build that was cut off goes on to the same weights.
    """

    def __init__(self, budget: Budget, folder: Path, log: Log) -> None:
        """Draw the scenes and train the tokenizer; `folder` keeps the weights after every stage."""
        self.budget, self.folder, self.log = budget, folder, log
        self.scenes = make_scenes("train", budget.scenes)
        self.tokenizer = learn_tokenizer(self.scenes, budget.seed)
        self.model = make_model(self.tokenizer, budget.seed)
        self.images: torch.Tensor | None = None

    def pretrain_vision(self) -> None:
        """Step 1: the vision tower."""
        siglip = pretrain_vision_tower(
            self.scenes,
            self.images,
            self.tokenizer,
            steps=self.budget.vision_steps,
            seed=self.budget.seed,
            log=self.log,
        )
        held = make_scenes("validation", 1000)
        self.log(f"vision tower names {evaluate_statements(siglip, held, render_all(held), self.tokenizer)}")
        take_vision_tower(self.model, siglip)

    def train(self, recipe: Recipe, examples: list[Example], features: torch.Tensor | None) -> None:
        """One stage on examples; `features` of the pictures, or None for text alone."""
        # long answers cost too much where batches are not grouped by length
        share = LONG_FILL_SHARE if recipe.group_by_length else 0
        dataset = ExampleDataset(examples, self.tokenizer, self.budget.seed, share)
        run_stage(
            self.model,
            recipe,
            dataset,
            Collator(self.tokenizer.eos_token_id, features),
            seed=self.budget.seed,
            folder=self.folder / recipe.name,
            log=self.log,
            engine=ENGINE,
            resume=True,
        )

    def build(self, question_only: bool) -> None:
        """All steps in order, those that the folder already has left out."""
        features = None
        if not question_only:
            self.images = render_all(self.scenes)
            self.step("vision", self.pretrain_vision)
            features = frozen_features(self.model, self.images)
        for stage, recipe in self.budget.stages().items():
            if question_only and stage == "alignment":
                continue  # without pictures the projector has nothing to learn from
            examples = stage_examples(stage, self.scenes, self.budget)
            if question_only or stage == "text":
                examples = without_images(examples)
            seen = None if question_only or stage == "text" else features
            self.step(stage, lambda r=recipe, e=examples, f=seen: self.train(r, e, f))
            if seen is not None:
                self.log(f"after {stage}, on validation: {self.probe()}")

    def step(self, name: str, work: Callable[[], None]) -> None:
        """Do the work and keep the weights, or take the weights that are kept."""
        kept = self.folder / f"{name}.safetensors"
        if kept.is_file():
            self.log(f"{name}: taken from {kept.name}")
            self.model.load_state_dict(load_file(kept))
            return
        work()
        draft = kept.with_suffix(".draft")
        save_file(self.model.state_dict(), draft)
        draft.replace(kept)

    def probe(self) -> str:
        """Scores on a few rounds of validation questions, in percent."""
        respond = make_respond(self.model, make_processor(self.tokenizer, self.model.config))
        rounds = max(1, self.budget.score_rounds // 3)
        table = summarise(evaluate_phantoms(make_items("validation", rounds), respond))
        return ", ".join(f"{row.kind} {row.group} {row.score:.0f}" for row in table.itertuples())

    def save(self, output: Path) -> None:
        """Write model (fp16), processor and manifest to a folder."""
        self.model.half().save_pretrained(output)
        make_processor(self.tokenizer, self.model.config).save_pretrained(output)
        manifest = make_manifest(
            asdict(self.budget), seed=self.budget.seed, device="cpu", dtype="bfloat16 autocast"
        )
        (output / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


def rebuild(
    output: Path, *, question_only: bool = False, budget: Budget = Budget(), log: Log = print
) -> None:
    """Train, save and score a checkpoint; a build that was cut off goes on when it is called again.

    Args:
        output: folder of the new checkpoint; `<output>-stages` beside it keeps the weights after every stage until
            the checkpoint is there.
        question_only: train the baseline that sees no picture instead.
        budget: how much of everything.
        log: receives progress and scores, line by line.

    Raises:
        ValueError: if the kept stages are those of another build.
    """
    torch.set_num_threads(1)
    started = time.perf_counter()
    scratch = output.with_name(f"{output.name}-stages")
    claim_folder(scratch, {"question_only": question_only} | asdict(budget), resume=True)
    builder = Builder(budget, scratch, log)
    builder.build(question_only)
    builder.save(output)
    shutil.rmtree(scratch)
    log(f"trained in {(time.perf_counter() - started) / 60:.0f} minutes")
    model, processor = load(output, device="cpu")
    respond = make_respond(model, processor)
    for split, pictures in (("test", "none"),) if question_only else SCORED:
        results = evaluate_phantoms(make_items(split, budget.score_rounds, pictures), respond)
        table = summarise(results).to_string(index=False, float_format="{:.1f}".format)
        log(f"{split} split, pictures {pictures}: score in percent, 95 % interval\n{table}")


def main() -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description="Rebuild the embedded checkpoint from nothing.")
    parser.add_argument("--output", type=Path, required=True, help="folder of the new checkpoint")
    parser.add_argument(
        "--question-only", action="store_true", help="train the baseline that sees no picture"
    )
    arguments = parser.parse_args()
    rebuild(arguments.output, question_only=arguments.question_only, log=lambda line: print(line, flush=True))


if __name__ == "__main__":
    main()

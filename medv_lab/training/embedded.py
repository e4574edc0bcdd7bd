"""How the embedded checkpoint is made: from nothing, by our own code, on phantoms.

    python -m medv_lab.training.embedded --output medv_lab/embedded

1. A vision tower is pretrained against statements (SigLIP's loss), then frozen.
2. A language tower is pretrained on text alone by masked diffusion: the small world's LLaDA. It reads captions and
   answers questions about them, so that it knows what words mean to each other before it sees.
3. Alignment: only the projector learns, on captions.
4. Visual instruction tuning: projector and language tower learn, on questions, dialogues, descriptions, captions.
5. Fine-tuning: projector and language tower learn, on single questions.

Its scores on phantoms are printed at the end. The question-only baseline (`--question-only`) takes steps 4 and 5
with the same dialogues and number of steps, from the same language tower, and never sees a picture.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast, SiglipModel

from medv_lab.data.dialogues import sample_texts
from medv_lab.data.questions import PROBES, Question, balanced_questions
from medv_lab.data.scenes import Scene, make_scenes
from medv_lab.evaluation.phantoms import evaluate_phantoms, make_items, summarise
from medv_lab.evaluation.responders import make_respond
from medv_lab.model.checkpoints import load
from medv_lab.model.configuration import MedVConfig
from medv_lab.model.modeling import MedVForMaskedDiffusion
from medv_lab.model.processing import MedVProcessor
from medv_lab.model.prompts import special_ids
from medv_lab.runtime import make_manifest, seed_everything
from medv_lab.training.examples import (
    Collator,
    Example,
    ExampleDataset,
    caption_examples,
    description_examples,
    dialogue_examples,
    question_examples,
    reading_examples,
    without_images,
)
from medv_lab.training.stages import EMBEDDED, Recipe
from medv_lab.training.tokenizer import make_tokenizer
from medv_lab.training.trainer import run_stage
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
HARD_FAMILIES = ("side", "zone", "extent", "normality")  # few answers, so few of the balanced questions


SCORED = (("test", "right"), ("test", "shuffled"), ("compositional", "right"))  # (split, pictures)

Log = Callable[[str], None]


@dataclass(frozen=True)
class Budget:
    """How much of everything. The shipped checkpoint came from earlier numbers, which its manifest holds."""

    scenes: int = 20_000
    question_rounds: int = 500
    vision_steps: int = 2400
    text: Recipe = EMBEDDED["text"]
    align: Recipe = EMBEDDED["alignment"]
    instruct: Recipe = EMBEDDED["instruct"]
    vqa: Recipe = EMBEDDED["vqa"]
    score_rounds: int = 6
    seed: int = 0


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
    """Balanced questions, those of the hard families three times as often as the benchmark asks them."""
    hard = [probe for probe in PROBES if probe.family in HARD_FAMILIES]
    return [
        *balanced_questions(scenes, budget.question_rounds, seed),
        *balanced_questions(scenes, 2 * budget.question_rounds, seed, hard),
    ]


def instruction_examples(scenes: list[Scene], budget: Budget) -> list[Example]:
    """Stage 2: mostly single questions (they teach fastest at this size), then texts and dialogues."""
    texts = len(scenes) // 2
    return [
        *question_examples(training_questions(scenes, budget, budget.seed)),
        *caption_examples(scenes[:texts], budget.seed),
        *description_examples(scenes[:texts], budget.seed),
        *dialogue_examples(scenes[:texts], budget.seed),
    ]


def stage_examples(stage: str, scenes: list[Scene], budget: Budget) -> list[Example]:
    """The dialogues of a stage: "alignment", "instruct" or "vqa"."""
    if stage == "alignment":
        return caption_examples(scenes, budget.seed)
    if stage == "instruct":
        return instruction_examples(scenes, budget)
    few = scenes[: len(scenes) // 4]  # trained on questions alone, a model forgot how to describe
    return [
        *question_examples(training_questions(scenes, budget, budget.seed + 1)),
        *caption_examples(few, budget.seed + 1),
        *description_examples(few, budget.seed + 1),
    ]


class Builder:
    """Builds the embedded model (or the question-only baseline) stage by stage, logging as it goes."""

    def __init__(self, budget: Budget, folder: Path, log: Log) -> None:
        """Draw the scenes and train the tokenizer; `folder` is scratch space."""
        self.budget, self.folder, self.log = budget, folder, log
        self.scenes = make_scenes("train", budget.scenes)
        self.tokenizer = learn_tokenizer(self.scenes, budget.seed)
        self.model = make_model(self.tokenizer, budget.seed)

    def pretrain_vision(self) -> torch.Tensor:
        """Steps 1: the vision tower; returns the features of all training pictures."""
        images = render_all(self.scenes)
        siglip = pretrain_vision_tower(
            self.scenes,
            images,
            self.tokenizer,
            steps=self.budget.vision_steps,
            seed=self.budget.seed,
            log=self.log,
        )
        held = make_scenes("validation", 1000)
        self.log(f"vision tower names {evaluate_statements(siglip, held, render_all(held), self.tokenizer)}")
        take_vision_tower(self.model, siglip)
        return frozen_features(self.model, images)

    def pretrain_language(self) -> None:
        """Step 2: the language tower, on text alone: captions, descriptions, and questions about captions."""
        questions = training_questions(self.scenes, self.budget, self.budget.seed + 2)
        texts = [
            *reading_examples(self.scenes, questions, self.budget.seed),
            *without_images(caption_examples(self.scenes, self.budget.seed + 2)),
            *without_images(description_examples(self.scenes[: len(self.scenes) // 2], self.budget.seed + 2)),
        ]
        self.train(self.budget.text, texts, None)

    def train(self, recipe: Recipe, examples: list[Example], features: torch.Tensor | None) -> None:
        """One stage on examples; `features` of the pictures, or None for text alone."""
        dataset = ExampleDataset(examples, self.tokenizer, self.budget.seed)
        collator = Collator(self.tokenizer.eos_token_id, features)
        run_stage(
            self.model,
            recipe,
            dataset,
            collator,
            seed=self.budget.seed,
            folder=self.folder,
            log=self.log,
            # torch's own generator, so that order and noise come from one seed as in earlier builds
            generator=torch.default_generator,
        )

    def build(self, question_only: bool) -> None:
        """All steps in order."""
        features = None if question_only else self.pretrain_vision()
        self.pretrain_language()
        for stage, recipe in (
            ("alignment", self.budget.align),
            ("instruct", self.budget.instruct),
            ("vqa", self.budget.vqa),
        ):
            examples = stage_examples(stage, self.scenes, self.budget)
            if not question_only:
                self.train(recipe, examples, features)
            elif stage != "alignment":
                self.train(recipe, without_images(examples), None)

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
    """Train, save and score a checkpoint.

    Args:
        output: folder of the new checkpoint.
        question_only: train the baseline that sees no picture instead.
        budget: how much of everything.
        log: receives progress and scores, line by line.
    """
    torch.set_num_threads(1)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        builder = Builder(budget, Path(scratch), log)
        builder.build(question_only)
        builder.save(output)
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

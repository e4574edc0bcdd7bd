"""Masked-diffusion training with transformers' Trainer.

The loss is the model's own (equation 4 of the paper with the reference's normalisation). What this trainer adds: one
generator of its own for order, t and masks, whose draws do not depend on the number of processes and whose state
every checkpoint holds; a learning rate for each part; checkpoints that are whole or not there.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch.utils.data import Dataset, Sampler
from transformers import PrinterCallback, Trainer, TrainingArguments
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_utils import rotate_checkpoints

from medv_lab.model.modeling import MedVLanguageModel
from medv_lab.training.adapters import add_adapters, base_model, merge_adapters
from medv_lab.training.history import History, Watch
from medv_lab.training.noise import NoiseSource
from medv_lab.training.recipes import Recipe
from medv_lab.training.resuming import (
    PARTIAL,
    clear_partial,
    find_checkpoint,
    load_generator,
    publish_checkpoint,
    save_generator,
)

LENGTH_STEP, GROUPED_BATCHES = 64, 50


@dataclass(frozen=True)
class Engine:
    """How a recipe is carried out; apart from rounding, none of it changes what is learned.

    Attributes:
        accumulation: batches whose gradients make one optimiser step.
        gradient_checkpointing: compute activations again in the backward pass instead of keeping them.
        compile: run the model through `torch.compile`.
        save_steps: optimiser steps between checkpoints; 0 writes none.
        keep: how many checkpoints are kept, the newest ones.
        log_steps: optimiser steps between reports of the loss.
    """

    accumulation: int = 1
    gradient_checkpointing: bool = False
    compile: bool = False
    save_steps: int = 0
    keep: int = 2
    log_steps: int = 100


class EpochOrder(Sampler[int]):
    """Order of one epoch, drawn from a generator when the epoch begins; `start` is the state it was drawn from.

    With lengths, dialogues are sorted within every 50 batches by length in steps of 64 tokens, and the batches are
    shuffled. Finer steps, or batches from long to short, would let one kind of question fill a run of batches.
    """

    def __init__(self, size: int, lengths: list[int] | None, batch: int, generator: torch.Generator) -> None:
        """`lengths`, if given, are used to put dialogues of like length into the same `batch`."""
        self.size, self.lengths, self.batch, self.draws = size, lengths, batch, generator
        self.start = generator.get_state()

    def __len__(self) -> int:
        return self.size

    def __iter__(self):
        self.start = self.draws.get_state()
        if self.lengths is None:
            return iter(torch.randperm(self.size, generator=self.draws).tolist())
        order = torch.randperm(self.size, generator=self.draws).tolist()
        # a list, so that all draws are made before the first batch: a resumed run makes them again
        return iter([index for batch in self._grouped(order) for index in batch])

    def _grouped(self, order: list[int]) -> Iterator[list[int]]:
        """Batches of like length; the last one of the epoch, which may be short, stays the last."""
        whole = self.size // self.batch * self.batch
        for start in range(0, whole, GROUPED_BATCHES * self.batch):
            part = order[start : min(start + GROUPED_BATCHES * self.batch, whole)]
            part.sort(key=lambda index: self.lengths[index] // LENGTH_STEP)
            for place in torch.randperm(len(part) // self.batch, generator=self.draws).tolist():
                yield part[place * self.batch : (place + 1) * self.batch]
        yield order[whole:]


class MaskedDiffusionTrainer(Trainer):
    """Trainer of one recipe; see the module's docstring for what it adds."""

    def __init__(self, *, recipe: Recipe, generator: torch.Generator, **kwargs) -> None:
        """Keep recipe and generator (on the CPU); the other arguments are transformers'."""
        super().__init__(**kwargs)
        self.recipe, self.generator = recipe, generator
        ignore_index = base_model(self.model).config.ignore_index
        self.noise = NoiseSource(recipe.levels, recipe.t_min, generator, ignore_index)
        self._writes_checkpoint = False

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Loss of one batch under the next draw of noise."""
        outputs = model(**inputs, noise=self.noise)
        if not torch.isfinite(outputs.loss):
            raise FloatingPointError(
                f"the loss is {outputs.loss.item()} in step {self.state.global_step + 1}; lower the learning rate, or "
                "check the weights that the stage starts from"
            )
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def create_optimizer(self, model=None):
        """One group of parameters for each part, with the part's learning rate; decay, if any, is for all."""
        if self.optimizer is None:
            model = self.model if model is None else model
            kind, settings = self.get_optimizer_cls_and_kwargs(self.args, model)
            parts = base_model(model).parts()
            groups = [
                {"params": [p for p in parts[part].values() if p.requires_grad], "lr": rate}
                for part, rate in self.recipe.learning_rates.items()
            ]
            self.optimizer = kind(groups, **settings | {"weight_decay": self.recipe.weight_decay})
        return self.optimizer

    def _get_train_sampler(self, train_dataset=None) -> EpochOrder:
        data = self.train_dataset if train_dataset is None else train_dataset
        lengths = [len(item["input_ids"]) for item in data] if self.recipe.group_by_length else None
        # the batch of all processes, so that the order does not depend on their number
        self.order = EpochOrder(len(data), lengths, self.recipe.batch_size, self.generator)
        return self.order

    def _run_epoch(self, **kwargs) -> None:
        if (
            self.state.global_step >= self.state.max_steps
        ):  # resumed at its end: transformers would go one step on
            self.control.should_training_stop = True
            return
        super()._run_epoch(**kwargs)

    def _get_output_dir(self, trial) -> str:
        folder = super()._get_output_dir(trial)
        return str(Path(folder) / PARTIAL) if self._writes_checkpoint else folder

    def _save(self, output_dir=None, state_dict=None) -> None:
        super()._save(output_dir, state_dict)
        (Path(output_dir) / TRAINING_ARGS_NAME).unlink(
            missing_ok=True
        )  # a pickle; the recipe is saved as JSON

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        if self.args.should_save:
            save_generator(Path(output_dir), self.generator.get_state(), self.order.start)

    def _save_checkpoint(self, model, trial) -> None:
        folder = Path(self._get_output_dir(trial))
        self._writes_checkpoint = True
        super()._save_checkpoint(model, trial)
        self._writes_checkpoint = False
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            publish_checkpoint(folder, f"checkpoint-{self.state.global_step}")
            rotate_checkpoints(str(folder), save_total_limit=self.args.save_total_limit)
        self.accelerator.wait_for_everyone()

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None and self.is_deepspeed_enabled:
            raise ValueError(
                "DeepSpeed reads its checkpoints by unpickling, which medv-lab does not do; resume with FSDP2, or "
                "start a new stage from the weights"
            )
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            # transformers draws the epoch's order again, skips what was seen, and then loads the present state
            self.generator.set_state(load_generator(Path(checkpoint))["epoch"])

    def _load_rng_state(self, checkpoint: str | None) -> None:
        super()._load_rng_state(checkpoint)
        if checkpoint is not None:
            self.generator.set_state(load_generator(Path(checkpoint))["now"])


def freeze_all_but(model: MedVLanguageModel, names: tuple[str, ...]) -> None:
    """Let only the named parts learn.

    Raises:
        ValueError: for a part that the model does not have.
    """
    parts = model.parts()
    unknown = set(names) - set(parts)
    if unknown:
        raise ValueError(f"no part {', '.join(sorted(unknown))}; the parts are {', '.join(parts)}")
    for part, parameters in parts.items():
        for parameter in parameters.values():
            parameter.requires_grad_(part in names)


def make_arguments(
    recipe: Recipe, engine: Engine, *, seed: int, folder: Path, steps: int
) -> TrainingArguments:
    """transformers' arguments for a recipe of `steps` optimiser steps.

    Raises:
        ValueError: if the recipe's batch cannot be shared out among processes and accumulation.
    """
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        gradient_accumulation_steps=engine.accumulation,
        learning_rate=max(recipe.learning_rates.values()),
        lr_scheduler_type=recipe.schedule,
        warmup_steps=max(1, round(recipe.warmup * steps)),
        adam_beta1=recipe.betas[0],
        adam_beta2=recipe.betas[1],
        adam_epsilon=recipe.eps,
        max_grad_norm=recipe.max_grad_norm,
        bf16=recipe.precision == "bf16",
        gradient_checkpointing=engine.gradient_checkpointing or None,  # False is deprecated
        torch_compile=engine.compile,
        use_cpu=not torch.cuda.is_available(),
        ddp_find_unused_parameters=True,  # the projector, in a batch without images
        remove_unused_columns=False,
        label_names=["labels"],
        save_strategy="steps" if engine.save_steps else "no",
        save_steps=engine.save_steps or 500,
        save_total_limit=engine.keep,
        report_to="none",
        logging_steps=engine.log_steps,
        disable_tqdm=True,
        seed=seed,
        dataloader_pin_memory=False,
    )
    shares = arguments.world_size * engine.accumulation
    if recipe.batch_size % shares:
        raise ValueError(
            f"batch_size is {recipe.batch_size}, to be shared out among {arguments.world_size} processes and "
            f"{engine.accumulation} accumulated batches; give a multiple of {shares}"
        )
    arguments.per_device_train_batch_size = recipe.batch_size // shares
    return arguments


def run_stage(
    model: MedVLanguageModel,
    recipe: Recipe,
    dataset: Dataset,
    collator: Callable[[Sequence[Any]], dict[str, Any]],
    *,
    seed: int,
    folder: Path,
    log=print,
    engine: Engine = Engine(),
    generator: torch.Generator | None = None,
    resume: bool = False,
    watch: Watch | None = None,
    output: Path | None = None,
) -> pd.DataFrame:
    """Train `model` in place for one stage.

    Args:
        model: the denoiser or its autoregressive twin; afterwards every parameter can learn again, and adapters are
            merged.
        recipe: what to train and how.
        dataset: encoded dialogues.
        collator: makes batches.
        seed: of order and noise.
        folder: where checkpoints go, if the engine writes any.
        log: receives progress.
        engine: how it is carried out.
        generator: source of order, t and masks (CPU); by default a new one, from the seed.
        resume: go on from the newest complete checkpoint in `folder`, if there is one.
        watch: receives the table of losses at every report.
        output: folder for the trained weights; the only way to them where they are sharded over processes. With
            sharded weights, adapters are saved as adapters.

    Returns:
        Step, epoch, loss, gradient norm and learning rate at every report.
    """
    model.config.tokenizer_model_max_length = recipe.max_length
    freeze_all_but(model, recipe.parts)
    if model.config.mm_patch_merge_type == "flat":  # no newline is put in; FSDP resumes only what has learned
        model.model.image_newline.requires_grad_(False)
    learner = model if recipe.lora is None else add_adapters(model, recipe.lora)
    history = History(recipe.name, log, watch)
    trainer = MaskedDiffusionTrainer(
        recipe=recipe,
        generator=torch.Generator().manual_seed(seed) if generator is None else generator,
        model=learner,
        args=make_arguments(recipe, engine, seed=seed, folder=folder, steps=recipe.count_steps(len(dataset))),
        train_dataset=dataset,
        data_collator=collator,
        callbacks=[history],
    )
    trainer.remove_callback(PrinterCallback)
    if trainer.args.should_save:
        clear_partial(folder)
    checkpoint = find_checkpoint(folder) if resume else None
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    is_sharded = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
    if recipe.lora is not None and not is_sharded:
        trainer.model = merge_adapters(learner)
    if output is not None:
        trainer.save_model(str(output))
    model.requires_grad_(True)
    model.eval()
    return history.frame

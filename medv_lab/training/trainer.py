"""Masked-diffusion training with transformers' Trainer: one stage of one recipe.

The loss is the model's own (equation 4 of the paper with the reference's normalisation). What this trainer adds, all
through public hooks:

- `compute_loss`: noise from one generator, whose draws do not depend on the number of processes;
- `create_optimizer`: a learning rate for each part of the model;
- `get_train_dataloader`: an order of its own, from the same generator;
- callbacks (`medv_lab.training.callbacks`): checkpoints that are whole or not there, and a table of losses.
"""

import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import torch.distributed as dist
from peft import LoraConfig, PeftModel, get_peft_model
from torch.utils.data import DataLoader, Dataset
from transformers import PrinterCallback, Trainer, TrainingArguments

from medv_lab.diffusion.forward import ForwardNoise, draw_noise
from medv_lab.model.modeling import MedVLanguageModel
from medv_lab.training.callbacks import (
    PARTIAL,
    Checkpoints,
    EpochOrder,
    LossReports,
    Watch,
    find_checkpoint,
    remove_pickled_arguments,
    tabulate_losses,
)
from medv_lab.training.recipes import Engine, LoRA, Recipe

ENGINE = Engine()
Items = Dataset | list[dict]  # encoded dialogues
Collate = Callable[[Sequence[Any]], dict[str, Any]]


class NoiseSource:
    """Draws noise levels and masks for a batch; the model calls it with its labels, images merged in.

    The numbers are drawn on the CPU for the batch of all processes, in the reference's order, and every process takes
    its own rows. So one process with a batch of 2 B and two processes with B each train on the same noise.

    Args:
        levels: "uniform", or "stratified" from `t_min` up.
        t_min: the smallest stratified level.
        generator: on the CPU.
        ignore_index: label of tokens that are not learned.
    """

    def __init__(self, levels: str, t_min: float, generator: torch.Generator, ignore_index: int) -> None:
        self.levels, self.t_min, self.generator, self.ignore_index = levels, t_min, generator, ignore_index

    def __call__(self, labels: torch.Tensor) -> ForwardNoise:
        """Draw for this process's labels (B, T), of which every process has as many rows."""
        rows, length = labels.shape
        processes, process, longest = 1, 0, length
        if dist.is_initialized():
            processes, process = dist.get_world_size(), dist.get_rank()
            lengths = torch.tensor(length, device=labels.device)
            dist.all_reduce(lengths, dist.ReduceOp.MAX)
            longest = int(lengths)

        # draw for the rows of all processes, padded to the longest
        total = rows * processes
        t = stratified_levels(total, self.t_min, self.generator) if self.levels == "stratified" else None
        every = torch.zeros(total, longest, dtype=torch.long)
        noise = draw_noise(every, t=t, generator=self.generator, ignore_index=self.ignore_index)

        # keep this process's rows
        own = slice(process * rows, (process + 1) * rows)
        t, p_mask, masked = (x[own].to(labels.device) for x in (noise.t, noise.p_mask, noise.masked))
        return ForwardNoise(t, p_mask, masked[:, :length] & (labels != self.ignore_index))


def stratified_levels(batch: int, t_min: float, generator: torch.Generator) -> torch.Tensor:
    """Draw noise levels (B,), one from each of B equal parts of [t_min, 1], in random order.

    The loss stays unbiased for t >= t_min and varies less from batch to batch. An answer of one word is masked with
    chance t and then weighs 1/t, so the variance of its loss goes with the mean of 1/t: 4.0 for t_min 0.02 and
    1.7 for 0.3.
    """
    order = torch.randperm(batch, generator=generator)
    return t_min + (1 - t_min) * ((order + torch.rand(batch, generator=generator)) / batch)


class MaskedDiffusionTrainer(Trainer):
    """Trainer of one recipe; see the module's docstring for what it adds.

    Args:
        recipe: what to train and how.
        generator: of order and noise, on the CPU.
        **kwargs: transformers' own arguments.
    """

    def __init__(self, *, recipe: Recipe, generator: torch.Generator, **kwargs) -> None:
        super().__init__(**kwargs)
        self.recipe = recipe
        self.noise = NoiseSource(recipe.levels, recipe.t_min, generator, self.model.config.ignore_index)
        data = self.train_dataset or []
        lengths = [len(item["input_ids"]) for item in data] if recipe.group_by_length else None
        self.order = EpochOrder(len(data), lengths, recipe.batch_size, generator)

    def get_train_dataloader(self) -> DataLoader:
        """Return the batches of this process, in the order that the callback draws for every epoch."""
        batches = DataLoader(
            self.train_dataset,
            batch_size=self.args.train_batch_size,
            sampler=self.order,
            collate_fn=self.data_collator,
        )
        return self.accelerator.prepare(batches)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Compute the loss of one batch under the next draw of noise.

        Raises:
            FloatingPointError: if it is not finite.
        """
        outputs = model(**inputs, noise=self.noise)
        if not torch.isfinite(outputs.loss):
            raise FloatingPointError(
                f"the loss is {outputs.loss.item()} in step {self.state.global_step + 1}; lower the learning rate, or "
                "check the weights that the stage starts from"
            )
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def create_optimizer(self, model=None):
        """Make one group of parameters per part, with the part's learning rate; decay, if any, is for all."""
        if self.optimizer is None:
            model = self.model if model is None else model
            kind, settings = self.get_optimizer_cls_and_kwargs(self.args, model)
            parts = model.parts()
            groups = [
                {"params": [p for p in parts[part].values() if p.requires_grad], "lr": rate}
                for part, rate in self.recipe.learning_rates.items()
            ]
            self.optimizer = kind(groups, **settings | {"weight_decay": self.recipe.weight_decay})
        return self.optimizer


def add_adapters(model: MedVLanguageModel, lora: LoRA) -> PeftModel:
    """Put low-rank adapters into the layers of the backbone, in place; a projector that learns goes on to learn."""
    names = "|".join(map(re.escape, lora.layers))
    is_projector_frozen = any(not p.requires_grad for p in model.parts()["projector"].values())
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules=rf"model\.layers\.\d+\..*\.({names})",
        modules_to_save=None if is_projector_frozen else ["mm_projector"],
    )
    return get_peft_model(model, config)


def freeze_all_but(model: MedVLanguageModel, names: tuple[str, ...]) -> None:
    """Let only the named parts learn."""
    for part, parameters in model.parts().items():
        for parameter in parameters.values():
            parameter.requires_grad_(part in names)


def make_arguments(
    recipe: Recipe, engine: Engine, *, seed: int, folder: Path, steps: int
) -> TrainingArguments:
    """Translate a recipe of `steps` optimiser steps into transformers' arguments; checkpoints go into `folder`.

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
        save_total_limit=2,
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
    dataset: Items,
    collator: Collate,
    *,
    seed: int,
    folder: Path,
    name: str | None = None,
    log: Callable[[str], None] = print,
    engine: Engine = ENGINE,
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
        folder: of checkpoints, if the engine writes any.
        name: of the stage, for the log; by default the recipe's.
        log: receives progress, on the main process.
        engine: how it is carried out.
        resume: go on from the newest complete checkpoint in `folder`, if there is one.
        watch: receives the table of losses at every report.
        output: folder for the trained weights; the only way to them where they are sharded over processes. With
            sharded weights, adapters are saved as adapters.

    Returns:
        Step, epoch, loss, gradient norm and learning rate at every report.

    Raises:
        ValueError: if the recipe's batch cannot be shared out, or a run under DeepSpeed is to be resumed.
        FloatingPointError: if the loss is not finite.
    """
    # what learns
    model.config.tokenizer_model_max_length = recipe.max_length
    freeze_all_but(model, recipe.parts)
    if model.config.mm_patch_merge_type == "flat":  # no newline is put in; FSDP resumes only what has learned
        model.model.image_newline.requires_grad_(False)
    torch.manual_seed(seed)  # adapters begin with draws from torch's own generator
    learner = model if recipe.lora is None else add_adapters(model, recipe.lora)

    # the trainer, with its callbacks
    steps = recipe.count_steps(len(dataset))
    generator = torch.Generator().manual_seed(seed)
    trainer = MaskedDiffusionTrainer(
        recipe=recipe,
        generator=generator,
        model=learner,
        args=make_arguments(recipe, engine, seed=seed, folder=folder / PARTIAL, steps=steps),
        train_dataset=dataset,
        data_collator=collator,
        callbacks=[LossReports(name or recipe.name, log, watch)],
    )
    trainer.remove_callback(PrinterCallback)
    checkpoint = find_checkpoint(folder) if resume else None
    if checkpoint is not None and trainer.is_deepspeed_enabled:
        raise ValueError(
            "DeepSpeed reads its checkpoints by unpickling, which medv-lab does not do; resume with FSDP2, or start a "
            "new stage from the weights"
        )
    trainer.add_callback(Checkpoints(folder, trainer.order, generator, checkpoint))

    # training, without what a killed run left half-written
    if trainer.args.should_save:
        shutil.rmtree(folder / PARTIAL, ignore_errors=True)
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))

    # the weights
    if recipe.lora is not None and not (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):
        trainer.model = learner.merge_and_unload()
    if output is not None:
        trainer.save_model(str(output))
        remove_pickled_arguments(output)
    model.requires_grad_(True)
    model.eval()
    return tabulate_losses(trainer.state)

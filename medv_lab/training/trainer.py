"""Masked-diffusion training with transformers' Trainer: one stage of one recipe.

The loss is the model's own (equation 4 of the paper with the reference's normalisation). What this trainer adds, all
through public hooks:

- `compute_loss`: noise from one generator, whose draws do not depend on the number of processes;
- `create_optimizer`: a learning rate for each part of the model, and Muon for matrices of layers;
- `get_train_dataloader`: an order of its own, from the same generator;
- callbacks (`medv_lab.training.callbacks`): checkpoints that are whole or not there, and a table of losses.
"""

import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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
from medv_lab.runtime import resolve_device, resolve_precision
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
MUON_MOMENTUM = 0.95
LAYER_MATRIX = re.compile(r"\.layers\.\d+\.(?!.*lora_).*\.weight$")
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


class MuonAdamW(torch.optim.AdamW):
    """Muon for the groups that say `is_muon`, whose parameters are matrices, and AdamW for all others.

    Muon moves a matrix by the orthogonal matrix that is nearest to its momentum (Jordan et al., 2024; as
    `torch.optim.Muon` with its defaults). One optimiser for both has one state to save, and one schedule. torch's takes
    one matrix after another, in bfloat16 on any machine: 50 times slower on a CPU that has no units for it.

    Args:
        groups: as `group_parameters` makes them.
        is_coarse: orthogonalise in bfloat16, not in float32.
        **settings: of AdamW; `weight_decay` is for all groups.
    """

    def __init__(self, groups: list[dict[str, Any]], *, is_coarse: bool, **settings) -> None:
        super().__init__(groups, **settings)
        self.dtype = torch.bfloat16 if is_coarse else torch.float32

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Adam's own looks for Adam's state in every parameter
        torch.optim.Optimizer.__setstate__(self, state)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Make one step; afterwards the matrices have no gradients, so AdamW passes over them."""
        for group in self.param_groups:
            if group.get("is_muon"):
                self._move_matrices([p for p in group["params"] if p.grad is not None], group)
        super().step()

    def _move_matrices(self, matrices: list[torch.nn.Parameter], group: dict[str, Any]) -> None:
        # Nesterov momentum; matrices of one shape are stacked, the wide way round, which saves time
        alike: dict[torch.Size, list[tuple[torch.nn.Parameter, torch.Tensor]]] = {}
        for matrix in matrices:
            momentum = self.state[matrix].setdefault("momentum", torch.zeros_like(matrix))
            momentum.lerp_(matrix.grad, 1 - MUON_MOMENTUM)
            alike.setdefault(matrix.shape, []).append((matrix, matrix.grad.lerp(momentum, MUON_MOMENTUM)))
            matrix.grad = None
        for (rows, columns), pairs in alike.items():
            updates = torch.stack([update if rows <= columns else update.T for _, update in pairs])
            updates = orthogonalise(updates.to(self.dtype)).to(updates.dtype)
            rate = group["lr"] * max(1, rows / columns) ** 0.5
            for (matrix, _), update in zip(pairs, updates, strict=True):
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                matrix.add_(update if rows <= columns else update.T, alpha=-rate)


def orthogonalise(matrices: torch.Tensor) -> torch.Tensor:
    """Bring all singular values of matrices (N, rows, columns), rows <= columns, near 1, by five Newton-Schulz steps.

    The coefficients are Muon's: they end between 0.7 and 1.2, and soon.
    """
    x = matrices / matrices.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=-4.775, alpha=2.0315), x, beta=3.4445)
    return x


def group_parameters(
    parameters: Mapping[str, torch.nn.Parameter], rate: float, muon_rate: float | None
) -> list[dict[str, Any]]:
    """Group what learns of named parameters: all but the matrices of transformer layers, and those, if for Muon."""
    learns = {name: parameter for name, parameter in parameters.items() if parameter.requires_grad}
    if muon_rate is None:
        return [{"params": list(learns.values()), "lr": rate}]
    matrices = {name for name, p in learns.items() if p.ndim == 2 and LAYER_MATRIX.search(name)}
    groups = [
        {"params": [p for name, p in learns.items() if name not in matrices], "lr": rate, "is_muon": False},
        {"params": [learns[name] for name in learns if name in matrices], "lr": muon_rate, "is_muon": True},
    ]
    return [group for group in groups if group["params"]]


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
        # To look at a number makes a GPU wait. There it is looked at before every report, every checkpoint and the end:
        # a loss that is not finite spoils the weights, and with them all later losses.
        step, arguments = self.state.global_step + 1, self.args
        is_due = step == self.state.max_steps or not (
            step % arguments.logging_steps and step % arguments.save_steps
        )
        if (is_due or outputs.loss.device.type == "cpu") and not torch.isfinite(outputs.loss):
            fault = f"the loss is {outputs.loss.item()} in step {step}; lower the learning rate, or check the weights "
            raise FloatingPointError(fault + "that the stage starts from")
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def create_optimizer(self, model=None):
        """Make one or two groups of parameters per part, with their learning rates; decay, if any, is for all."""
        if self.optimizer is None:
            model = self.model if model is None else model
            kind, settings = self.get_optimizer_cls_and_kwargs(self.args, model)
            settings["weight_decay"] = self.recipe.weight_decay
            parts, groups = model.parts(), []
            for part, rate in self.recipe.learning_rates.items():
                groups += group_parameters(parts[part], rate, self.recipe.muon_lr)
            if self.recipe.muon_lr is not None:
                if self.is_fsdp_enabled or self.is_deepspeed_enabled:
                    raise ValueError(
                        "Muon needs whole matrices, and FSDP and DeepSpeed keep parts of them; train without muon_lr"
                    )
                kind, settings["is_coarse"] = MuonAdamW, self.args.bf16
            self.optimizer = kind(groups, **settings)
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
        RuntimeError: if the engine asks for a GPU and there is none.
    """
    device = resolve_device(engine.device).device
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
        bf16=resolve_precision(recipe.precision, device) == "bf16",
        gradient_checkpointing=engine.gradient_checkpointing or None,  # False is deprecated
        use_cpu=device.type == "cpu",
        ddp_find_unused_parameters=True,  # the projector, in a batch without images
        remove_unused_columns=False,
        label_names=["labels"],
        save_strategy="steps" if engine.save_steps else "no",
        save_steps=engine.save_steps or 500,
        save_total_limit=2,
        report_to="none",
        logging_steps=engine.log_steps,
        logging_nan_inf_filter=False,  # looks at every loss, which makes a GPU wait; `compute_loss` is stricter
        disable_tqdm=True,
        seed=seed,
        dataloader_pin_memory=False,
    )
    arguments._n_gpu = min(1, arguments.n_gpu)  # several GPUs are for several processes, not for DataParallel
    shares = arguments.world_size * engine.accumulation
    if recipe.batch_size % shares:
        raise ValueError(
            f"batch_size is {recipe.batch_size}, to be shared out among {arguments.world_size} processes and "
            f"{engine.accumulation} accumulated batches; give a multiple of {shares}"
        )
    arguments.per_device_train_batch_size = recipe.batch_size // shares
    return arguments


@contextmanager
def _compiled(layers: Iterable[torch.nn.Module]) -> Iterator[None]:
    """Compile layers one by one, as long as it lasts: what is around them looks at data, where a graph would end."""
    for layer in layers:
        layer.forward = torch.compile(layer.forward, dynamic=True)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


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
        ValueError: if the recipe's batch cannot be shared out, a run under DeepSpeed is to be resumed, or a model whose
            weights are sharded is to learn by Muon.
        RuntimeError: if the engine asks for a GPU and there is none.
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
    with _compiled(model.model.layers if engine.compile else ()):
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

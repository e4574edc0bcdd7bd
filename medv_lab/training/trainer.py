"""Masked-diffusion training with transformers' Trainer.

The loss is the model's own (equation 4 of the paper with the reference's normalisation). What this trainer adds
is a draw of t that is stratified over the batch: row b takes t from the b-th of B equal parts of [t_min, 1], in
random order. The loss stays unbiased for t >= t_min and varies less from batch to batch.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.data import Dataset
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from medv_lab.diffusion.forward import draw_noise
from medv_lab.model.modeling import MedVForMaskedDiffusion
from medv_lab.training.examples import Collator

T_MIN = 0.02


@dataclass(frozen=True)
class Stage:
    """One stage of training: what is trained, how long and how fast.

    Attributes:
        name: for the log.
        parts: the trainable parts, as the model's `parts()` names them; all others are frozen.
        steps: optimiser steps, each on `batch_size` dialogues.
        batch_size: dialogues a step.
        learning_rate: peak; cosine to 0 after 3 % of linear warm-up (Table 6).
    """

    name: str
    parts: tuple[str, ...]
    steps: int
    batch_size: int
    learning_rate: float


class MaskedDiffusionTrainer(Trainer):
    """Trainer whose noise levels are stratified over the batch."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Loss of one batch; see the module's docstring for the draw of t."""
        with torch.no_grad():
            labels = model.splice(**inputs).labels
        outputs = model(**inputs, noise=draw_noise(labels, t=stratified_levels(len(labels))))
        if not torch.isfinite(outputs.loss):
            raise FloatingPointError(
                f"the loss is {outputs.loss.item()} in step {self.state.global_step + 1}; lower the learning rate, or "
                "check the weights that the stage starts from"
            )
        return (outputs.loss, outputs) if return_outputs else outputs.loss


class LossLog(TrainerCallback):
    """Passes one line of progress to `log` whenever the trainer logs."""

    def __init__(self, name: str, log) -> None:
        """Keep the stage's name and the receiver."""
        self.name, self.log = name, log

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Report step and mean loss since the last report."""
        if logs and "loss" in logs:
            self.log(f"{self.name} {state.global_step}/{state.max_steps}  loss {float(logs['loss']):.3f}")


def stratified_levels(batch: int) -> torch.Tensor:
    """Noise levels (batch,), one from each of `batch` equal parts of [T_MIN, 1], in random order."""
    strata = (torch.randperm(batch) + torch.rand(batch)) / batch
    return T_MIN + (1 - T_MIN) * strata


def freeze_all_but(model: MedVForMaskedDiffusion, names: tuple[str, ...]) -> None:
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


def run_stage(
    model: MedVForMaskedDiffusion,
    stage: Stage,
    dataset: Dataset,
    collator: Collator,
    *,
    seed: int,
    folder: Path,
    log=print,
) -> None:
    """Train `model` in place for one stage.

    Args:
        model: the denoiser; afterwards every parameter can learn again.
        stage: what to train and how.
        dataset: encoded dialogues; batches hold dialogues of like length.
        collator: makes batches.
        seed: of order and noise.
        folder: the trainer's scratch folder; nothing is saved there.
        log: receives progress.
    """
    freeze_all_but(model, stage.parts)
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=stage.batch_size,
        max_steps=stage.steps,
        learning_rate=stage.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=max(1, round(0.03 * stage.steps)),
        adam_beta2=0.98,
        weight_decay=0.0,
        max_grad_norm=1.0,
        bf16=True,
        use_cpu=not torch.cuda.is_available(),
        train_sampling_strategy="group_by_length",
        length_column_name="length",
        remove_unused_columns=False,
        label_names=["labels"],
        save_strategy="no",
        report_to="none",
        logging_steps=100,
        disable_tqdm=True,
        seed=seed,
        dataloader_pin_memory=False,
    )
    trainer = MaskedDiffusionTrainer(
        model=model,
        args=arguments,
        train_dataset=dataset,
        data_collator=collator,
        callbacks=[LossLog(stage.name, log)],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    model.requires_grad_(True)
    model.eval()

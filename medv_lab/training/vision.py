"""Contrastive pretraining of the small vision tower, in the manner of SigLIP.

SigLIP scores every image of a batch against every text with an independent sigmoid. Captions from the web are
taken to be true of their own image only; here the ground truth says of every pair whether the text holds, so
the sigmoid loss gets the exact truth matrix instead of the identity. The texts are all statements about one finding
of a phantom ('chest x-ray nodule left'), the same in every step: with a fresh sample of statements per step, as
captions would be, the text tower did not learn to tell them apart within 1500 steps, and neither did the images.

Source of the loss: Zhai et al., Sigmoid Loss for Language Image Pre-Training, arXiv 2303.15343.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast, SiglipConfig, SiglipModel, SiglipVisionConfig

from medv_lab.model.modeling import MedVLanguageModel
from medv_lab.phantoms.rendering import render
from medv_lab.phantoms.scenes import CELLS, DOMAINS, GRADES, KINDS, SIDES, ZONES, Finding, Scene
from medv_lab.runtime import ATTENTION, resolve_device, resolve_precision
from medv_lab.training.stages import TensorCache, Tensors
from medv_lab.training.trainer import MuonAdamW, group_parameters

IMAGE_SIZE = 72
VISION = {
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 5,  # of which the projector reads the fourth: the reference drops the last
    "num_attention_heads": 4,
    "image_size": IMAGE_SIZE,
    "patch_size": 12,
    "hidden_act": "gelu_pytorch_tanh",
}
TEXT = {
    "hidden_size": 192,
    "intermediate_size": 384,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "max_position_embeddings": 12,
    "projection_size": 192,
}
SAVE_STEPS, CHECKPOINT = 200, "vision-checkpoint"  # steps between checkpoints, of which there is one
CLAIMS = ("kind", "side", "zone", "grade")


@dataclass(frozen=True)
class Statement:
    """A claim about pictures of one domain; a field that is None claims nothing."""

    domain: str
    kind: str | None = None
    side: str | None = None
    zone: str | None = None
    grade: str | None = None
    is_normal: bool = False

    @property
    def is_about_domain(self) -> bool:
        """Return whether the domain is all that is claimed."""
        return not self.is_normal and all(getattr(self, name) is None for name in CLAIMS)

    def holds(self, scene: Scene) -> bool:
        """Return whether the claim is true of the scene."""
        if self.domain != scene.domain:
            return False
        if self.is_normal:
            return not scene.findings
        return self.is_about_domain or any(self._matches(finding) for finding in scene.findings)

    def _matches(self, finding: Finding) -> bool:
        return all(getattr(self, name) in (None, getattr(finding, name)) for name in CLAIMS)

    def text(self) -> str:
        """Write the claim in words."""
        subject = "" if self.is_about_domain else "normal" if self.is_normal else self.kind or "finding"
        return " ".join(part for part in (self.domain, self.grade, subject, self.side, self.zone) if part)


def all_statements() -> list[Statement]:
    """List what can be said of one finding, alone or with its kind or the other half of its position."""
    statements = []
    grades = [grade for scale in GRADES.values() for grade in scale]
    for domain in DOMAINS:
        statements += [Statement(domain), Statement(domain, is_normal=True)]
        for kind in (None, *KINDS[domain]):
            own = grades if kind is None else GRADES[KINDS[domain][kind]]
            statements += [Statement(domain, kind)] if kind else []
            statements += [Statement(domain, kind, side=side) for side in SIDES]
            statements += [Statement(domain, kind, zone=zone) for zone in ZONES]
            statements += [Statement(domain, kind, grade=grade) for grade in own]
        statements += [Statement(domain, side=side, zone=zone) for side, zone in CELLS]
    return statements


STATEMENTS = all_statements()


def render_all(scenes: Sequence[Any], draw: Callable[[Any], np.ndarray] = render) -> torch.Tensor:
    """Draw the pictures of all scenes, uint8, (N, 3, S, S)."""
    return torch.from_numpy(np.stack([draw(scene) for scene in scenes])).permute(0, 3, 1, 2)


def to_pixels(images: torch.Tensor) -> torch.Tensor:
    """Scale uint8 (N, 3, S, S) to float32 in [-1, 1], as the processor does it."""
    return images.float() / 255 * 2 - 1


@torch.no_grad()
def frozen_features(model: MedVLanguageModel, images: torch.Tensor, batch: int = 500) -> torch.Tensor:
    """Compute the frozen tower's features of pictures, uint8 (N, 3, S, S): fp16, (N, patches, width), on the CPU."""
    parts = (model.vision_features(to_pixels(part.to(model.device))) for part in images.split(batch))
    return torch.cat([part.half().cpu() for part in parts])


def truth_loss(logits: torch.Tensor, truth: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """Compute the sigmoid loss, images for and against each text weighing the same.

    Without that balance the first thing to learn is how often each text holds, which needs no image: measured,
    the image tower then stays constant for the first 700 steps at least.

    Args:
        logits, truth: (images, texts).
        counted: bool (images, texts); pairs that are left out of the loss are false. A text that no counted
            image speaks for, or none against, is left out too.
    """
    supporting, opposing = truth & counted, ~truth & counted
    weight = sum(0.5 * side / side.sum(0).clamp(min=1) for side in (supporting, opposing))
    loss = -torch.nn.functional.logsigmoid((truth.float() * 2 - 1) * logits.float())
    is_told = supporting.any(0) & opposing.any(0)
    return (loss * weight)[:, is_told].sum(0).mean()


def pretrain_vision_tower(
    scenes: Sequence[Scene],
    images: torch.Tensor,
    tokenizer: PreTrainedTokenizerFast,
    *,
    steps: int,
    batch_size: int = 96,
    learning_rate: float = 1e-3,
    muon_lr: float | None = 1e-2,
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    checkpoints: Path | None = None,
    log: Callable[[str], None] = print,
) -> SiglipModel:
    """Train vision and text tower together from nothing; the vision tower is what the caller keeps.

    A statement about a finding is held against images of its own domain only. Those of other domains are told
    apart by the statement about the domain; counted in, they are all that is learned at first.

    Args:
        scenes, images: the training pictures, uint8 (N, 3, S, S), and their truth.
        tokenizer: splits the statements; texts are padded to the text tower's length.
        steps: optimiser steps.
        batch_size: images per step; each is held against all of `STATEMENTS`.
        learning_rate: peak of a cosine schedule with 5 % warm-up (AdamW, weight decay 0.05).
        muon_lr: the same for the matrices of layers, which then learn by Muon; None is AdamW for all.
        seed: of weights and batches.
        device, precision: as `runtime.resolve_device` and `runtime.resolve_precision` take them.
        checkpoints: folder of the newest checkpoint, from which a run that was cut off goes on; None keeps none.
        log: receives a line of progress every 100 steps.

    Returns:
        Both towers in evaluation mode, on the CPU.
    """
    place = resolve_device(device).device
    is_coarse = resolve_precision(precision, place) == "bf16"
    torch.manual_seed(seed)
    text = TEXT | {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": tokenizer.bos_token_id,
    }
    config = SiglipConfig(text_config=text, vision_config=SiglipVisionConfig(**VISION).to_dict())
    model = SiglipModel._from_config(config, attn_implementation=ATTENTION[place.type])
    with torch.no_grad():
        model.logit_scale.fill_(np.log(20.0))
        model.logit_bias.zero_()
    model.to(place)
    groups = group_parameters(dict(model.named_parameters()), learning_rate, muon_lr)
    peaks = [group["lr"] for group in groups]
    optimizer = MuonAdamW(groups, is_coarse=is_coarse, betas=(0.9, 0.98), weight_decay=0.05)
    # The text tower reads a text off its last position; padding there, as published, makes all texts alike at first.
    ids = tokenizer(
        [statement.text() for statement in STATEMENTS],
        padding="max_length",
        padding_side="left",
        truncation=True,
        max_length=TEXT["max_position_embeddings"],
        return_tensors="pt",
    )["input_ids"].to(place)
    truth = torch.tensor([[statement.holds(scene) for statement in STATEMENTS] for scene in scenes])
    counted = torch.tensor(
        [[s.is_about_domain or s.domain == scene.domain for s in STATEMENTS] for scene in scenes]
    )
    kept = None if checkpoints is None else TensorCache(checkpoints)
    first = 0
    if kept is not None and CHECKPOINT in kept:
        first = restore_training(kept.load(CHECKPOINT), model, optimizer)
        log(f"vision: goes on after step {first}")
    started, losses = time.perf_counter(), []
    for step in range(first, steps):
        # draws of a step are its own, so a run that goes on needs no state of them
        rows = np.random.default_rng([seed, step]).choice(len(scenes), batch_size, replace=False)
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * cosine(step, steps, warmup=0.05)
        with torch.autocast(place.type, dtype=torch.bfloat16, enabled=is_coarse):
            out = model(input_ids=ids, pixel_values=to_pixels(images[rows].to(place)))
        loss = truth_loss(out.logits_per_image, truth[rows].to(place), counted[rows].to(place))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.detach())
        if (step + 1) % 100 == 0:
            mean = torch.stack(losses).mean().item()
            log(f"vision {step + 1}/{steps}  loss {mean:.3f}  {time.perf_counter() - started:.0f} s")
            losses = []
        if kept is not None and (step + 1) % SAVE_STEPS == 0:
            kept.save(CHECKPOINT, store_training(step + 1, model, optimizer))
    return model.cpu().eval()


def store_training(step: int, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Tensors:
    """Return weights and state of the optimiser after a step as tensors that `restore_training` takes."""
    state = optimizer.state_dict()["state"]
    moments = {f"state.{number}.{name}": value for number in state for name, value in state[number].items()}
    weights = {f"model.{name}": value for name, value in model.state_dict().items()}
    return {"step": torch.tensor(step), **weights, **moments}


def restore_training(tensors: Tensors, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Put weights and state of the optimiser back in place; returns the number of steps that were done."""
    state: dict[int, Tensors] = {}
    for name in tensors:
        if name.startswith("state."):
            _, number, key = name.split(".")
            state.setdefault(int(number), {})[key] = tensors[name]
    weights = {name.removeprefix("model."): tensors[name] for name in tensors if name.startswith("model.")}
    model.load_state_dict(weights)
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
    return int(tensors["step"])


def cosine(step: int, steps: int, warmup: float) -> float:
    """Compute the learning-rate factor: linear warm-up over a share of the steps, then cosine to 0."""
    first = max(1, int(warmup * steps))
    if step < first:
        return (step + 1) / first
    return 0.5 * (1 + np.cos(np.pi * (step - first) / max(1, steps - first)))

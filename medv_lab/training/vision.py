"""Contrastive pretraining of the small vision tower, in the manner of SigLIP.

SigLIP scores every image of a batch against every text with an independent sigmoid. Captions from the web are
taken to be true of their own image only; here the ground truth says of every pair whether the text holds, so
the sigmoid loss gets the exact truth matrix in place of the identity. Texts are statements about one finding
that leave out a random part of its facts ('a severe finding', 'two cysts in the left upper zone').

Source of the loss: Zhai et al., Sigmoid Loss for Language Image Pre-Training, arXiv 2303.15343.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast, SiglipConfig, SiglipModel, SiglipVisionConfig

from medv_lab.data.phantoms import render
from medv_lab.data.scenes import DOMAINS, GRADES, KINDS, SIDES, ZONES, Finding, Scene

IMAGE_SIZE = 72
VISION = {
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 5,  # of which the language tower reads the fourth: the reference drops the last
    "num_attention_heads": 4,
    "image_size": IMAGE_SIZE,
    "patch_size": 12,
    "hidden_act": "gelu_pytorch_tanh",
}
TEXT = {
    "hidden_size": 192,
    "intermediate_size": 384,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 12,
    "projection_size": 192,
}
CLAIMS = ("kind", "side", "zone", "grade")


@dataclass(frozen=True)
class Statement:
    """A claim about a picture; a field that is None claims nothing."""

    domain: str | None = None
    kind: str | None = None
    side: str | None = None
    zone: str | None = None
    grade: str | None = None
    is_normal: bool = False

    def holds(self, scene: Scene) -> bool:
        """Whether the claim is true of the scene."""
        if self.domain not in (None, scene.domain):
            return False
        if self.is_normal:
            return not scene.findings
        return any(self._matches(finding) for finding in scene.findings)

    def _matches(self, finding: Finding) -> bool:
        return all(getattr(self, name) in (None, getattr(finding, name)) for name in CLAIMS)

    def text(self) -> str:
        """The claim in words."""
        finding = "normal" if self.is_normal else self.kind or "finding"
        return " ".join(part for part in (self.domain, self.grade, finding, self.side, self.zone) if part)


def draw_statement(scene: Scene, rng: np.random.Generator) -> Statement:
    """A statement that holds for the scene: one fact in most cases, since single facts are learned first."""
    domain = scene.domain if rng.random() < 0.5 else None
    if not scene.findings:
        return Statement(domain, is_normal=True)
    finding = scene.findings[rng.integers(len(scene.findings))]
    kept = rng.permutation(len(CLAIMS))[: rng.choice((1, 2, 4), p=(0.6, 0.25, 0.15))]
    return Statement(domain, **{CLAIMS[i]: getattr(finding, CLAIMS[i]) for i in kept})


def render_all(scenes: Sequence[Scene]) -> torch.Tensor:
    """Pictures of all scenes, uint8, (N, 3, S, S)."""
    return torch.from_numpy(np.stack([render(scene, size=IMAGE_SIZE) for scene in scenes])).permute(
        0, 3, 1, 2
    )


def to_pixels(images: torch.Tensor) -> torch.Tensor:
    """uint8 (N, 3, S, S) to float32 in [-1, 1], as the processor does it."""
    return images.float() / 255 * 2 - 1


def truth_loss(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Sigmoid loss, images for and against each text weighing the same; `logits`, `truth` (images, texts).

    Without that balance the first thing to learn is how often each text holds, which needs no image: measured,
    the image tower then stays constant for the first 700 steps at least.
    """
    sign = truth.float() * 2 - 1
    loss = -torch.nn.functional.logsigmoid(sign * logits.float())
    supporting = truth.sum(0).clamp(min=1)
    opposing = (~truth).sum(0).clamp(min=1)
    return (loss * torch.where(truth, 0.5 / supporting, 0.5 / opposing)).sum(0).mean()


def pretrain_vision_tower(
    scenes: Sequence[Scene],
    images: torch.Tensor,
    tokenizer: PreTrainedTokenizerFast,
    *,
    steps: int,
    batch_size: int = 120,
    learning_rate: float = 1e-3,
    seed: int = 0,
    log: Callable[[str], None] = print,
) -> SiglipModel:
    """Train image and text tower together from nothing; the image tower is what the caller keeps.

    Args:
        scenes, images: the training pictures, uint8 (N, 3, S, S), and their truth.
        tokenizer: splits the statements; texts are padded to the text tower's length.
        steps: optimiser steps. Every other batch holds one domain, so that only findings tell images apart.
        batch_size: images (and texts) a step.
        learning_rate: peak of a cosine schedule with 5 % warm-up (AdamW, weight decay 0.05).
        seed: of weights and batches.
        log: receives a line of progress every 100 steps.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    text = TEXT | {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": tokenizer.bos_token_id,
    }
    config = SiglipConfig(text_config=text, vision_config=SiglipVisionConfig(**VISION).to_dict())
    # Plain attention is twice as fast as the fused one for 36 positions on a CPU.
    model = SiglipModel._from_config(config, attn_implementation="eager")
    with torch.no_grad():
        model.logit_scale.fill_(np.log(10.0))
        model.logit_bias.zero_()
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: cosine(step, steps, warmup=0.05))
    by_domain = [
        np.array([i for i, scene in enumerate(scenes) if scene.domain == domain]) for domain in DOMAINS
    ]
    started, running = time.perf_counter(), 0.0
    for step in range(steps):
        pool = np.arange(len(scenes)) if step % 2 == 1 else by_domain[rng.integers(len(DOMAINS))]
        rows = rng.choice(pool, batch_size, replace=False)
        statements = [draw_statement(scenes[i], rng) for i in rows]
        truth = torch.tensor([[statement.holds(scenes[i]) for statement in statements] for i in rows])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = model(input_ids=_encode(tokenizer, statements), pixel_values=to_pixels(images[rows]))
        loss = truth_loss(out.logits_per_image, truth)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        running += loss.item()
        if (step + 1) % 100 == 0:
            log(f"vision {step + 1}/{steps}  loss {running / 100:.3f}  {time.perf_counter() - started:.0f} s")
            running = 0.0
    return model.eval()


@torch.no_grad()
def evaluate_statements(
    model: SiglipModel, scenes: Sequence[Scene], images: torch.Tensor, tokenizer: PreTrainedTokenizerFast
) -> dict[str, float]:
    """Accuracy at naming one attribute of single-finding pictures among its alternatives, by attribute.

    The text tower scores the claims '<domain>, <kind>', ... '<domain>, finding <zone>' and the highest wins.
    """
    hits: dict[str, list[bool]] = {}
    rows = [i for i, scene in enumerate(scenes) if len(scene.findings) == 1]
    for domain in DOMAINS:
        ours = [i for i in rows if scenes[i].domain == domain]
        claims = [Statement(domain, kind=kind) for kind in KINDS[domain]] + [
            Statement(domain, side=side) for side in SIDES
        ]
        claims += [Statement(domain, zone=zone) for zone in ZONES]
        claims += [Statement(domain, grade=grade) for grades in GRADES.values() for grade in grades]
        logits = model(
            input_ids=_encode(tokenizer, claims), pixel_values=to_pixels(images[ours])
        ).logits_per_image
        for attribute in ("kind", "side", "zone", "grade"):
            columns = [j for j, claim in enumerate(claims) if getattr(claim, attribute) is not None]
            best = logits[:, columns].argmax(-1)
            for row, column in zip(ours, best.tolist(), strict=True):
                claim = claims[columns[column]]
                hits.setdefault(attribute, []).append(claim.holds(scenes[row]))
    return {attribute: float(np.mean(values)) for attribute, values in hits.items()}


def cosine(step: int, steps: int, warmup: float) -> float:
    """Learning-rate factor: linear warm-up over a share of the steps, then cosine to 0."""
    first = max(1, int(warmup * steps))
    if step < first:
        return (step + 1) / first
    return 0.5 * (1 + np.cos(np.pi * (step - first) / max(1, steps - first)))


def _encode(tokenizer: PreTrainedTokenizerFast, statements: Sequence[Statement]) -> torch.Tensor:
    """Token ids (N, T) of statements, padded on the left.

    The text tower reads a text off its last position. Padding there, as published, makes all texts alike at
    the start, and the image tower then learns nothing from them for more than a thousand steps.
    """
    length = TEXT["max_position_embeddings"]
    rows = [tokenizer.encode(statement.text())[:length] for statement in statements]
    return torch.tensor([[tokenizer.pad_token_id] * (length - len(row)) + row for row in rows])


def sample_statements(scenes: Sequence[Scene], seed: int) -> list[str]:
    """One statement a scene, in words, for a tokenizer's corpus."""
    rng = np.random.default_rng(seed)
    return [draw_statement(scene, rng).text() for scene in scenes]

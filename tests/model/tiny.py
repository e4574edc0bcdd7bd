"""A model, tokenizer and processor small enough to make in a test: random weights, few tokens."""

import functools
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from medv_lab.inputs.prompts import special_ids
from medv_lab.model import MedVConfig, MedVForMaskedDiffusion, MedVProcessor
from medv_lab.training.embedded import make_tokenizer

SIDE, PATCH = 32, 8
TEXTS = ("Is there a nodule in the left lung? Yes, there is a nodule.", "What organ is shown? The liver.")


@functools.cache
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer of 300 tokens with LLaDA's special tokens."""
    return make_tokenizer(TEXTS, vocab_size=300)


def tiny_config(**overrides: Any) -> MedVConfig:
    """A configuration that fits the tiny tokenizer; single square tiles."""
    settings = {
        "vocab_size": len(tiny_tokenizer()),
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        **special_ids(tiny_tokenizer()).config_fields(),
        "image_aspect_ratio": "square",
        "mm_patch_merge_type": "flat",
        "tokenizer_model_max_length": 512,
        "vision_config": {
            "hidden_size": 8,
            "intermediate_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": SIDE,
            "patch_size": PATCH,
        },
    }
    return MedVConfig(**{**settings, **overrides})


def tiny_model(seed: int = 0, **overrides: Any) -> MedVForMaskedDiffusion:
    """A model with random weights from a seed, in evaluation mode."""
    torch.manual_seed(seed)
    return MedVForMaskedDiffusion(tiny_config(**overrides)).eval()


def tiny_processor(**overrides: Any) -> MedVProcessor:
    """The processor of the tiny model."""
    return MedVProcessor.from_config(tiny_tokenizer(), tiny_config(), **overrides)


def save_tiny(folder: Path, seed: int = 0, **overrides: Any) -> MedVForMaskedDiffusion:
    """Write a checkpoint folder as users have it, and return the model that was saved."""
    model = tiny_model(seed, **overrides)
    model.save_pretrained(folder)
    MedVProcessor.from_config(tiny_tokenizer(), model.config).save_pretrained(folder)
    return model

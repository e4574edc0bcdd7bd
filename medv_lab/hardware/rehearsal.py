"""A checkpoint folder in the published layout with random weights: everything can be rehearsed before the weights come.

The layout is that of published `llava_llada` folders: a flat config.json, bfloat16 safetensors in shards with their
index, a tokenizer of the true size with all special tokens at their true ids, and, for transformers' own classes, image
settings. Only the sizes of the networks vary, and only in "8b" are they the published ones. Answers are random words.
The ordinary words of the tokenizer are not the published ones: they are learned from phantoms, and the rest of the ids
are made-up words.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import zlib
from collections.abc import Callable, Sequence
from itertools import islice, product
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from medv_lab.inputs.prompts import SPECIAL_TOKENS
from medv_lab.model.checkpoint_files import INDEX, read_json
from medv_lab.model.configuration import SIGLIP2_SO400M, MedVConfig
from medv_lab.model.modeling import MedVForMaskedDiffusion
from medv_lab.model.processing import MedVProcessor
from medv_lab.phantoms.reports import sample_texts
from medv_lab.phantoms.scenes import make_scenes
from medv_lab.runtime import format_bytes
from medv_lab.training.embedded import make_tokenizer

DTYPE = torch.bfloat16
SHARDS = 6  # at least; as many as LLaDA-8B-Instruct has
LARGEST_SPARE = 1_000_000_000  # bytes of the disk that stay free
FIRST_SPECIAL, LAST_SPECIAL = 126_080, 126_348
NAMED_SPECIAL = {
    "<|startoftext|>": 126080,
    "<|endoftext|>": 126081,
    "[CLS]": 126082,
    "[gMASK]": 126083,
    "<|mdm_mask|>": 126336,
    "<role>": 126340,
    "</role>": 126341,
    "<|arithmetic_start|>": 126342,
    "<|arithmetic_end|>": 126343,
    "<|number_start|>": 126344,
    "<|number_end|>": 126345,
    "<|start_header_id|>": 126346,
    "<|end_header_id|>": 126347,
    "<|eot_id|>": 126348,
}
"""Special tokens of the published tokenizer; every other id of their range is a reserved token."""
PUBLISHED_CONFIG = {
    "model_type": "llava_llada",
    "vocab_size": 126464,
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "max_position_embeddings": 16384,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 500000.0,
    "pretraining_tp": 1,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": False,
    "bos_token_id": 128000,  # no such token: published, too
    "eos_token_id": 126081,
    "mm_projector_type": "mlp2x_gelu",
    "mm_hidden_size": 1152,
    "mm_patch_merge_type": "spatial_unpad",
    "mm_vision_tower": "google/siglip2-so400m-patch14-384",
    "mm_vision_select_layer": -2,
    "mm_use_im_start_end": False,
    "mm_use_im_patch_token": False,
    "mm_newline_position": "grid",
    "image_aspect_ratio": "anyres_max_4",
    "image_grid_pinpoints": "(1x1),...,(6x6)",
    "tokenizer_model_max_length": 8192,
    "tokenizer_padding_side": "right",
}
_SMALLER = {  # hidden size, intermediate size, layers and heads, of the language model and of the vision tower
    "tiny": ((64, 192, 2, 4), (32, 96, 3, 2)),
    "small": ((512, 1536, 8, 8), (192, 512, 7, 4)),
    "8b": (),
}
SIZES = tuple(_SMALLER)


def write_rehearsal(
    size: str, folder: Path, *, seed: int = 0, log: Callable[[str], None] | None = None
) -> MedVConfig:
    """Write a checkpoint folder with random weights, shard by shard: no more than one shard is ever in memory.

    Args:
        size: "tiny", "small" or "8b" (8.4 billion parameters, 17 GB on disk).
        folder: is made; one that holds anything is refused.
        seed: of the weights; each tensor's numbers depend on it and on its name alone.
        log: is told of each shard.

    Returns:
        The configuration that the folder describes.

    Raises:
        ValueError: for an unknown size, or a disk that the folder does not fit on.
        FileExistsError: for a folder that holds something.
    """
    content = published_config(size)
    config = MedVConfig.from_dict(
        {**content, "bos_token_id": None}
    )  # transformers warns of the published one
    with torch.device("meta"):
        state = MedVForMaskedDiffusion(config).to(DTYPE).state_dict()
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty; give a new folder")
    total = sum(tensor.nbytes for tensor in state.values())
    free = shutil.disk_usage(folder).free
    if total > free - LARGEST_SPARE:
        raise ValueError(
            f"{size} takes {format_bytes(total)} and the disk of {folder} has {format_bytes(free)} free, of which "
            f"{format_bytes(LARGEST_SPARE)} stay free; give a folder on another disk, or a smaller size"
        )
    (folder / "config.json").write_text(json.dumps(content, indent=2) + "\n")
    tokenizer = make_true_size_tokenizer()
    tokenizer.save_pretrained(folder)
    MedVProcessor.from_config(tokenizer, config).image_processor.save_pretrained(folder)

    plan = split_torch_state_dict_into_shards(state, max_shard_size=total // SHARDS)
    for name, keys in plan.filename_to_tensors.items():
        shard = {key: _random_tensor(key, state[key].shape, seed) for key in keys}
        save_file(shard, folder / name, metadata={"format": "pt"})
        if log is not None:
            log(f"{name}: {len(keys)} tensors, {format_bytes((folder / name).stat().st_size)}")
    index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")
    return config


def is_rehearsal(folder: Path, size: str) -> bool:
    """Return whether a folder holds a whole rehearsal of a size."""
    return (folder / INDEX).is_file() and read_json(folder / "config.json") == published_config(size)


def published_config(size: str) -> dict[str, Any]:
    """Return the config.json of a size: the published one, with smaller networks in sizes other than "8b".

    Raises:
        ValueError: for an unknown size.
    """
    if size not in SIZES:
        raise ValueError(f"there is no size {size!r}; the sizes are {', '.join(SIZES)}")
    if not _SMALLER[size]:
        return dict(PUBLISHED_CONFIG)
    fields = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    language, vision = (dict(zip(fields, numbers, strict=True)) for numbers in _SMALLER[size])
    return {
        **PUBLISHED_CONFIG,
        **language,
        "num_key_value_heads": language["num_attention_heads"],
        "mm_hidden_size": vision["hidden_size"],
        "vision_config": {**SIGLIP2_SO400M, **vision},
    }


def make_true_size_tokenizer() -> PreTrainedTokenizerFast:
    """Make a tokenizer of 126,349 tokens with the published special tokens at the published ids.

    Its first words are learned from what is said about phantoms, so that prompts are about as long as published ones;
    the others are made up.
    """
    corpus = sample_texts(make_scenes("train", 200), seed=0)
    learned = json.loads(make_tokenizer(corpus, vocab_size=2048).backend_tokenizer.to_str())
    words = [word for word in learned["model"]["vocab"] if word not in SPECIAL_TOKENS.values()]
    known = set(words)
    made_up = ("Ġ" + "".join(letters) for letters in product(ascii_lowercase, repeat=4))
    words += islice((word for word in made_up if word not in known), FIRST_SPECIAL - len(words))
    learned["model"]["vocab"] = {word: number for number, word in enumerate(words)}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    learned["added_tokens"] = [
        {"id": number, "content": name, **flags} for name, number in special_tokens().items()
    ]
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(learned)),
        bos_token=SPECIAL_TOKENS["start"],
        eos_token=SPECIAL_TOKENS["end_of_text"],
        pad_token=SPECIAL_TOKENS["end_of_text"],
        clean_up_tokenization_spaces=False,
    )


def special_tokens() -> dict[str, int]:
    """Return the 269 special tokens and their ids, in the order of the ids."""
    named = {number: name for name, number in NAMED_SPECIAL.items()}
    reserved = range(FIRST_SPECIAL, LAST_SPECIAL + 1)
    unnamed = iter(range(len(reserved)))
    return {named.get(number) or f"<|reserved_token_{next(unnamed)}|>": number for number in reserved}


def _random_tensor(name: str, shape: Sequence[int], seed: int) -> torch.Tensor:
    """Norm weights are one, biases zero; all else is normal with a deviation by which outputs are as large as inputs.

    Queries and keys are twice as large, so that attention tells indices apart and answers depend on the question.
    """
    if name.endswith(".bias"):
        return torch.zeros(shape, dtype=DTYPE)
    if re.search(r"norm\d?\.weight$", name):
        return torch.ones(shape, dtype=DTYPE)
    deviation = math.prod(shape[1:]) ** -0.5
    if name.endswith(("embed_tokens.weight", "position_embedding.weight", "image_newline")):
        deviation = 0.1
    elif name.startswith("lm_head") or re.search(r"layers.*\.[qk]_proj", name):
        deviation *= 2
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()) ^ seed)
    return torch.empty(shape, dtype=DTYPE).normal_(0, deviation, generator=generator)

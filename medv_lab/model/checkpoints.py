"""Load a checkpoint: check everything first, then let transformers read it.

The headers of the files are compared with the model that config.json describes and the need with the memory that is
free, before any weight is read: `from_pretrained` alone would say what is missing only at the end, cast quantised
weights silently, pick one of two mixed checkpoints, name no damaged file, and leave weights of the same dtype mapped
to the file. It then builds the model without memory, reads tensor by tensor into the asked dtype on the asked device,
and initialises what a checkpoint lacks. Safetensors only; no remote code.

Three layouts of names are known: `llava_llada` (the model's own; the language model of an HF-style LLaDA-8B-Instruct
has the same), LLaDA-8B-Instruct's original names, and a plain SigLIP folder as a source of a vision tower.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.utils import GENERATION_CONFIG_NAME
from transformers.utils import logging as transformers_logging

from medv_lab.decoding.generation_config import MedVGenerationConfig
from medv_lab.limits import parsed_by_others
from medv_lab.model import MedVCausalConfig, MedVConfig, MedVForMaskedDiffusion, MedVProcessor
from medv_lab.model.causal import MedVForNextToken
from medv_lab.model.checkpoint_files import (
    SETTINGS_FILES,
    CheckpointError,
    StoredTensor,
    find_source,
    from_llada,
    list_tensors,
    read_json,
    shorten,
)
from medv_lab.model.quantization import (
    count_bytes,
    describe_quantization,
    load_quantised,
    make_quantization_config,
    mend_packing,
    read_quantization,
)
from medv_lab.model.weights import Weight, is_finite
from medv_lab.runtime import Placement, available_memory, format_bytes, resolve_device

__all__ = ["CheckpointError", "load"]

ATTENTION = ("sdpa", "eager", "flash_attention_2")
LANGUAGE_ONLY = "llada"
VISION_PREFIX = "model.vision_tower.vision_tower.vision_model."
VISUAL_PREFIXES = (VISION_PREFIX, "model.mm_projector.", "model.image_newline")
VOCABULARY_KEYS = ("model.embed_tokens.weight", "lm_head.weight")
_BUFFER = re.compile(r".*\.(rotary_emb\.inv_freq|position_ids)")  # the model computes these itself
_LLADA_SIZES = {
    "d_model": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads",
    "mlp_hidden_size": "intermediate_size",
    "embedding_size": "vocab_size",
}
_LLADA_SETTINGS = (
    *_LLADA_SIZES.values(),
    "rope_theta",
    "rms_norm_eps",
    "mask_token_id",
    "eos_token_id",
    "vision_config",
)
_log = logging.getLogger(__name__)


def load(
    model: str | Path = "embedded",
    device: str = "auto",
    dtype: str = "auto",
    download: bool = False,
    revision: str | None = None,
    attn_implementation: str | None = None,
    vision: str | Path | None = None,
    quantization: str | None = None,
    offload: str | Path | None = None,
) -> tuple[MedVForMaskedDiffusion | MedVForNextToken, MedVProcessor]:
    """Load a model and its processor.

    Args:
        model: "embedded", a folder, or a hub id. The folder holds a published `llava_llada` checkpoint, or
            LLaDA-8B-Instruct in its original or HF-style names.
        device: "auto", "cpu", "cuda" or "cuda:N".
        dtype: "auto" (bfloat16 on CUDA, float32 on CPU), "float32", "bfloat16" or "float16".
        download: allow fetching a hub id; otherwise the network is never used.
        revision: commit, tag or branch of a hub id.
        attn_implementation: "sdpa" (default), "eager" or "flash_attention_2".
        vision: folder from which a language-only checkpoint takes vision tower and projector (SigLIP or
            `llava_llada` names); parts that it lacks start fresh.
        quantization: "int8" or "int4" holds the weights of the language model's layers in fewer bits, as they are read
            (`medv_lab.model.quantization` says by which library); None leaves them as they are. A folder that was
            saved from such a model is loaded as it was saved.
        offload: folder for layers that neither the GPUs nor the memory hold; the model is then spread by accelerate,
            over all GPUs first, then memory, then this folder. `device` must be "auto".

    Returns:
        The model in evaluation mode, with `medv_source` (name, sha256, revision, notes, quantization), and the
        processor. A checkpoint whose config.json says `is_causal` is an autoregressive twin.

    Raises:
        CheckpointError: one error for all that is wrong with the checkpoint or its fit to this machine.
        ValueError, RuntimeError: for a device, dtype or quantization that is unknown or absent.
    """
    attention = attn_implementation or "sdpa"
    if attention not in ATTENTION:
        raise ValueError(f"attn_implementation is {attention!r}; allowed are {', '.join(ATTENTION)}")
    if offload is not None and device != "auto":
        raise ValueError(
            f"offload spreads the model over all devices, but device is {device!r}; leave it out"
        )
    resolve_device(device, dtype)  # what is not there is said before anything is read
    source = find_source(model, download=download, revision=revision)
    vision_folder = None if vision is None else find_source(vision).folder

    # Configuration, tokenizer and processor.
    with _quiet_transformers():  # which warns of the published start token
        config, is_language_only = _read_config(source.folder, vision_folder)
    stored = getattr(config, "quantization_config", None)
    if stored is not None:
        quantization, dtype = read_quantization(source.folder, config, quantization, dtype)
    placement = resolve_device(device, dtype, quantization)
    processor = _load_processor(source.folder, config)
    # by name from the tokenizer: published configurations name a start token that it has not
    for name, token in processor.special.config_fields().items():
        setattr(config, name, token)

    kind = MedVForNextToken if config.is_causal else MedVForMaskedDiffusion
    how: dict[str, Any] = {
        "config": config,
        "dtype": placement.dtype,
        "device_map": {"": placement.device} if offload is None else "auto",
        "offload_folder": offload,
        "attn_implementation": attention,
    }
    notes, fresh, broken = [placement.reason], [], []
    if stored is not None:
        with _quiet_transformers():
            network = load_quantised(kind, source.folder, how)
        broken += [key for key, value in network.state_dict().items() if not is_finite(value)]
    else:
        # What is stored against what the model has, and what it needs against what is free.
        tensors = _name_tensors(list_tensors(source.folder), _to_model_key)
        if config.num_hidden_layers > len(tensors):
            raise CheckpointError(
                f"{source.folder / 'config.json'} says {config.num_hidden_layers} layers, but the files hold only "
                f"{len(tensors)} tensors; give a complete folder whose config.json belongs to its weights"
            )
        with parsed_by_others(CheckpointError, _no_model(source.folder)), torch.device("meta"):
            expected = {key: tuple(value.shape) for key, value in kind(config).state_dict().items()}
        if config.tie_word_embeddings:  # the output layer is the token table
            expected.pop("lm_head.weight")
            tensors.pop("lm_head.weight", None)
        if vision_folder is not None:
            tensors = _take_vision(vision_folder, expected) | tensors
        fresh = _check_fit(expected, tensors, source.folder, is_language_only)
        notes += _cut_vocabulary(config, len(processor.tokenizer), source.folder)
        if offload is None:
            _check_memory(expected, placement, quantization)
        if quantization is not None:
            how["quantization_config"] = make_quantization_config(
                quantization, placement.device, placement.dtype
            )
        with _quiet_transformers():
            network = kind.from_pretrained(
                None, state_dict=_weights_of(tensors, config.vocab_size, placement.dtype, broken), **how
            )
    if broken:
        raise CheckpointError(
            f"{len(broken)} tensors in {source.folder} hold NaN, or what is infinite in {placement.dtype_name}: "
            f"{shorten(dict.fromkeys(broken))}; copy or download the files again, or use another dtype"
        )
    if not config.is_causal and (source.folder / GENERATION_CONFIG_NAME).is_file():
        with parsed_by_others(CheckpointError, f"{source.folder / GENERATION_CONFIG_NAME} holds no settings"):
            own = MedVGenerationConfig.from_pretrained(source.folder, local_files_only=True)
        network.generation_config = own
    mend_packing(network)
    held = describe_quantization(getattr(network.config, "quantization_config", None))
    if held is not None:
        notes.append(f"The weights of the language model's layers are held in {held}.")
    if fresh:
        notes.append(
            f"{len(fresh)} tensors are not in the checkpoint and start from random numbers: {shorten(fresh)}."
        )
    for note in notes:
        _log.info(note)
    network.medv_source = replace(source, notes=tuple(notes), quantization=held)
    return network.eval(), processor


def _read_config(folder: Path, vision_folder: Path | None) -> tuple[MedVConfig, bool]:
    """The configuration, and whether the checkpoint holds the language model only."""
    content = read_json(folder / "config.json")
    model_type = content.get("model_type")
    if model_type not in (MedVConfig.model_type, MedVCausalConfig.model_type, LANGUAGE_ONLY):
        raise CheckpointError(
            f"{folder / 'config.json'} says model_type {model_type!r}; medv-lab loads "
            f"{MedVConfig.model_type!r} (LLaDA-MedV, LLaDA-V) and {LANGUAGE_ONLY!r} (LLaDA-8B-Instruct)"
        )
    is_language_only = model_type == LANGUAGE_ONLY
    if vision_folder is not None and not is_language_only:
        raise CheckpointError(f"vision was given, but {folder} has its own vision tower; leave it out")
    if is_language_only:
        content = {_LLADA_SIZES.get(key, key): value for key, value in content.items()}
        content = {key: content[key] for key in _LLADA_SETTINGS if content.get(key) is not None}
    if vision_folder is not None:
        content["vision_config"] = read_json(vision_folder / "config.json").get("vision_config")
    with parsed_by_others(CheckpointError, _no_model(folder)):
        kind = MedVCausalConfig if model_type == MedVCausalConfig.model_type else MedVConfig
        config = kind.from_dict(content)
        frequencies = LlamaRotaryEmbedding(config).inv_freq
        if not (frequencies.isfinite().all() and (frequencies > 0).all()):
            raise ValueError(f"rope_parameters {config.rope_parameters} give no positive frequencies")
        return config, is_language_only


def _no_model(folder: Path) -> str:
    return f"{folder / 'config.json'} does not describe a model"


def _load_processor(folder: Path, config: MedVConfig) -> MedVProcessor:
    absent = {"model", "added_tokens"} - read_json(folder / "tokenizer.json").keys()
    if absent:
        raise CheckpointError(
            f"{folder / 'tokenizer.json'} lacks {shorten(sorted(absent))}; copy the file again"
        )
    for name in SETTINGS_FILES:
        if (folder / name).is_file():
            read_json(folder / name)
    with parsed_by_others(CheckpointError, f"{folder} has no usable tokenizer or processor settings"):
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
        if (folder / "processor_config.json").is_file():
            settings, _ = MedVProcessor.get_processor_dict(folder, local_files_only=True)
            processor = MedVProcessor.from_args_and_dict([tokenizer], settings)
        else:
            processor = MedVProcessor.from_config(tokenizer, config)
    if processor.special.mask != config.mask_token_id:
        raise CheckpointError(
            f"{folder}: the tokenizer's mask token is {processor.special.mask}, config.json says "
            f"mask_token_id {config.mask_token_id}; tokenizer and weights are not of one checkpoint"
        )
    return processor


def _to_model_key(key: str) -> str | None:
    """The model's name of a stored key: the key itself if it is unknown, None for stored buffers."""
    return None if _BUFFER.fullmatch(key) else from_llada(key) or key


def _from_vision_folder(key: str) -> str | None:
    """The model's name of a visual tensor in a SigLIP or `llava_llada` folder; None for all others."""
    if key.startswith("vision_model."):
        key = VISION_PREFIX + key.removeprefix("vision_model.")
    return key if key.startswith(VISUAL_PREFIXES) else None


def _name_tensors(
    stored: Iterable[StoredTensor], rename: Callable[[str], str | None]
) -> dict[str, StoredTensor]:
    """Stored tensors by the model's names; those that `rename` knows nothing about are left out."""
    named: dict[str, StoredTensor] = {}
    for tensor in stored:
        key = rename(tensor.key)
        if key in named:
            raise CheckpointError(
                f"{tensor.key} in {tensor.file.name} and {named[key].key} in {named[key].file.name} are "
                f"both {key}; the folder mixes two checkpoints"
            )
        if key is not None:
            named[key] = tensor
    return named


def _take_vision(folder: Path, expected: Iterable[str]) -> dict[str, StoredTensor]:
    """The visual parts of another checkpoint, as far as the model has them (no last vision layer, no head)."""
    stored = _name_tensors(list_tensors(folder), _from_vision_folder)
    taken = {key: tensor for key, tensor in stored.items() if key in expected}
    if not taken:
        raise CheckpointError(
            f"{folder} has no vision tower and no projector to take; give a SigLIP or LLaDA-V folder"
        )
    return taken


def _check_fit(
    expected: dict[str, tuple[int, ...]],
    tensors: dict[str, StoredTensor],
    folder: Path,
    is_language_only: bool,
) -> list[str]:
    """Compare names and shapes; returns the names that are to start fresh."""
    absent = [key for key in expected if key not in tensors]
    fresh = [key for key in absent if is_language_only and key.startswith(VISUAL_PREFIXES)]
    missing = [key for key in absent if key not in fresh]
    unexpected = [tensor.key for key, tensor in tensors.items() if key not in expected]
    misshaped = [
        f"{key} is {tensors[key].shape}, should be {shape}"
        for key, shape in expected.items()
        if key in tensors and tensors[key].shape != shape
    ]
    defects = {"missing": missing, "unexpected": unexpected, "mis-shaped": misshaped}
    found = [f"{len(names)} {kind}: {shorten(names)}" for kind, names in defects.items() if names]
    if found:
        raise CheckpointError(
            f"the tensors in {folder} are not those that its config.json describes. {'; '.join(found)}. "
            "Give a complete folder whose config.json belongs to its weights"
        )
    return fresh


def _cut_vocabulary(config: MedVConfig, tokens: int, folder: Path) -> list[str]:
    """Leave out rows that no token has, as the published loaders do."""
    rows = config.vocab_size
    if tokens > rows:
        raise CheckpointError(
            f"{folder}: the tokenizer has {tokens} tokens, the model only {rows} rows of embeddings; "
            "tokenizer and weights are not of one checkpoint"
        )
    config.vocab_size = tokens
    return [f"The vocabulary is cut from {rows} rows to the tokenizer's {tokens}."] if tokens < rows else []


def _check_memory(
    expected: dict[str, tuple[int, ...]], placement: Placement, quantization: str | None
) -> None:
    """Compare the weights, and the largest of them once more while it is cast, with the memory that is free."""
    itemsize = placement.dtype.itemsize
    needed = count_bytes(expected, itemsize, quantization) + itemsize * max(map(math.prod, expected.values()))
    free = available_memory(placement.device)
    if needed > free:
        raise CheckpointError(
            f"the model needs {format_bytes(needed)} on {placement.device} in {placement.dtype_name}, but "
            f"{format_bytes(free)} are free; use a smaller dtype (bfloat16), quantization "
            "('int8', 'int4'), another device, or free some memory ('medv doctor --model' proposes what fits)"
        )


def _weights_of(
    tensors: dict[str, StoredTensor], vocabulary: int, dtype: torch.dtype, broken: list[str]
) -> dict[str, Weight]:
    """What transformers reads one by one; `broken` receives the keys of those that are not finite."""
    rows = {key: vocabulary if key in VOCABULARY_KEYS else one.shape[0] for key, one in tensors.items()}
    return {key: Weight(one, rows[key], dtype, broken) for key, one in tensors.items()}


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Keep back transformers' progress bar and its report of fresh tensors, which is among our notes."""
    verbosity, has_bar = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if has_bar:
            transformers_logging.enable_progress_bar()

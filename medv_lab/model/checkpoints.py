"""Load a checkpoint: check everything first, then stream its tensors to where they belong.

The model is laid out without memory, the headers are compared with it, the need is compared with what is
free, and only then tensors are read one by one onto the target device in the target dtype. Safetensors only;
no remote code.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import init_empty_weights
from huggingface_hub.errors import StrictDataclassError
from safetensors import safe_open
from torch import nn
from transformers import PreTrainedTokenizerFast

from medv_lab.model import MedVConfig, MedVForMaskedDiffusion, MedVProcessor
from medv_lab.model.causal import MedVForNextToken
from medv_lab.model.keymaps import from_vision_folder, is_visual, to_model_key
from medv_lab.model.memory import available_memory, format_bytes
from medv_lab.model.modeling import MedVLanguageModel
from medv_lab.model.prompts import SpecialIds
from medv_lab.model.shards import CheckpointError, StoredTensor, list_tensors, read_json, shorten
from medv_lab.model.sources import find_source
from medv_lab.runtime import Placement, resolve_device

__all__ = ["CheckpointError", "load"]

ATTENTION = ("sdpa", "eager", "flash_attention_2")
LANGUAGE_ONLY = "llada"
VOCABULARY_KEYS = ("model.embed_tokens.weight", "lm_head.weight")
_ORIGINAL_LLADA_SIZES = {
    "d_model": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads",
    "mlp_hidden_size": "intermediate_size",
    "embedding_size": "vocab_size",
}
_LLADA_SETTINGS = (
    *_ORIGINAL_LLADA_SIZES.values(),
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
        vision: folder that lends vision tower and projector to a language-only checkpoint (SigLIP or
            `llava_llada` names); parts that it lacks start fresh.

    Returns:
        The model in evaluation mode, with `medv_source` (name, sha256, revision, notes), and the processor. A
        checkpoint whose config.json says `is_causal` is an autoregressive twin.

    Raises:
        CheckpointError: one error for all that is wrong with the checkpoint or its fit to this machine.
        ValueError, RuntimeError: for a device or dtype that is unknown or absent.
    """
    placement = resolve_device(device, dtype)
    source = find_source(model, download=download, revision=revision)
    lender = None if vision is None else find_source(vision).folder
    config, is_language_only = _read_config(source.folder, lender)
    config._attn_implementation = _check_attention(attn_implementation)
    config.dtype = placement.dtype
    tokenizer = _load_tokenizer(source.folder)
    processor = _make_processor(source.folder, tokenizer, config)
    _name_special_tokens(config, processor.special)

    with init_empty_weights(include_buffers=False):
        network = (MedVForNextToken if config.is_causal else MedVForMaskedDiffusion)(config)
    tensors = _name_tensors(list_tensors(source.folder), to_model_key)
    if lender is not None:
        tensors = _borrow(network, lender) | tensors
    fresh = _check_fit(network, tensors, source.folder, is_language_only)
    notes = [placement.reason, *_cut_vocabulary(network, len(tokenizer), source.folder)]
    _check_memory(network, tensors.values(), placement)

    _stream(network, tensors, placement)
    if fresh:
        _start_fresh(network, fresh, placement)
        notes.append(
            f"{len(fresh)} tensors are not in the checkpoint and start from random numbers: {shorten(fresh)}."
        )
    for note in notes:
        _log.info(note)
    network.medv_source = replace(source, notes=tuple(notes))
    return network.eval(), processor


def _check_attention(name: str | None) -> str:
    if name is not None and name not in ATTENTION:
        raise ValueError(f"attn_implementation is {name!r}; allowed are {', '.join(ATTENTION)}")
    return name or "sdpa"


def _read_config(folder: Path, lender: Path | None) -> tuple[MedVConfig, bool]:
    """The configuration, and whether the checkpoint holds the language tower only."""
    content = read_json(folder / "config.json")
    model_type = content.get("model_type")
    if model_type not in (MedVConfig.model_type, LANGUAGE_ONLY):
        raise CheckpointError(
            f"{folder / 'config.json'} says model_type {model_type!r}; medv-lab loads "
            f"{MedVConfig.model_type!r} (LLaDA-MedV, LLaDA-V) and {LANGUAGE_ONLY!r} (LLaDA-8B-Instruct)"
        )
    is_language_only = model_type == LANGUAGE_ONLY
    if lender is not None and not is_language_only:
        raise CheckpointError(f"vision was given, but {folder} has its own vision tower; leave it out")
    if is_language_only:
        content = {_ORIGINAL_LLADA_SIZES.get(key, key): value for key, value in content.items()}
        content = {key: content[key] for key in _LLADA_SETTINGS if content.get(key) is not None}
    if lender is not None:
        content["vision_config"] = read_json(lender / "config.json").get("vision_config")
    try:
        return MedVConfig.from_dict(content), is_language_only
    except (TypeError, ValueError, StrictDataclassError) as error:
        raise CheckpointError(f"{folder / 'config.json'} does not describe a model: {error}") from error


def _load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    absent = {"model", "added_tokens"} - read_json(folder / "tokenizer.json").keys()
    if absent:
        raise CheckpointError(
            f"{folder / 'tokenizer.json'} lacks {shorten(sorted(absent))}; copy the file again"
        )
    return PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)


def _make_processor(folder: Path, tokenizer: PreTrainedTokenizerFast, config: MedVConfig) -> MedVProcessor:
    try:
        if (folder / "processor_config.json").is_file():
            settings, _ = MedVProcessor.get_processor_dict(folder, local_files_only=True)
            processor = MedVProcessor.from_args_and_dict([tokenizer], settings)
        else:
            processor = MedVProcessor.from_config(tokenizer, config)
    except (OSError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder} has no usable tokenizer or processor settings: {error}") from error
    if processor.special.mask != config.mask_token_id:
        raise CheckpointError(
            f"{folder}: the tokenizer's mask token is {processor.special.mask}, config.json says "
            f"mask_token_id {config.mask_token_id}; tokenizer and weights are not of one checkpoint"
        )
    return processor


def _name_special_tokens(config: MedVConfig, special: SpecialIds) -> None:
    """Take special tokens by name from the tokenizer: published configurations name a start token it has not."""
    config.bos_token_id = special.start
    config.eos_token_id = special.end_of_text
    config.start_header_token_id = special.start_header
    config.end_header_token_id = special.end_header
    config.eot_token_id = special.end_of_turn


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


def _borrow(network: nn.Module, folder: Path) -> dict[str, StoredTensor]:
    """The visual parts of another checkpoint, as far as the model has them (no last vision layer)."""
    lent = _name_tensors(list_tensors(folder), from_vision_folder)
    lent = {key: tensor for key, tensor in lent.items() if key in network.state_dict()}
    if not lent:
        raise CheckpointError(
            f"{folder} has no vision tower and no projector to lend; give a SigLIP or LLaDA-V folder"
        )
    return lent


def _check_fit(
    network: nn.Module, tensors: dict[str, StoredTensor], folder: Path, is_language_only: bool
) -> list[str]:
    """Compare names and shapes; returns the names that are to start fresh."""
    expected = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    absent = [key for key in expected if key not in tensors]
    fresh = [key for key in absent if is_language_only and is_visual(key)]
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
            f"the tensors in {folder} are not those that its config.json describes. "
            + "; ".join(found)
            + ". "
            "Give a complete folder whose config.json belongs to its weights"
        )
    return fresh


def _cut_vocabulary(network: MedVLanguageModel, tokens: int, folder: Path) -> list[str]:
    """Leave out rows that no token has, as the published loaders do."""
    rows = network.config.vocab_size
    if tokens > rows:
        raise CheckpointError(
            f"{folder}: the tokenizer has {tokens} tokens, the model only {rows} rows of embeddings; "
            "tokenizer and weights are not of one checkpoint"
        )
    if tokens == rows:
        return []
    for key in VOCABULARY_KEYS:
        _put(network, key, network.get_parameter(key)[:tokens])
    network.model.embed_tokens.num_embeddings = network.lm_head.out_features = tokens
    network.config.vocab_size = network.model.vocab_size = tokens
    return [f"The vocabulary is cut from {rows} rows to the tokenizer's {tokens}."]


def _check_memory(network: nn.Module, tensors: Iterable[StoredTensor], placement: Placement) -> None:
    weights = sum(parameter.numel() for parameter in network.parameters()) * placement.dtype.itemsize
    needed = weights + max(tensor.nbytes for tensor in tensors)
    free = available_memory(placement.device)
    if needed > free:
        raise CheckpointError(
            f"the model needs {format_bytes(needed)} on {placement.device} in {placement.dtype_name}, but "
            f"{format_bytes(free)} are free; use a smaller dtype (bfloat16), another device, or free some "
            "memory ('medv doctor' shows what fits)"
        )


def _stream(network: nn.Module, tensors: dict[str, StoredTensor], placement: Placement) -> None:
    """Read tensor by tensor, file by file: at most one tensor is held twice."""
    by_file: dict[Path, list[str]] = defaultdict(list)
    for key, tensor in tensors.items():
        by_file[tensor.file].append(key)
    for file, keys in by_file.items():
        with safe_open(file, framework="pt", device=str(placement.device)) as content:
            for key in keys:
                rows = network.get_parameter(key).shape[0]
                part = content.get_slice(tensors[key].key)[:rows]
                _put(network, key, part.to(placement.device, placement.dtype, copy=True))
    for module in network.modules():
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(placement.device))


def _start_fresh(network: MedVLanguageModel, fresh: Iterable[str], placement: Placement) -> None:
    """Initialise the named tensors as training would, and nothing else."""
    for key in fresh:
        shape = network.get_parameter(key).shape
        _put(network, key, torch.empty(shape, device=placement.device, dtype=placement.dtype))
    for key, parameter in network.named_parameters():
        parameter._is_hf_initialized = key not in fresh
    for module in network.modules():
        module._is_hf_initialized = False
    network.initialize_weights()


def _put(network: nn.Module, key: str, value: torch.Tensor) -> None:
    parent, _, name = key.rpartition(".")
    setattr(network.get_submodule(parent), name, nn.Parameter(value))

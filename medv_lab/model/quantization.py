"""Weights in fewer bits: int8 and int4 (NF4), and which library makes and multiplies them on which device.

Quantised are the matrices of the language model's layers, 83 % of all weights. Token table, output layer, vision tower
and projector stay in the model's dtype: they are small, and pictures enter and confidences leave through them.

| | CUDA | CPU |
| --- | --- | --- |
| int8 | bitsandbytes, LLM.int8 | torchao, weights only |
| int4 | bitsandbytes, NF4 | bitsandbytes, NF4 |

On a CPU torchao's int8 was about 4 times as fast as bitsandbytes' at 16 positions and 1.7 to 2 times at 800. NF4 was
about as fast as bfloat16 itself at 16 positions and three quarters as fast at 800. optimum-quanto's int8 was four times
as fast as torchao's at 16 positions and a third as fast at 800, but transformers does not save what it makes. torchao
has no int4 for CPUs. (A 4096 x 12288 layer, best of 4 calls in each of three runs, on 2 cores with AVX512-BF16 that did
other work too; torch 2.13, torchao 0.18, bitsandbytes 0.50.2, optimum-quanto 0.2.7.)
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from importlib import metadata, util
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig, PretrainedConfig, PreTrainedModel, TorchAoConfig
from transformers.utils.quantization_config import QuantizationConfigMixin

from medv_lab.model.checkpoint_files import CheckpointError, list_tensors, shorten

QUANTIZATIONS = ("int8", "int4")
KEPT = ("lm_head", "model.vision_tower", "model.mm_projector")
"""Modules that are not quantised; the token table never is."""
_QUANTISED = re.compile(r"model\.layers\.\d+\..*_proj\.weight")
_BITS = {"int8": 8, "int4": 4}
_NF4_BLOCK = 64  # weights that share a scale of 4 bytes
_PACKED_ROWS = 32  # bitsandbytes packs so many rows together for AVX512-BF16


def library_of(quantization: str, device: torch.device) -> str:
    """Return the package that quantises on a device.

    Raises:
        ValueError: for an unknown quantization.
    """
    if quantization not in QUANTIZATIONS:
        raise ValueError(f"quantization is {quantization!r}; allowed are {', '.join(QUANTIZATIONS)}, or None")
    return "torchao" if (quantization, device.type) == ("int8", "cpu") else "bitsandbytes"


def make_quantization_config(
    quantization: str, device: torch.device, dtype: torch.dtype
) -> QuantizationConfigMixin:
    """Return what transformers needs to quantise while it loads.

    Args:
        quantization: "int8" or "int4".
        device: that will hold the weights; its kind decides which library is used.
        dtype: of everything that is not quantised, and of the products.

    Raises:
        ValueError: for an unknown quantization, or a library that is not installed.
    """
    library = library_of(quantization, device)
    require_library(library)
    if library == "torchao":
        from torchao.quantization import Int8WeightOnlyConfig

        return TorchAoConfig(Int8WeightOnlyConfig(version=2), modules_to_not_convert=list(KEPT))
    if quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=list(KEPT))
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=list(KEPT),
    )


def require_library(library: str) -> None:
    """Check that torchao or bitsandbytes can be imported.

    Raises:
        ValueError: if it is not installed.
    """
    if util.find_spec(library) is None:
        raise ValueError(f"{library} is not installed; pip install 'medv-lab[quantized]'")


def describe_quantization(config: Mapping[str, Any] | QuantizationConfigMixin | None) -> str | None:
    """Say in how many bits weights are held and by what, e.g. "int8 by torchao 0.18.0"; None where they are whole."""
    if config is None:
        return None
    content = config if isinstance(config, Mapping) else config.to_dict()
    library = "torchao" if content.get("quant_method") == "torchao" else "bitsandbytes"
    return f"{'int4' if content.get('load_in_4bit') else 'int8'} by {library} {metadata.version(library)}"


def read_quantization(
    folder: Path, config: PretrainedConfig, quantization: str | None, dtype: str
) -> tuple[str, str]:
    """Return quantization and dtype of a folder that was saved from a quantised model, which stay as they are.

    Raises:
        CheckpointError: if others are asked for.
        ValueError: if the library that made the weights is not installed.
    """
    method, own = config.quantization_config.get("quant_method"), str(config.dtype).removeprefix("torch.")
    if method not in ("torchao", "bitsandbytes"):
        raise CheckpointError(
            f"{folder} was quantised by {method!r}; medv-lab loads what torchao and bitsandbytes made: get the "
            "checkpoint that is not quantised, and give quantization='int8' or 'int4'"
        )
    require_library(method)
    held = describe_quantization(config.quantization_config)
    if quantization not in (None, held.split()[0]) or str(dtype).removeprefix("torch.") not in ("auto", own):
        raise CheckpointError(
            f"{folder} holds weights in {held} and the rest in {own}, which cannot be changed; leave quantization and "
            "dtype out, or give the folder that was quantised"
        )
    return held.split()[0], own


def load_quantised(kind: type[PreTrainedModel], folder: Path, how: Mapping[str, Any]) -> PreTrainedModel:
    """Load a folder that was saved from a quantised model, by the library that made it.

    Args:
        kind: class of the model.
        folder: of the checkpoint.
        how: further arguments of `from_pretrained`.

    Raises:
        CheckpointError: for damaged or missing files and tensors.
    """
    list_tensors(folder, is_quantised=True)
    network, found = kind.from_pretrained(
        folder, local_files_only=True, use_safetensors=True, output_loading_info=True, **how
    )
    defects = {name: sorted(map(str, keys)) for name, keys in found.items() if keys}
    if defects:
        told = "; ".join(f"{name}: {shorten(keys)}" for name, keys in defects.items())
        raise CheckpointError(
            f"the tensors in {folder} are not those that its config.json describes. {told}. Give a complete folder"
        )
    return network


def count_bytes(shapes: Mapping[str, tuple[int, ...]], itemsize: int, quantization: str | None = None) -> int:
    """Count the bytes that weights take, with the scales of quantised ones.

    Args:
        shapes: of the tensors by the model's names.
        itemsize: bytes of a weight that is not quantised.
        quantization: None, "int8" or "int4".
    """
    total = 0
    for name, shape in shapes.items():
        numbers = math.prod(shape)
        if quantization is None or not _QUANTISED.fullmatch(name):
            total += numbers * itemsize
        else:
            scales = 4 * shape[0] if quantization == "int8" else 4 * numbers // _NF4_BLOCK
            total += numbers * _BITS[quantization] // 8 + scales
    return total


def mend_packing(model: nn.Module) -> None:
    """Let a model with NF4 weights on a CPU be saved and trained on after it has answered.

    At its first answer on a CPU with AVX512-BF16, bitsandbytes (0.50.2) packs a layer's weights anew and rounds their
    scales to bfloat16. It gives the scales back in another order when the layer is saved, and both the layer and what
    was saved then compute something else; and no gradient passes a packed layer. Here scales are rounded at once, so
    that nothing changes later, put in order before each saving, and a layer is unpacked where a gradient is wanted.
    Layers that cannot be packed are kept from it.
    """
    for layer in model.modules():
        if type(layer).__name__ != "Linear4bit" or layer.weight.device.type != "cpu":
            continue
        layer.support_avx512bf16_for_cpu &= layer.out_features % _PACKED_ROWS == 0
        layer.support_avx512bf16_for_cpu &= layer.in_features % _NF4_BLOCK == 0
        if layer.support_avx512bf16_for_cpu:
            state = layer.weight.quant_state
            state.absmax = state.absmax.bfloat16().float()
            layer.register_state_dict_pre_hook(_order_scales)
            layer.register_forward_pre_hook(_unpack)


def _is_packed(layer: nn.Module) -> bool:
    return getattr(layer.weight.quant_state, "packing_format_for_cpu", False)


def _order_scales(layer: nn.Module, prefix: str, keep_vars: bool) -> None:
    """(columns / block, rows) in bfloat16, as they are packed, to (rows x columns / block) in float32."""
    state = layer.weight.quant_state
    if _is_packed(layer) and state.absmax.ndim == 2:
        state.absmax = state.absmax.T.reshape(-1).float()


def _unpack(layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
    if inputs[0].requires_grad and _is_packed(layer):
        layer.state_dict()  # unpacks

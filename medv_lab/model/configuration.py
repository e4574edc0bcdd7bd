"""Sizes, special tokens and image handling of a LLaDA-MedV model.

`MedVConfig` reads the `config.json` of published `llava_llada` folders and writes the same field names, so
that folders are interchangeable in both directions. Sizes default to the published 8B model.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import LlamaConfig, PreTrainedConfig, SiglipVisionConfig
from transformers.activations import ACT2FN
from transformers.configuration_utils import SubConfigSpec
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from medv_lab.decoding.watched_attention import WATCHED, is_watched
from medv_lab.inputs.tiling import MAX_TILES, check_canvases, grid_pinpoints, parse_aspect_ratio

MERGE_TYPES = ("flat", "spatial", "spatial_unpad")
PROJECTOR_TYPES = ("mlp2x_gelu",)
SIGLIP2_SO400M = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "image_size": 384,
    "patch_size": 14,
    "vision_use_head": False,
}
MAX_SIZES = {  # far above any model; config.json is believed no further
    **dict.fromkeys(
        ("num_hidden_layers", "num_attention_heads", "num_key_value_heads", "num_channels"), 1000
    ),
    **dict.fromkeys(("image_size", "patch_size", "num_labels"), 10_000),
    **dict.fromkeys(("hidden_size", "mm_hidden_size", "head_dim", "intermediate_size"), 10**6),
    **dict.fromkeys(("vocab_size", "max_position_embeddings", "tokenizer_model_max_length"), 10**8),
}
_PINPOINT_RANGE = re.compile(r"\((\d+)x(\d+)\),\s*(?:\.\.\.,\s*)?\((\d+)x(\d+)\)")


@strict
class MedVConfig(LlamaConfig):
    """Configuration of `MedVForMaskedDiffusion`: a bidirectional Llama, a SigLIP vision tower, a projector.

    Args:
        vision_config: the full SigLIP vision tower as published; the last of its layers is dropped by the model.
        mm_hidden_size: width of the vision features; `None` takes it from `vision_config`.
        mm_projector_type: only "mlp2x_gelu" (linear, exact GELU, linear).
        mm_patch_merge_type: "flat", "spatial" or "spatial_unpad" (crop the padding, newline after each row).
        image_aspect_ratio: "square", "pad", "anyres" or "anyres_max_N".
        image_grid_pinpoints: candidate canvases [(width, height), ...] in pixels, or the published text
            "(1x1),...,(6x6)" in tiles; `None` is all pairs of 1..6 tiles.
        tokenizer_model_max_length: sequences are cut here after the images are in.
        mask_token_id: the token that noise puts in place of a token.
        start_header_token_id, end_header_token_id, eot_token_id: header and end-of-turn tokens.
        image_token_index: placeholder of an image in the ids; not a row of the embedding.
        ignore_index: label of positions that are neither noised nor learned.

    Raises:
        ValueError: for sizes or settings that no model can have; the text says which are allowed.
    """

    model_type = "llava_llada"
    sub_configs_defaults: ClassVar[dict[str, SubConfigSpec]] = {
        "vision_config": SubConfigSpec(config_class=SiglipVisionConfig, init_kwargs=SIGLIP2_SO400M)
    }
    default_theta = 500000.0

    vocab_size: int = 126464
    intermediate_size: int = 12288
    max_position_embeddings: int = 16384
    rms_norm_eps: float = 1e-5
    use_cache: bool = False
    is_causal: bool = False
    bos_token_id: int | None = 126080
    eos_token_id: int | list[int] | None = 126081
    mask_token_id: int = 126336
    start_header_token_id: int = 126346
    end_header_token_id: int = 126347
    eot_token_id: int = 126348
    image_token_index: int = -200
    ignore_index: int = -100
    vision_config: dict | PreTrainedConfig | None = None
    mm_vision_tower: str | None = "google/siglip2-so400m-patch14-384"
    mm_hidden_size: int | None = None
    mm_projector_type: str = "mlp2x_gelu"
    mm_patch_merge_type: str = "spatial_unpad"
    image_aspect_ratio: str = "anyres_max_4"
    image_grid_pinpoints: str | list | tuple | None = None
    tokenizer_model_max_length: int | None = 8192

    def __post_init__(self, **kwargs):
        _check_sizes({**vars(self), **kwargs})
        if isinstance(self.vision_config, dict):
            _check_sizes(self.vision_config)
        if isinstance(self.vision_config, dict):
            self.vision_config = {"vision_use_head": False, **self.vision_config}
        super().__post_init__(**kwargs)
        if self.mm_hidden_size is None:
            self.mm_hidden_size = self.vision_config.hidden_size
        self.image_grid_pinpoints = _read_pinpoints(self.image_grid_pinpoints, self.vision_config.image_size)
        self._check_settings()

    @property
    def _attn_implementation(self) -> str | None:
        """How the language model attends; in a thread that watches it, as one can be watched."""
        return WATCHED if is_watched() else self._attn_implementation_internal

    @_attn_implementation.setter
    def _attn_implementation(self, value: str | dict | None) -> None:
        PreTrainedConfig._attn_implementation.fset(self, value)

    def to_dict(self) -> dict[str, Any]:
        """Return all fields; also `rope_theta`, which published code reads, and no reference to code in the folder."""
        values = super().to_dict()
        values.pop("auto_map", None)
        if "rope_theta" in (values.get("rope_parameters") or {}):
            values["rope_theta"] = values["rope_parameters"]["rope_theta"]
        return values

    def _check_settings(self) -> None:
        """Check what neither the parent's validation nor the shapes of a checkpoint's tensors would show."""
        parse_aspect_ratio(self.image_aspect_ratio)
        rope = (self.rope_parameters or {}).get("rope_type", "default")
        for name, value, known in (
            ("hidden_act", self.hidden_act, ACT2FN),
            ("vision_config.hidden_act", self.vision_config.hidden_act, ACT2FN),
            ("rope_type", rope, {"default", *ROPE_INIT_FUNCTIONS}),
        ):
            if value not in known:
                raise ValueError(f"{name} is {value!r:.80}; allowed are {', '.join(sorted(known))}")
        if self.mm_hidden_size != self.vision_config.hidden_size:
            raise ValueError(
                f"mm_hidden_size is {self.mm_hidden_size}, but vision_config.hidden_size is "
                f"{self.vision_config.hidden_size}: the projector reads the vision features, so make them equal or "
                "leave mm_hidden_size out"
            )
        for name, allowed in (("mm_patch_merge_type", MERGE_TYPES), ("mm_projector_type", PROJECTOR_TYPES)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; allowed are {allowed}")
        if not 0 <= self.mask_token_id < self.vocab_size:
            raise ValueError(
                f"mask_token_id is {self.mask_token_id}, but the vocabulary has the ids 0..{self.vocab_size - 1}; "
                "give the id of the mask token of this vocabulary"
            )


@strict
class MedVCausalConfig(MedVConfig):
    """Configuration of `MedVForNextToken`, the twin that writes from left to right."""

    model_type = "llava_llada_causal"
    is_causal: bool = True


def _read_pinpoints(pinpoints: str | Sequence | None, side: int) -> list[list[int]]:
    if pinpoints is None:
        return grid_pinpoints(side)
    if isinstance(pinpoints, str):
        match = _PINPOINT_RANGE.fullmatch(pinpoints.strip())
        if match is None:
            raise ValueError(
                f"image_grid_pinpoints is {pinpoints!r}; write '(1x1),...,(6x6)' (in tiles) or [[width, height], ...]"
            )
        first_i, first_j, last_i, last_j = map(int, match.groups())
        if last_i * last_j > MAX_TILES:  # before they are listed
            raise ValueError(
                f"image_grid_pinpoints is {pinpoints!r:.80}; {MAX_TILES} tiles are the most that a canvas has"
            )
        columns, rows = range(first_i, last_i + 1), range(first_j, last_j + 1)
        pinpoints = [[i * side, j * side] for i in columns for j in rows]
    check_canvases(pinpoints, side)
    return [list(canvas) for canvas in pinpoints]


def _check_sizes(values: Mapping[str, Any]) -> None:
    """Raise a ValueError for a size that no model has: libraries build lists of it before any weight is looked at."""
    for name, most in MAX_SIZES.items():
        value = values.get(name)
        if isinstance(value, int) and not 1 <= value <= most:
            raise ValueError(f"{name} is {value}; allowed is 1 to {most}")
    for name in ("rms_norm_eps", "layer_norm_eps", "rope_theta"):
        value = values.get(name)
        if isinstance(value, int | float) and not 0 < value < math.inf:
            raise ValueError(f"{name} is {value}; give a number above 0")

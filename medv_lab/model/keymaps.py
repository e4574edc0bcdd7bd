"""Names of tensors in foreign checkpoints, told in the published `llava_llada` names.

Three layouts are known: `llava_llada` itself (also the names that the HF-style LLaDA-8B-Instruct uses for the
language tower), LLaDA-8B-Instruct's original names, and a plain SigLIP folder as a source of a vision tower.
No torch, no files.
"""

import re

VISION_PREFIX = "model.vision_tower.vision_tower.vision_model."
PROJECTOR_PREFIX = "model.mm_projector."
NEWLINE = "model.image_newline"

_TOP = {
    "model.transformer.wte.weight": "model.embed_tokens.weight",
    "model.transformer.ln_f.weight": "model.norm.weight",
    "model.transformer.ff_out.weight": "lm_head.weight",
}
_BLOCK = {
    "q_proj": "self_attn.q_proj",
    "k_proj": "self_attn.k_proj",
    "v_proj": "self_attn.v_proj",
    "attn_out": "self_attn.o_proj",
    "ff_proj": "mlp.gate_proj",
    "up_proj": "mlp.up_proj",
    "ff_out": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ff_norm": "post_attention_layernorm",
}
_BLOCK_KEY = re.compile(r"model\.transformer\.blocks\.(\d+)\.(\w+)\.weight")
_BUFFER = re.compile(r".*\.(rotary_emb\.inv_freq|position_ids)")


def from_llada(key: str) -> str | None:
    """The `llava_llada` name of an original LLaDA-8B-Instruct key; None if there is none."""
    if key in _TOP:
        return _TOP[key]
    match = _BLOCK_KEY.fullmatch(key)
    if match is None or match[2] not in _BLOCK:
        return None
    return f"model.layers.{int(match[1])}.{_BLOCK[match[2]]}.weight"


def to_model_key(key: str) -> str | None:
    """The model's own name of a checkpoint key in any known layout.

    Returns:
        The name; the key itself if it is unknown (it will be reported as such); None for stored buffers,
        which the model computes itself.
    """
    if _BUFFER.fullmatch(key):
        return None
    return from_llada(key) or key


def from_vision_folder(key: str) -> str | None:
    """The model's name of a tensor in a folder that lends its vision tower or projector; else None.

    Such a folder is a SigLIP checkpoint (`vision_model.*`) or another `llava_llada` checkpoint.
    """
    if key.startswith("vision_model.") and not key.startswith("vision_model.head."):
        return VISION_PREFIX + key.removeprefix("vision_model.")
    return key if is_visual(key) else None


def is_visual(key: str) -> bool:
    """Whether a model key belongs to the vision tower, the projector or the newline vector."""
    return key.startswith((VISION_PREFIX, PROJECTOR_PREFIX)) or key == NEWLINE

"""The last layer at the query indices only: what no one asks for is not computed there.

All layers but the last need every sequence index, since each attends to all others. Of the last, the query indices
need the keys and values of every index, and their own query, output projection and MLP. The numbers are those of the
whole forward pass, up to rounding. R rows, T sequence indices, Q query indices, H hidden size, D head size.
"""

import torch
from torch import nn
from transformers import LlamaModel
from transformers.masking_utils import create_causal_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import (
    LlamaDecoderLayer,
    eager_attention_forward,
    rotate_half,
)

from medv_lab.diffusion.cache import KeyValueCache, states_at
from medv_lab.diffusion.forward_runner import WatchedLayers


def is_called_alone(layer: nn.Module) -> bool:
    """Return whether calling a layer runs its own forward pass and nothing else.

    Hooks that bring weights or inputs where they belong (accelerate, FSDP), and hooks of users, run only when the layer
    itself is called; those of its parts run in any case.
    """
    attention = getattr(layer, "self_attn", layer)
    return not any(
        hasattr(module, "_hf_hook") or module._forward_pre_hooks or module._forward_hooks
        for module in (layer, attention)
    )


def hidden_at(
    model: LlamaModel,
    inputs_embeds: torch.Tensor,
    attention_mask: torch.Tensor | None,
    position_ids: torch.Tensor | None,
    cache: KeyValueCache | None,
    query_indices: torch.Tensor | None,
    watched: WatchedLayers | None = None,
) -> torch.Tensor:
    """Return the hidden states after the final norm at the query indices.

    Args:
        model: a language model whose attention is not causal.
        inputs_embeds, attention_mask, position_ids, cache: as `LlamaModel.forward` takes them.
        query_indices: indices into the sequences of `inputs_embeds`, int64 (R, Q); None calls the last layer whole.
        watched: gets the states of other layers, or indices; what is returned does not depend on it.

    Returns:
        (R, Q, H), or (R, T, H) without query indices.

    Raises:
        ValueError: for a causal model, whose queries and keys would no longer be aligned.
    """
    if model.layers[-1].self_attn.is_causal:
        raise ValueError("the model is causal; ask it for all indices, query_indices=None")
    if position_ids is None:
        position_ids = torch.arange(inputs_embeds.shape[1], device=inputs_embeds.device)[None]
    mask = create_causal_mask(
        config=model.config,
        inputs_embeds=inputs_embeds,
        attention_mask=attention_mask,
        past_key_values=cache,
        position_ids=position_ids,
    )
    rotation = model.rotary_emb(inputs_embeds, position_ids=position_ids)
    named = {
        "attention_mask": mask,
        "position_ids": position_ids,
        "past_key_values": cache,
        "use_cache": False,
        "position_embeddings": rotation,
    }
    hidden = inputs_embeds
    *layers, last = model.layers
    wanted = () if watched is None else watched.layers
    for number, layer in enumerate(layers):
        hidden = layer(hidden, **named)
        if number in wanted:
            watched.states.append(model.norm(states_at(hidden, watched.indices)))
    is_last_wanted = len(layers) in wanted
    if query_indices is None:
        whole = model.norm(last(hidden, **named))
        if is_last_wanted:
            watched.states.append(states_at(whole, watched.indices))
        return whole
    if is_last_wanted:  # computed apart, so that the numbers at the query indices are those of any other run
        watched.states.append(model.norm(_layer_at(last, hidden, mask, rotation, cache, watched.indices)))
    return model.norm(_layer_at(last, hidden, mask, rotation, cache, query_indices))


def _layer_at(
    layer: LlamaDecoderLayer,
    hidden: torch.Tensor,
    mask: torch.Tensor | None,
    rotation: tuple[torch.Tensor, torch.Tensor],
    cache: KeyValueCache | None,
    query_indices: torch.Tensor,
) -> torch.Tensor:
    """A decoder layer's output at the query indices, (R, Q, H)."""
    attention, at = layer.self_attn, query_indices
    normed = layer.input_layernorm(hidden)
    cos, sin = (part.expand(len(hidden), -1, -1) for part in rotation)  # (R, T, D)
    queries = _heads(attention.q_proj(states_at(normed, at)), attention.head_dim)
    queries = _rotate(queries, states_at(cos, at), states_at(sin, at))
    keys = _rotate(_heads(attention.k_proj(normed), attention.head_dim), cos, sin)
    values = _heads(attention.v_proj(normed), attention.head_dim)
    if cache is not None:
        keys, values = cache.update(keys, values, attention.layer_idx)
    if mask is not None and mask.ndim == 4:
        mask = mask.expand(len(hidden), -1, -1, -1).take_along_dim(query_indices[:, None, :, None], 2)
    attend = ALL_ATTENTION_FUNCTIONS.get_interface(
        attention.config._attn_implementation, eager_attention_forward
    )
    seen, _ = attend(attention, queries, keys, values, mask, dropout=0.0, scaling=attention.scaling)
    chosen = states_at(hidden, at) + attention.o_proj(seen.flatten(2))
    return chosen + layer.mlp(layer.post_attention_layernorm(chosen))


def _heads(projected: torch.Tensor, width: int) -> torch.Tensor:
    """(R, T, heads D) to (R, heads, T, D)."""
    return projected.unflatten(-1, (-1, width)).transpose(1, 2)


def _rotate(states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary positions: states (R, heads, T, D), cos and sin (R, T, D)."""
    return states * cos[:, None] + rotate_half(states) * sin[:, None]

"""Parity of the language model on token ids: every layer, rotary positions, padding, logits."""

import numpy as np
import pytest
import torch

from medv_lab.model import MedVConfig, MedVForMaskedDiffusion
from tests.parity.golden import close, load_arrays, load_json, recorded_geometry, require, tiny_model

BACKENDS = ("sdpa", "eager")


def backbone(backend: str = "sdpa"):
    require("backbone")
    require("weights_check")
    recorded = load_arrays("backbone")
    model = tiny_model(recorded_geometry(), load_json("weights_check")["seed"])
    model.set_attn_implementation(backend)
    return recorded, model, model.embed_tokens(torch.from_numpy(recorded["input_ids"]))


def hidden_states(model, embeds, mask):
    outputs = []
    hooks = [
        layer.register_forward_hook(lambda *call: outputs.append(call[2])) for layer in model.model.layers
    ]
    with torch.no_grad():
        last = model.backbone(embeds, mask)
    for hook in hooks:
        hook.remove()
    return [embeds, *outputs[:-1], last]


def test_weights_follow_the_rule():
    require("weights_check")
    recorded = load_json("weights_check")
    weights = tiny_model(recorded_geometry(), recorded["seed"]).state_dict()
    assert weights.keys() == recorded["weights"].keys()
    for name, expected in recorded["weights"].items():
        values = weights[name].numpy()
        assert list(values.shape) == expected["shape"], name
        np.testing.assert_allclose(values.ravel()[:4], expected["first4"], rtol=0, atol=0, err_msg=name)
        np.testing.assert_allclose(values.ravel()[-2:], expected["last2"], rtol=0, atol=0, err_msg=name)
        np.testing.assert_allclose(
            values.sum(dtype=np.float64), expected["sum_float64"], rtol=1e-9, err_msg=name
        )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("tag", ["nomask", "padmask"])
def test_every_layer(tag, backend):
    recorded, model, embeds = backbone(backend)
    mask = torch.from_numpy(recorded["attention_mask"]) if tag == "padmask" else None
    layers = hidden_states(model, embeds, mask)
    assert f"{tag}.hidden_{len(layers)}" not in recorded
    for number, hidden in enumerate(layers):
        close(hidden, recorded[f"{tag}.hidden_{number}"], "hidden")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("tag", ["nomask", "padmask"])
def test_logits(tag, backend):
    recorded, model, embeds = backbone(backend)
    mask = torch.from_numpy(recorded["attention_mask"]) if tag == "padmask" else None
    with torch.no_grad():
        logits = model.head(model.backbone(embeds, mask))
    close(logits[..., ::997], recorded[f"{tag}.logits_stride997"], "logits")
    close(logits.double().logsumexp(-1), recorded[f"{tag}.logsumexp"], "logits")
    ids = torch.from_numpy(recorded[f"{tag}.top32_ids"]).long()
    close(logits.gather(-1, ids), recorded[f"{tag}.top32_values"], "logits")
    assert torch.equal(logits.argmax(-1), ids[..., 0])


def test_first_layer_inside():
    recorded, model, embeds = backbone("eager")
    layer = model.model.layers[0]
    positions = torch.arange(embeds.shape[1])[None]
    with torch.no_grad():
        cos, sin = model.model.rotary_emb(embeds, positions)
        normed = layer.input_layernorm(embeds)
        attended, _ = layer.self_attn(normed, position_embeddings=(cos, sin), attention_mask=None)
        for name, projection in (("q", layer.self_attn.q_proj), ("k", layer.self_attn.k_proj)):
            heads = projection(normed).unflatten(-1, (-1, layer.self_attn.head_dim)).transpose(1, 2)
            half = heads.shape[-1] // 2
            turned = torch.cat([-heads[..., half:], heads[..., :half]], dim=-1)
            close(heads * cos + turned * sin, recorded[f"layer0.{name}_after_rope"], "hidden")
    close(cos[0], recorded["rope.cos"], "hidden")
    close(sin[0], recorded["rope.sin"], "hidden")
    close(normed, recorded["layer0.input_layernorm_out"], "hidden")
    close(attended, recorded["layer0.self_attn_out_nomask"], "hidden")


def test_published_keys():
    require("checkpoint_keys")
    recorded = load_json("checkpoint_keys")
    config = MedVConfig(
        **recorded["llm_config_8b"], vision_config=recorded["vision_config_so400m_patch14_384"]
    )
    with torch.device("meta"):
        model = MedVForMaskedDiffusion(config)
    keys = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    assert keys == recorded["full_model_state_dict"]
    assert sum(parameter.numel() for parameter in model.parameters()) == recorded["parameter_counts"]["total"]

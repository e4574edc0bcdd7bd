"""Tests of the names of tensors in foreign checkpoints (the published map is checked by the parity suite)."""

import pytest

from medv_lab.model import keymaps


def test_own_names_stay_and_stored_buffers_go():
    for key in (
        "model.layers.0.mlp.up_proj.weight",
        "lm_head.weight",
        "model.image_newline",
        "foreign.weight",
    ):
        assert keymaps.to_model_key(key) == key
    assert keymaps.to_model_key("model.rotary_emb.inv_freq") is None
    assert keymaps.to_model_key(f"{keymaps.VISION_PREFIX}embeddings.position_ids") is None


@pytest.mark.parametrize(
    ("key", "lent"),
    [
        ("vision_model.post_layernorm.bias", f"{keymaps.VISION_PREFIX}post_layernorm.bias"),
        (f"{keymaps.VISION_PREFIX}post_layernorm.bias", f"{keymaps.VISION_PREFIX}post_layernorm.bias"),
        ("model.mm_projector.0.weight", "model.mm_projector.0.weight"),
        ("model.image_newline", "model.image_newline"),
        ("vision_model.head.probe", None),
        ("text_model.head.weight", None),
        ("model.norm.weight", None),
        ("logit_scale", None),
    ],
)
def test_a_lending_folder_gives_its_visual_parts_only(key, lent):
    assert keymaps.from_vision_folder(key) == lent


def test_visual_and_language_keys():
    assert keymaps.is_visual("model.mm_projector.2.bias")
    assert not keymaps.is_visual("model.embed_tokens.weight")
    assert not keymaps.is_visual("model.image_newline.weight")

import pytest
import torch
from transformers import AutoConfig, AutoModel

from medv_lab.diffusion.forward import draw_noise
from medv_lab.inputs.prompts import IMAGE_PLACEHOLDER
from medv_lab.inputs.tiling import TileLayout
from medv_lab.model import MedVConfig, MedVForMaskedDiffusion
from tests.model.tiny import PATCH, SIDE, tiny_model

IMAGE = IMAGE_PLACEHOLDER
ONE, TILE = torch.tensor([[IMAGE]]), torch.zeros(1, 3, SIDE, SIDE)


def layout(size: tuple[int, int], is_cut: bool = True) -> TileLayout:
    """A picture of one tile, or one cut into tiles that it fills exactly."""
    return TileLayout(size, SIDE, PATCH, "spatial_unpad", size if is_cut else None, max_tiles=4)


def make_model(**settings):
    return tiny_model(**{"initializer_range": 0.3, "mm_patch_merge_type": "spatial_unpad", **settings})


def batch_of_unequal_rows():
    """Three prompts: 5 tiles and long, one tile and short, text only; ids padded on the right."""
    rows = [[1, 7, IMAGE, 8, 9, 10, 11], [1, IMAGE, 12, 13], [1, 14, 15]]
    ids = torch.full((3, 7), 2)
    mask = torch.zeros(3, 7, dtype=torch.long)
    for row, tokens in enumerate(rows):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        mask[row, : len(tokens)] = 1
    torch.manual_seed(1)
    pixels = [torch.randn(5, 3, SIDE, SIDE), torch.randn(1, 3, SIDE, SIDE)]
    return ids, mask, pixels, [layout((2 * SIDE, 2 * SIDE)), layout((SIDE, SIDE), is_cut=False)]


@pytest.mark.parametrize("backend", ["sdpa", "eager"])
def test_late_token_changes_early_hidden_state(backend):
    model = make_model()
    model.set_attn_implementation(backend)
    ids = torch.arange(10, 22)[None]
    changed = ids.clone()
    changed[0, -1] = 50
    with torch.no_grad():
        first, second = (model.backbone(model.embed_tokens(x)) for x in (ids, changed))
    assert (first[0, 0] - second[0, 0]).abs().max() > 1e-3


def test_sdpa_equals_eager_with_padding_and_turns():
    ids, mask, pixels, layouts = batch_of_unequal_rows()
    turns = (torch.arange(7) > 4).long().expand(3, -1)
    logits = []
    for backend in ("sdpa", "eager"):
        model = make_model()
        model.set_attn_implementation(backend)
        with torch.no_grad():
            arguments = {"tile_layouts": layouts, "attention_mask": mask, "conversation_ids": turns}
            logits.append(model(ids, pixels, **arguments).logits)
    assert torch.isfinite(logits[0]).all()
    torch.testing.assert_close(*logits, rtol=0, atol=2e-5)


def test_flash_refuses_a_dialogue_mask():
    model = make_model()
    model.config._attn_implementation_internal = "flash_attention_2"
    with pytest.raises(ValueError, match="use 'sdpa' or 'eager'"):
        model.backbone(torch.zeros(1, 3, 16), torch.ones(1, 1, 3, 3))


@pytest.mark.parametrize("side", ["left", "right"])
def test_batch_rows_equal_single_rows(side):
    model = make_model()
    ids, mask, pixels, layouts = batch_of_unequal_rows()
    with torch.no_grad():
        batch = model.merge_image_features(
            ids, pixels, tile_layouts=layouts, attention_mask=mask, padding_side=side
        )
        positions = (batch.attention_mask.cumsum(1) - 1).clamp(min=0)
        hidden = model.backbone(batch.inputs_embeds, batch.attention_mask, positions)
        for row, images in enumerate([slice(0, 1), slice(1, 2), slice(2, 2)]):
            single = model.merge_image_features(
                ids[row : row + 1, : mask[row].sum()], pixels[images], tile_layouts=layouts[images]
            )
            kept = batch.attention_mask[row].bool()
            assert kept.sum() == single.inputs_embeds.shape[1]
            assert kept[-1 if side == "left" else 0]
            torch.testing.assert_close(
                hidden[row, kept], model.backbone(single.inputs_embeds)[0], rtol=0, atol=2e-5
            )


def test_padding_without_a_mask_is_ordinary_input():
    model = make_model()
    ids, _, pixels, layouts = batch_of_unequal_rows()
    merged = model.merge_image_features(ids, pixels, tile_layouts=layouts)
    assert merged.attention_mask is None
    assert merged.inputs_embeds[2, 7:].abs().max() == 0


def test_save_and_load_keeps_every_weight(tmp_path):
    model = make_model()
    model.save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(config, MedVConfig)
    assert {**config.to_dict(), "_name_or_path": ""} == model.config.to_dict()
    for loader in (MedVForMaskedDiffusion, AutoModel):
        loaded = loader.from_pretrained(tmp_path, local_files_only=True)
        assert isinstance(loaded, MedVForMaskedDiffusion)
        assert loaded.state_dict().keys() == model.state_dict().keys()
        assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), model.parameters(), strict=True))


def test_fresh_weights_are_finite_and_spread():
    for name, parameter in make_model().named_parameters():
        assert torch.isfinite(parameter).all(), name
        assert name.endswith("bias") or parameter.abs().mean() > 0.01, name


def test_a_checkpoint_without_newline_gets_a_fresh_one(tmp_path):
    model = make_model()
    state = {name: w for name, w in model.state_dict().items() if name != "model.image_newline"}
    model.save_pretrained(tmp_path, state_dict=state)
    newline = MedVForMaskedDiffusion.from_pretrained(tmp_path).model.image_newline
    assert 0.05 < newline.std() < 0.5


def test_parts_hold_every_parameter_once():
    model = make_model()
    parts = model.parts()
    names = [name for part in parts.values() for name in part]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    assert set(parts["projector"]) == {
        f"model.mm_projector.{i}.{kind}" for i in (0, 2) for kind in ("weight", "bias")
    }
    assert "model.image_newline" in parts["language_model"]


def test_cached_features_give_the_same_loss():
    model = make_model(image_aspect_ratio="square", mm_patch_merge_type="flat")
    ids = torch.tensor([[IMAGE, 10, 11, 12], [IMAGE, 13, 14, 15]])
    labels = ids.masked_fill(ids == IMAGE, -100)
    pixels = torch.randn(2, 3, SIDE, SIDE)
    noise = draw_noise(
        model.merge_image_features(ids, pixels, labels=labels).labels, t=torch.tensor([0.9, 0.9])
    )
    from_pixels = model(ids, pixels, labels=labels, noise=noise).loss
    with torch.no_grad():
        features = model.vision_features(pixels)
    from_features = model(ids, vision_features=features, labels=labels, noise=noise).loss
    torch.testing.assert_close(from_pixels, from_features)


def test_gradient_checkpointing_keeps_the_gradients():
    gradients = []
    for checkpointing in (False, True):
        model = make_model().train()
        if checkpointing:
            model.activation_checkpointing_enable()
        ids = torch.arange(10, 22)[None]
        torch.manual_seed(3)
        model(ids, labels=ids).loss.backward()
        gradients.append(model.model.layers[0].mlp.up_proj.weight.grad)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_ids": ONE}, "1 image placeholders .* but 0 images"),
        ({"input_ids": torch.tensor([[1, 2]]), "pixel_values": TILE}, "0 image placeholders"),
        ({"input_ids": ONE, "pixel_values": torch.zeros(1, 3, 8, 8)}, r"give \(N, 3, 32, 32\)"),
        (
            {"input_ids": ONE, "pixel_values": [TILE.expand(5, -1, -1, -1)]},
            "5 tiles of 16 patches, its layout 1 of 16: give tile_layouts",
        ),
        ({"input_ids": ONE, "pixel_values": TILE, "tile_layouts": []}, "0 tile_layouts for 1 images"),
        (
            {"input_ids": ONE, "pixel_values": TILE, "vision_features": torch.zeros(1, 16, 8)},
            "give one of them",
        ),
    ],
)
def test_wrong_images_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_model()(**arguments)


def test_noise_of_another_shape_is_refused():
    ids = torch.arange(10, 16)[None]
    with pytest.raises(ValueError, match="the labels with the images in have"):
        make_model()(ids, labels=ids, noise=draw_noise(ids[:, :4]))


@torch.no_grad()
def test_the_head_gives_the_same_whatever_the_number_of_rows_and_with_another_layer_in_its_place():
    model = tiny_model()
    hidden = torch.randn(20, 16, generator=torch.Generator().manual_seed(0))
    whole = model.head(hidden)
    for rows in range(1, 21):
        logits = model.head(hidden[:rows])
        assert logits.is_contiguous()
        torch.testing.assert_close(logits, whole[:rows])
    model.lm_head = torch.nn.Sequential(model.lm_head, torch.nn.Tanh())
    torch.testing.assert_close(model.head(hidden[:5]), whole[:5].tanh())


@torch.no_grad()
@pytest.mark.parametrize("backend", ["sdpa", "eager"])
@pytest.mark.parametrize("seen", ["all", "padded", "chosen"])
def test_query_indices_have_the_hidden_states_of_the_whole_pass(backend, seen):
    model = tiny_model(initializer_range=0.4)
    model.set_attn_implementation(backend)
    random = torch.Generator().manual_seed(0)
    embeds = torch.randn(3, 9, 16, generator=random)
    queries = torch.tensor([[8, 2, 3], [7, 7, 4], [5, 6, 8]])
    mask = positions = None
    if seen == "padded":
        mask = torch.tensor([[0, 0] + [1] * 7, [1] * 9, [0] + [1] * 8])
        positions = (mask.cumsum(1) - 1).clamp(min=0)
    if seen == "chosen":
        mask = torch.rand(3, 1, 9, 9, generator=random) < 0.7
        mask |= torch.eye(9, dtype=torch.bool)
    whole = model.backbone(embeds, mask, positions)
    ours = model.backbone(embeds, mask, positions, query_indices=queries)
    torch.testing.assert_close(ours, whole.take_along_dim(queries[..., None], 1), rtol=1e-5, atol=1e-5)
    model.model.layers[-1].self_attn.is_causal = True
    with pytest.raises(ValueError, match="causal"):
        model.backbone(embeds, query_indices=queries)

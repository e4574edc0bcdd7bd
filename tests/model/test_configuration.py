import pytest
from huggingface_hub.errors import StrictDataclassError

from medv_lab.model import MedVConfig

SMALL = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "mask_token_id": 5,
}


def test_defaults_are_the_published_sizes():
    config = MedVConfig()
    assert (config.hidden_size, config.num_hidden_layers, config.head_dim) == (4096, 32, 128)
    assert config.rope_parameters["rope_theta"] == 500000.0
    assert config.vision_config.num_hidden_layers == 27
    assert len(config.image_grid_pinpoints) == 36
    assert config.image_grid_pinpoints[1] == [384, 768]


def test_reads_published_fields_and_keeps_unknown_ones():
    config = MedVConfig.from_dict(
        {
            "model_type": "llava_llada",
            "architectures": ["LlavaLLaDAModelLM"],
            "auto_map": {"AutoConfig": "configuration_llada.LLaDAConfig"},
            "image_grid_pinpoints": "(1x1),...,(2x3)",
            "mm_hidden_size": 1152,
            "mm_use_im_start_end": False,
            "rope_scaling": None,
            "rope_theta": 10000.0,
            "torch_dtype": "bfloat16",
        }
    )
    assert config.rope_parameters["rope_theta"] == 10000.0
    assert config.image_grid_pinpoints == [[384 * i, 384 * j] for i in (1, 2) for j in (1, 2, 3)]
    assert config.mm_use_im_start_end is False


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_attention_heads": 5}, "not a multiple of the number of attention heads"),
        ({"mask_token_id": 60}, "ids 0..59"),
        ({"mm_hidden_size": 7}, "make them equal"),
        ({"mm_patch_merge_type": "spatial_pad"}, "allowed are"),
        ({"mm_projector_type": "linear"}, "allowed are"),
        ({"image_aspect_ratio": "anyres_9"}, "allowed are"),
        ({"image_grid_pinpoints": "6x6"}, r"\(1x1\),\.\.\.,\(6x6\)"),
        ({"image_grid_pinpoints": [[100, 384]]}, "multiples of the tile side 384"),
        ({"image_grid_pinpoints": []}, "multiples of the tile side 384"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises((ValueError, StrictDataclassError), match=message):
        MedVConfig(**{**SMALL, **settings})

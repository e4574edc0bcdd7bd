"""Names and shapes of published checkpoints against the recorded ones (`checkpoint_keys.json`)."""

from accelerate import init_empty_weights

from medv_lab.model.checkpoint_files import from_llada
from medv_lab.model.configuration import MedVConfig
from medv_lab.model.modeling import MedVForMaskedDiffusion
from tests.parity.golden import load_json, require


def test_llada_key_map():
    require("checkpoint_keys")
    recorded = load_json("checkpoint_keys")["llada_8b_instruct_to_hf"]
    assert {key: from_llada(key) for key in recorded["all_keys"]} == recorded["all_keys"]
    dropped = recorded["examples_that_are_dropped"]
    assert [from_llada(key) for key in dropped] == [None] * len(dropped)


def test_state_dict_of_the_published_model():
    require("checkpoint_keys")
    recorded = load_json("checkpoint_keys")
    sizes = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    language = {name: recorded["llm_config_8b"][name] for name in sizes}
    with init_empty_weights():
        model = MedVForMaskedDiffusion(
            MedVConfig(
                **language,
                num_key_value_heads=recorded["llm_config_8b"]["num_key_value_heads"],
                vision_config=recorded["vision_config_so400m_patch14_384"],
            )
        )
    shapes = {name: list(value.shape) for name, value in model.state_dict().items()}
    assert shapes == recorded["full_model_state_dict"]
    assert (
        sum(value.numel() for value in model.state_dict().values()) == recorded["parameter_counts"]["total"]
    )

"""A name becomes a responder: by the checkpoint, by its name in the tables, or behind an endpoint."""

import pytest

from medv_lab.config import GenerationSettings
from medv_lab.evaluation import loading
from medv_lab.evaluation.autoregressive import NextTokenResponder, TransformersResponder
from medv_lab.evaluation.loading import load_responder, own_device
from medv_lab.evaluation.model_choice import ModelChoice
from medv_lab.evaluation.responders import DiffusionResponder, EndpointResponder
from medv_lab.model.causal import MedVForNextToken
from medv_lab.model.checkpoint_files import CheckpointError
from medv_lab.model.processing import MedVProcessor
from medv_lab.records import Question
from tests.evaluation.tiny_baselines import LLAVA_PROMPT, tiny_llama, tiny_llava
from tests.model.tiny import save_tiny, tiny_config, tiny_tokenizer

SETTINGS = GenerationSettings(gen_length=8, block_length=8, steps=4)
ASKED = [Question("q", "What is it?")]


def test_a_checkpoint_says_itself_whether_it_is_the_twin(tmp_path):
    save_tiny(tmp_path / "diffusion")
    config = tiny_config(is_causal=True)
    MedVForNextToken(config).save_pretrained(tmp_path / "twin")
    MedVProcessor.from_config(tiny_tokenizer(), config).save_pretrained(tmp_path / "twin")
    for name, kind in (("diffusion", DiffusionResponder), ("twin", NextTokenResponder)):
        responder = load_responder(ModelChoice(str(tmp_path / name)), SETTINGS)
        assert type(responder) is kind
        assert responder.name == name  # where a folder lies is no one else's business
        (prediction,) = responder.answer(ASKED)
        assert prediction.passes <= 8
    assert load_responder(ModelChoice(str(tmp_path / "twin")), SETTINGS, "a name").name == "a name"


@pytest.mark.parametrize(
    ("make", "kind", "prompt"),
    [(tiny_llava, "image-text", LLAVA_PROMPT), (tiny_llama, "text", "Q: {question} A:")],
)
def test_transformers_models_take_prompt_and_length(tmp_path, make, kind, prompt):
    for part in make():
        part.save_pretrained(tmp_path)
    responder = load_responder(ModelChoice(str(tmp_path), kind, prompt), SETTINGS)
    assert type(responder) is TransformersResponder
    assert responder.name == responder.model["name"] == tmp_path.name
    assert responder.settings["max_new_tokens"] == 8
    assert responder.settings["prompt"] == prompt


def test_a_public_model_of_the_tables_is_loaded_by_its_name(monkeypatch):
    asked = []

    def load(kind, folder, *where):
        asked.append((kind, folder))
        return tiny_llava()

    monkeypatch.setattr(loading, "load_transformers", load)
    responder = load_responder(ModelChoice("LLaVA", prompt=LLAVA_PROMPT), SETTINGS)
    assert asked == [("image-text", "llava-hf/llava-1.5-7b-hf")]
    assert responder.name == "LLaVA"
    with pytest.raises(CheckpointError, match="RetinalGPT"):
        load_responder(ModelChoice("RetinalGPT"), SETTINGS)


def test_an_endpoint_is_asked_by_its_model_name():
    responder = load_responder(ModelChoice("m", "endpoint", base_url="http://127.0.0.1:1/v1"), SETTINGS)
    assert type(responder) is EndpointResponder
    assert responder.settings["max_tokens"] == 8


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="allowed are auto, medv"):
        ModelChoice("x", "diffusion")


def test_each_process_takes_the_gpu_of_its_number(monkeypatch):
    assert own_device("auto") == "auto"
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(loading.torch.cuda, "is_available", lambda: True)
    assert (own_device("auto"), own_device("cpu")) == ("cuda:3", "cpu")
    monkeypatch.setattr(loading.torch.cuda, "is_available", lambda: False)
    assert own_device("auto") == "auto"

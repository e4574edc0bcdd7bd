"""Rehearsal folders: the published layout in everything but the numbers, and everything loads from them."""

import json
from math import prod
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoProcessor

import medv_lab
from medv_lab.config import DualCache, GenerationSettings
from medv_lab.hardware.rehearsal import (
    SIZES,
    make_true_size_tokenizer,
    published_config,
    special_tokens,
    write_rehearsal,
)
from medv_lab.model.checkpoint_files import list_tensors
from medv_lab.model.checkpoints import load
from medv_lab.model.configuration import MedVConfig
from medv_lab.model.modeling import MedVForMaskedDiffusion
from medv_lab.phantoms.rendering import render
from medv_lab.phantoms.scenes import make_scene
from tests.cli.console import succeeds
from tests.data.released import draw, write_json

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("rehearsal") / "tiny"
    write_rehearsal("tiny", folder)
    return folder


def test_the_largest_size_has_the_published_names_and_shapes():
    recorded = json.loads((GOLDEN / "checkpoint_keys.json").read_text())
    published = recorded["full_model_state_dict"]
    with torch.device("meta"):
        state = MedVForMaskedDiffusion(MedVConfig.from_dict(published_config("8b"))).state_dict()
    assert {name: list(tensor.shape) for name, tensor in state.items()} == published
    config = published_config("8b")
    assert {name: config[name] for name in recorded["llm_config_8b"] if name != "model_type"} == {
        name: value for name, value in recorded["llm_config_8b"].items() if name != "model_type"
    }


def test_special_tokens_have_their_published_ids():
    recorded = json.loads((GOLDEN / "text.json").read_text())
    tokens = special_tokens()
    assert len(tokens) == recorded["special_token_count"]
    assert recorded["special_tokens"].items() <= tokens.items()
    others = [name for name in tokens if name not in recorded["special_tokens"]]
    assert all(name.startswith("<|reserved_token_") for name in others)
    tokenizer = make_true_size_tokenizer()
    assert len(tokenizer) == 126_349
    assert all(tokenizer.convert_tokens_to_ids(name) == number for name, number in tokens.items())
    text = "Is there a nodule in the left lung?\n"
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_shards_and_index_are_those_of_the_model(folder):
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    shards = sorted(set(index["weight_map"].values()))
    assert shards == [
        f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)
    ]
    assert len(shards) > 1
    stored = {tensor.key: tensor.file.name for tensor in list_tensors(folder)}
    assert stored == index["weight_map"]
    assert index["metadata"]["total_size"] == 2 * sum(prod(one.shape) for one in list_tensors(folder))
    with safe_open(folder / shards[0], framework="pt") as content:
        assert {content.get_tensor(key).dtype for key in content.keys()} == {torch.bfloat16}  # noqa: SIM118


def test_the_same_seed_gives_the_same_weights(folder, tmp_path):
    write_rehearsal("tiny", tmp_path / "again")
    write_rehearsal("tiny", tmp_path / "other", seed=1)
    one, again, other = (
        load(path)[0].state_dict() for path in (folder, tmp_path / "again", tmp_path / "other")
    )
    assert all(torch.equal(weight, again[name]) for name, weight in one.items())
    assert not torch.equal(one["lm_head.weight"], other["lm_head.weight"])


@pytest.mark.parametrize("cache", ["none", DualCache()])
def test_it_answers_and_its_answers_depend_on_the_question(folder, cache):
    model, processor = load(folder)
    assert model.config.vocab_size == len(processor.tokenizer) == 126_349
    settings = GenerationSettings(gen_length=16, block_length=16, steps=8, cache=cache)
    picture = render(make_scene("test", 0))
    answers = [
        medv_lab.ask(model, processor, picture, question, settings, progress=False)
        for question in ("Describe the image.", "Is there a nodule?")
    ]
    assert answers[0].text != answers[1].text
    assert len(set(answers[0].text.split())) > 1


def test_transformers_own_classes_read_it_as_load_does(folder):
    model, processor = load(folder, dtype="bfloat16")
    auto = AutoModelForImageTextToText.from_pretrained(folder, dtype="bfloat16").eval()
    read = AutoProcessor.from_pretrained(folder)
    asked = ([render(make_scene("test", 0))], ["What is shown?"])
    one, other = processor(*asked), read(*asked)
    assert torch.equal(one["input_ids"], other["input_ids"])
    with torch.no_grad():
        assert torch.equal(model(**one).logits, auto(**other).logits)
    assert AutoImageProcessor.from_pretrained(folder).image_aspect_ratio == "anyres_max_4"


def test_what_cannot_be_written_is_said(folder, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=f"the sizes are {', '.join(SIZES)}"):
        write_rehearsal("huge", tmp_path / "x")
    with pytest.raises(FileExistsError, match="not empty"):
        write_rehearsal("tiny", folder)
    usage = type("Usage", (), {"free": 17_000_000_000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(ValueError, match=r"8b takes 16\.9 GB"):
        write_rehearsal("8b", tmp_path / "y")


def test_a_stage_of_three_steps_trains_it_on_real_files(folder, tmp_path):
    draw(tmp_path / "a.png")
    turns = [{"from": "human", "value": "<image>\nWhat is shown?"}, {"from": "gpt", "value": "A lung."}]
    rows = [{"id": str(number), "image": "a.png", "conversations": turns} for number in range(2)]
    data = write_json(tmp_path / "data.json", rows)
    real = ("--preset", "full", "--stage", "instruct", "--data", data, "--images", tmp_path)
    output = tmp_path / "trained"
    short = ("--set", "batch_size=2", "--max-steps", "3", "--device", "cpu")
    succeeds("train", *real, "--model", folder, "--output", output, *short)
    before, after = (load(path)[0].state_dict() for path in (folder, output))
    changed = {name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"model", "lm_head"}
    kept = [name for name in before if "vision_tower" in name]
    assert all(torch.equal(before[name], after[name]) for name in kept)

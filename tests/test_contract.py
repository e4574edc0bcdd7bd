"""What a user of transformers types first, one call each, on the embedded model and on a folder as published."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageTextToText,
    AutoProcessor,
    TextDiffusionStreamer,
    TextStreamer,
    TopPLogitsWarper,
    pipeline,
)

from medv_lab import load
from medv_lab.decoding.generation_config import MedVGenerationConfig
from medv_lab.model import MedVCausalConfig, MedVForMaskedDiffusion, MedVForNextToken, MedVProcessor
from medv_lab.model.checkpoint_files import embedded_folder
from tests.model.tiny import save_tiny, tiny_config, tiny_processor, tiny_tokenizer

PICTURE = Image.fromarray(np.random.RandomState(0).randint(0, 256, (40, 50, 3)).astype(np.uint8))
MESSAGES = [
    {
        "role": "user",
        "content": [{"type": "image", "image": PICTURE}, {"type": "text", "text": "What is it?"}],
    }
]
SHORT = {"max_new_tokens": 8}


def save_published(folder):
    """A folder as published: more rows than tokens, a start token that there is not, code references, no processor."""
    save_tiny(folder, initializer_range=0.3, vocab_size=len(tiny_tokenizer()) + 10)
    for name in (
        "processor_config.json",
        "preprocessor_config.json",
        "generation_config.json",
        "chat_template.jinja",
    ):
        (folder / name).unlink()
    config = json.loads((folder / "config.json").read_text())
    config |= {"bos_token_id": 17, "auto_map": {"AutoConfig": "configuration.Config"}, "rope_theta": 500000.0}
    del config["rope_parameters"]
    (folder / "config.json").write_text(json.dumps(config))


@pytest.fixture(scope="module", params=["embedded", "published"])
def folder(request, tmp_path_factory):
    if request.param == "embedded":
        return embedded_folder()
    path = tmp_path_factory.mktemp("published")
    save_published(path)
    return path


@pytest.fixture(scope="module")
def model(folder):
    return AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)


@pytest.fixture(scope="module")
def processor(folder):
    return AutoProcessor.from_pretrained(folder)


@pytest.fixture(scope="module")
def inputs(processor):
    return processor.apply_chat_template(
        MESSAGES, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )


def test_auto_classes_and_load_give_the_same_model(folder, model, processor):
    loaded, own = load(folder, device="cpu", dtype="float32")
    for other in (model, AutoModel.from_pretrained(folder, dtype=torch.float32)):
        assert type(other) is type(loaded) is MedVForMaskedDiffusion
        assert other.state_dict().keys() == loaded.state_dict().keys()
        assert all(torch.equal(a, b) for a, b in zip(other.parameters(), loaded.parameters(), strict=True))
        ours, theirs = other.config.to_dict(), loaded.config.to_dict()
        assert {**ours, "_name_or_path": None} == {**theirs, "_name_or_path": None}
    assert model.config.vocab_size == len(processor.tokenizer)
    assert type(processor) is type(own) is MedVProcessor
    assert processor.to_dict() == own.to_dict()
    assert AutoConfig.from_pretrained(folder).model_type == "llava_llada"


def test_forward_records_what_is_asked_for(model, inputs):
    model.set_attn_implementation("eager")
    with torch.no_grad():
        output = model(**inputs, output_hidden_states=True, output_attentions=True)
        plain, merged = model(**inputs), model.merge_image_features(**inputs)
        as_tuple = model(**inputs, return_dict=False)
        from_embeds = model(inputs_embeds=merged.inputs_embeds, attention_mask=merged.attention_mask)
    model.set_attn_implementation("sdpa")
    layers, length = model.config.num_hidden_layers, output.logits.shape[1]
    assert len(output.hidden_states) == layers + 1 and len(output.attentions) == layers
    assert output.attentions[0].shape[-2:] == (length, length)
    assert plain.hidden_states is None and torch.equal(plain.logits, as_tuple[0])
    assert torch.equal(plain.logits, from_embeds.logits)
    torch.testing.assert_close(model.head(output.hidden_states[-1]), plain.logits)


def test_logits_stand_beside_the_loss_where_asked(model, inputs):
    labels = inputs["input_ids"].masked_fill(inputs["input_ids"] < 0, -100)
    torch.manual_seed(0)
    output = model(**inputs, labels=labels, output_logits=True)
    assert output.loss.requires_grad and output.logits.shape[-1] == model.config.vocab_size
    assert model(**inputs, labels=labels).logits is None


def test_the_bare_model_sees_pictures(model, inputs):
    dark = {**inputs, "pixel_values": torch.zeros_like(inputs["pixel_values"])}
    with torch.no_grad():
        seen, unseen = (model.model(**given).last_hidden_state for given in (inputs, dark))
        features = model.get_image_features(inputs["pixel_values"], tile_layouts=inputs["tile_layouts"])
    assert seen.shape == unseen.shape and not torch.allclose(seen, unseen)
    assert features.pooler_output[0].shape[0] == inputs["tile_layouts"][0].num_positions


@pytest.mark.parametrize(
    "given",
    [
        SHORT,
        {"gen_length": 8, "block_length": 4, "steps": 8},
        {"max_new_tokens": 8, "num_inference_steps": 4},
        {"max_new_tokens": 8, "threshold": 0.9},
        {"max_new_tokens": 8, "do_sample": True, "temperature": 0.7, "seed": 3},
        {"max_new_tokens": 8, "do_sample": True, "logits_processor": [TopPLogitsWarper(0.9)]},
        {"generation_config": MedVGenerationConfig(max_new_tokens=8, remasking="entropy")},
        {"max_new_tokens": 8, "stopping_criteria": [lambda ids, scores: torch.tensor([False])]},
    ],
    ids=lambda given: "-".join(given),
)
def test_generate(model, processor, inputs, given):
    sequences = model.generate(**inputs, **given)
    assert sequences.shape == (1, inputs["input_ids"].shape[1] + 8)
    assert model.config.mask_token_id not in sequences[0, -8:].tolist()
    assert isinstance(processor.batch_decode(sequences, skip_special_tokens=True)[0], str)


def test_generate_returns_an_output_and_takes_a_start(model, inputs):
    output = model.generate(**inputs, **SHORT, return_dict_in_generate=True)
    assert output.tokens_per_forward.shape == (1,) and len(output.trace) >= 1
    start = output.sequences[:, -8:].clone()
    start[:, 4:] = model.config.mask_token_id
    assert model.generate(**inputs, decoder_input_ids=start).shape == output.sequences.shape


@pytest.mark.parametrize("kind", [TextStreamer, TextDiffusionStreamer])
def test_text_streamers_write_the_answer(model, processor, inputs, kind, capsys):
    sequences = model.generate(**inputs, **SHORT, streamer=kind(processor.tokenizer, skip_prompt=True))
    written = capsys.readouterr().out
    answer = sequences[0, -8:].tolist()
    stop = answer.index(model.config.eos_token_id) if model.config.eos_token_id in answer else 8
    assert processor.decode(answer[:stop]).strip() in written


def test_a_typing_error_is_answered_with_what_is_near(model, inputs):
    with pytest.raises(ValueError, match="near are max_new_tokens"):
        model.generate(**inputs, max_new_token=8)


def test_pipeline_answers_messages_and_pictures(model, processor):
    pipe = pipeline("image-text-to-text", model=model, processor=processor)
    chat = pipe(text=MESSAGES, **SHORT, return_full_text=False)[0]["generated_text"]
    plain = pipe(images=PICTURE, text="What is it?", **SHORT, return_full_text=False)[0]["generated_text"]
    assert isinstance(chat, str) and chat == plain


def test_messages_are_the_questions_of_ask(processor, inputs):
    asked = processor(PICTURE, "What is it?")
    for name in ("input_ids", "attention_mask", "pixel_values"):
        assert torch.equal(inputs[name], asked[name])


def test_the_processor_takes_what_processors_take(processor):
    whole = processor(PICTURE, "What?", return_tensors="pt")
    as_arrays = processor(PICTURE, "What?", return_tensors="np")
    as_lists = processor([None, None], ["What?", "What is it?"], return_tensors=None, padding=False)
    tensor = torch.from_numpy(np.array(PICTURE)).permute(2, 0, 1)
    assert isinstance(as_arrays["input_ids"], np.ndarray) and isinstance(as_lists["input_ids"][0], list)
    assert len(as_lists["input_ids"][0]) < len(as_lists["input_ids"][1])
    assert torch.equal(processor(tensor, "What?")["pixel_values"], whole["pixel_values"])
    assert processor(PICTURE, "What?", text_kwargs={"return_tensors": "np"})["input_ids"].shape[0] == 1
    assert "pixel_values" in processor.image_processor(PICTURE, return_tensors="pt")
    with pytest.raises(ValueError, match="unknown arguments max_lenght"):
        processor(PICTURE, "What?", max_lenght=3)


def test_addresses_are_fetched_only_where_allowed(processor, monkeypatch):
    picture = {"type": "image", "url": "https://example.org/picture.png"}
    messages = [{"role": "user", "content": [picture, {"type": "text", "text": "See https://example.org"}]}]
    with pytest.raises(ValueError, match="allow_urls=True"):
        processor.apply_chat_template(messages, tokenize=True, return_dict=True)
    fetched = []
    monkeypatch.setattr(
        "medv_lab.model.processing.load_image", lambda address: fetched.append(address) or PICTURE
    )
    told = processor.apply_chat_template(messages, tokenize=True, return_dict=True, allow_urls=True)
    assert fetched == ["https://example.org/picture.png"] and len(told["pixel_values"]) == 1


def test_saved_folders_are_read_by_published_code_and_by_ours(model, processor, tmp_path):
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["rope_theta"] > 0 and "auto_map" not in config
    assert (tmp_path / "chat_template.jinja").is_file() and (tmp_path / "generation_config.json").is_file()
    again = AutoProcessor.from_pretrained(tmp_path)
    assert again.to_dict() == processor.to_dict() and again.chat_template == processor.chat_template
    assert AutoImageProcessor.from_pretrained(tmp_path).to_dict() == processor.image_processor.to_dict()


def test_the_twin_has_a_type_of_its_own_and_never_loads_as_a_denoiser(tmp_path):
    MedVForNextToken(tiny_config(is_causal=True)).save_pretrained(tmp_path)
    tiny_processor().save_pretrained(tmp_path)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), MedVCausalConfig)
    assert isinstance(AutoModel.from_pretrained(tmp_path), MedVForNextToken)
    assert isinstance(load(tmp_path, device="cpu")[0], MedVForNextToken)
    with pytest.raises(ValueError, match="that is the twin"):
        MedVForMaskedDiffusion.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="MedVCausalConfig"):
        AutoModelForImageTextToText.from_pretrained(tmp_path)


def test_tied_embeddings_stay_tied(tmp_path):
    saved = MedVForMaskedDiffusion(tiny_config(tie_word_embeddings=True))
    saved.save_pretrained(tmp_path)
    tiny_processor().save_pretrained(tmp_path)
    for model in (AutoModel.from_pretrained(tmp_path), load(tmp_path, device="cpu")[0]):
        assert model.lm_head.weight is model.model.embed_tokens.weight
        assert torch.equal(model.lm_head.weight, saved.lm_head.weight)

"""The autoregressive twin: it sees what came before, learns the next token, and writes as if alone in its batch."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import medv_lab
from medv_lab.model.causal import MedVForNextToken
from medv_lab.model.processing import MedVProcessor
from tests.model.tiny import tiny_config, tiny_model, tiny_processor, tiny_tokenizer

QUESTIONS = ("Is there a nodule in the left lung?", "What?", "What organ is shown?")
PICTURES = [np.full((32, 32, 3), 40, np.uint8), None, np.full((32, 32, 3), 200, np.uint8)]
BACKENDS = pytest.mark.parametrize("backend", ["sdpa", "eager"])


def twin(backend: str = "eager") -> MedVForNextToken:
    torch.manual_seed(0)
    model = MedVForNextToken(tiny_config(is_causal=True, initializer_range=0.6)).eval()
    model.set_attn_implementation(backend)
    return model


@BACKENDS
def test_a_position_sees_earlier_ones_only(backend):
    model, ids = twin(backend), torch.arange(10, 22)[None]
    changed = ids.clone()
    changed[0, 6] = 50
    with torch.no_grad():
        one, two = model(ids).logits[0], model(changed).logits[0]
    assert torch.equal(one[:6], two[:6])
    assert (one[6:] != two[6:]).any(1).all()


def test_it_has_the_parts_and_keys_of_the_denoiser():
    own, other = twin(), tiny_model()
    assert {k: v.shape for k, v in own.state_dict().items()} == {
        k: v.shape for k, v in other.state_dict().items()
    }
    assert {part: list(names) for part, names in own.parts().items()} == {
        part: list(names) for part, names in other.parts().items()
    }


def test_the_loss_is_the_mean_over_rows_of_the_mean_over_learned_tokens():
    model, config = twin(), tiny_config()
    end, text_end, none = config.eot_token_id, config.eos_token_id, -100
    ids = torch.tensor([[9, 10, 11, end, text_end], [20, 21, end, 22, 23]])
    labels = torch.tensor([[none, 10, 11, end, text_end], [none, 21, end, none, 23]])
    with torch.no_grad():
        loss, logits = model(ids, labels=labels).loss, model(ids).logits
    rows = ([(0, 10), (1, 11), (2, end)], [(0, 21), (1, end), (3, 23)])  # (position before, token)
    means = [
        F.cross_entropy(logits[row, [p for p, _ in of]], torch.tensor([t for _, t in of]))
        for row, of in enumerate(rows)
    ]
    torch.testing.assert_close(loss, torch.stack(means).mean())


@BACKENDS
def test_a_batch_is_written_as_its_rows_alone_and_as_without_a_cache(backend):
    model, processor = twin(backend), tiny_processor()
    together = model.write(**processor(PICTURES, list(QUESTIONS)), max_new_tokens=5)
    for picture, question, row in zip(PICTURES, QUESTIONS, together, strict=True):
        inputs = processor(picture, question)
        assert model.write(**inputs, max_new_tokens=5) == [row]
        for length, token in enumerate(row):
            written = torch.tensor([row[:length]], dtype=torch.long)
            ids = torch.cat([inputs["input_ids"], written], dim=1)
            with torch.no_grad():
                images = {name: inputs.get(name) for name in ("pixel_values", "tile_layouts")}
                logits = model(ids, **images).logits
            assert logits[0, -1].argmax() == token
    assert len({tuple(row) for row in together}) > 1


def test_an_answer_ends_with_its_turn():
    model, processor = twin(), tiny_processor()
    inputs = processor(None, QUESTIONS[0])
    free = model.write(**inputs, max_new_tokens=6)[0]
    model.config.eot_token_id = free[2]
    assert model.write(**inputs, max_new_tokens=6)[0] == free[: free.index(free[2]) + 1]


def test_draws_follow_the_seed_and_rows_draw_alone():
    model, processor = twin(), tiny_processor()
    many = {"max_new_tokens": 6, "temperature": 1.0}
    batch, alone = processor(None, [QUESTIONS[0]] * 2), processor(None, QUESTIONS[0])
    first = model.write(**batch, **many, seed=1)
    assert first == model.write(**batch, **many, seed=1) == model.write(**alone, **many, seed=1) * 2
    assert first != model.write(**batch, **many, seed=2)


def test_it_is_loaded_as_what_it_was_saved_as_and_not_denoised(tmp_path):
    model = twin("sdpa")
    model.save_pretrained(tmp_path)
    MedVProcessor.from_config(tiny_tokenizer(), model.config).save_pretrained(tmp_path)
    loaded, processor = medv_lab.load(tmp_path, device="cpu")
    assert isinstance(loaded, MedVForNextToken)
    inputs = processor(PICTURES[0], QUESTIONS[0])
    assert loaded.write(**inputs, max_new_tokens=5) == model.write(**inputs, max_new_tokens=5)
    with pytest.raises(ValueError, match="left to right"):
        medv_lab.ask(loaded, processor, PICTURES[0], QUESTIONS[0])


def test_a_configuration_that_sees_everything_is_refused():
    with pytest.raises(ValueError, match="is_causal is false"):
        MedVForNextToken(tiny_config())

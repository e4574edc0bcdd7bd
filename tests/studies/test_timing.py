"""The benchmark adds up, compares runs that give the same answer, and says where it cannot run."""

import json

import pytest
import torch
from typer.testing import CliRunner

from medv_lab.cli.main import app
from medv_lab.config import PRESETS, GenerationSettings
from medv_lab.decoding.denoising import suppressed_ids
from medv_lab.phantoms.rendering import render
from medv_lab.phantoms.scenes import make_scene
from medv_lab.studies import timing as benchmark
from medv_lab.studies.timing import (
    SAMPLERS,
    SIZES,
    WAYS,
    Size,
    Subject,
    fast_settings,
    make_subject,
    run_benchmark,
    sampler_settings,
)
from tests.model.tiny import PATCH, SIDE, save_tiny, tiny_model, tiny_processor

SETTINGS = GenerationSettings(gen_length=8, block_length=4, steps=8)


@pytest.fixture(scope="module")
def subject():
    model = tiny_model(initializer_range=0.4)
    with torch.no_grad():
        prefix = model.embed_tokens(torch.arange(5, 17)[None])
    suppressed = suppressed_ids(model, SETTINGS)
    return Subject(model, prefix, {"mask_token_id": model.config.mask_token_id, "suppressed": suppressed})


def test_ratios_follow_from_the_seconds_and_the_tokens_are_the_same(subject):
    result = run_benchmark(subject, SETTINGS, repeats=1)
    seconds = result["seconds_per_answer"]
    assert result["same_tokens"]
    for way in SAMPLERS:
        assert result[f"ratio_{way}_vs_reference"] == pytest.approx(seconds["reference"] / seconds[way])
    assert result["overhead_fraction"] == pytest.approx(seconds["exact"] / seconds["floor"] - 1)
    for way in WAYS:
        assert result["seconds_per_step"][way] == pytest.approx(seconds[way] / result["passes"][way])
        assert seconds[way] > 0
    assert all(result["seconds_per_step"][part] > 0 for part in ("backbone", "head", "sampler"))
    assert result["passes"]["reference"] == result["passes"]["exact"] == result["passes"]["floor"] == 8
    assert result["passes"]["fast"] < 8
    assert set(result["model_seconds_per_step"]) == set(sampler_settings(SETTINGS)) == set(SAMPLERS)
    spent = result["seconds_per_step"]
    assert result["model_seconds_per_step"]["exact"] == pytest.approx(spent["backbone"] + spent["head"])
    memory = result["peak_memory"]
    # float64 softmax at every position and the whole vocabulary, which no sampler of ours makes
    assert memory["reference"] > 8 * 20 * subject.model.config.vocab_size
    assert 0 < memory["exact"] < memory["reference"]
    assert json.dumps(result)


def test_another_answer_would_be_seen(subject, monkeypatch):
    def lazy(*args, **known):
        yield from (torch.zeros(SETTINGS.gen_length, dtype=torch.long) for _ in range(SETTINGS.steps))

    monkeypatch.setattr(benchmark, "sample_reference", lazy)
    assert not run_benchmark(subject, SETTINGS, repeats=1)["same_tokens"]


def test_a_range_holds_the_median_of_the_repeats(subject):
    result = run_benchmark(subject, SETTINGS, repeats=3)
    for name in ("ratio_exact_vs_reference", "overhead_fraction", "ratio_fast_vs_reference"):
        low, high = result[f"{name}_range"]
        assert low < result[name] < high
    with pytest.raises(ValueError, match="repeats is 0"):
        run_benchmark(subject, SETTINGS, repeats=0)


@pytest.mark.parametrize("name", SIZES)
def test_fast_settings_take_a_quarter_of_the_passes(name):
    settings, fast = SIZES[name].settings, PRESETS["fast"]
    ours = fast_settings(settings)
    assert ours.gen_length == settings.gen_length == 4 * ours.steps
    assert (ours.remasking, ours.cache) == (settings.remasking, fast.cache)


def test_the_embedded_model_is_asked_about_a_phantom_and_random_ones_about_noise():
    subject = make_subject(SIZES["embedded"], "cpu")
    assert subject.prefix_embeds.shape[1] > 16
    size = Size(
        SETTINGS, prompt=5, config={"hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 16}
    )
    size.config.update(num_attention_heads=2, num_key_value_heads=2)
    made = make_subject(size, "cpu")
    assert made.prefix_embeds.shape == (1, 5, 16)
    assert made.model.config.vocab_size == 126464


def test_a_size_for_a_gpu_is_refused_on_a_cpu():
    with pytest.raises(ValueError, match="needs a CUDA device"):
        make_subject(SIZES["8b"], "cpu")


def test_the_command_prints_one_line_or_writes_result_and_figure(subject, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "make_subject", lambda size, device, dtype: subject)
    monkeypatch.setitem(SIZES, "mid", Size(SETTINGS))
    runner = CliRunner()
    printed = runner.invoke(app, ["benchmark", "--repeats", "1", "--json", "-", "--output", str(tmp_path)])
    assert printed.exit_code == 0, printed.output
    line = json.loads(printed.stdout.strip())
    assert {"ratio_exact_vs_reference", "overhead_fraction", "ratio_fast_vs_reference"} <= set(line)
    assert {path.name for path in tmp_path.iterdir()} == {
        f"mid-cpu.{kind}" for kind in ("json", "csv", "pdf", "png")
    }
    assert json.loads((tmp_path / "mid-cpu.json").read_text()) == line
    read = runner.invoke(app, ["benchmark", "--repeats", "1", "--lookahead", "2"])
    assert all(way in read.output for way in WAYS)
    assert "2 states ahead: 8 passes" in read.output
    assert "same tokens: True" in read.output
    unknown = runner.invoke(app, ["benchmark", "--size", "9b"])
    assert unknown.exit_code == 2
    assert "embedded, mid, 8b" in unknown.stderr


def test_a_checkpoint_folder_is_timed_with_a_single_tile(tmp_path):
    save_tiny(tmp_path, image_aspect_ratio="anyres_max_4")
    subject = make_subject(Size(SETTINGS, model=str(tmp_path)), device="cpu")
    ids = tiny_processor()([render(make_scene("test", 0))], ["Describe the image."])["input_ids"]
    assert subject.prefix_embeds.shape[1] == ids.shape[1] - 1 + (SIDE // PATCH) ** 2
    assert run_benchmark(subject, SETTINGS, repeats=1)["same_tokens"]

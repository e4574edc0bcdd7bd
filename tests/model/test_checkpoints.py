"""Tests of loading: every layout gives the same model, every defect is one clear error."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.utils import logging

import medv_lab
from medv_lab.config import GenerationSettings
from medv_lab.decoding.denoising import suppressed_ids
from medv_lab.model import checkpoint_files, checkpoints
from medv_lab.model.checkpoints import CheckpointError, load
from medv_lab.model.weights import is_finite
from tests.model.tiny import save_tiny, tiny_model, tiny_tokenizer

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


@pytest.fixture
def folder(tmp_path) -> Path:
    """A complete checkpoint folder of the tiny model."""
    save_tiny(tmp_path / "tiny")
    return tmp_path / "tiny"


def rewrite(folder: Path, change) -> None:
    """Change the weights of a folder: `change` gets the tensors by name and alters them in place."""
    tensors = load_file(folder / SINGLE)
    change(tensors)
    save_file(tensors, folder / SINGLE)


def edit_config(folder: Path, **changes) -> None:
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, **changes}))


def shard(folder: Path, parts: int = 3) -> list[Path]:
    """Split the single file into shards with an index."""
    tensors = load_file(folder / SINGLE)
    (folder / SINGLE).unlink()
    names = sorted(tensors)
    files, weight_map = [], {}
    for number in range(parts):
        file = folder / f"model-{number + 1:05d}-of-{parts:05d}.safetensors"
        own = names[number::parts]
        save_file({name: tensors[name] for name in own}, file)
        weight_map |= dict.fromkeys(own, file.name)
        files.append(file)
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    return files


def assert_same_weights(model, expected) -> None:
    state = expected.state_dict()
    assert model.state_dict().keys() == state.keys()
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_folder_gives_the_saved_model_with_its_buffers(folder):
    model, processor = load(folder, device="cpu")
    saved = tiny_model()
    assert_same_weights(model, saved)
    buffers = dict(saved.named_buffers())
    assert buffers.keys() == dict(model.named_buffers()).keys()
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in model.named_buffers())
    batch = processor(None, "Is there a nodule?")
    with torch.no_grad():
        assert torch.equal(model(**batch).logits, saved(**batch).logits)
    assert not model.training
    assert "cpu in float32" in model.medv_source.notes[0]


def test_weights_do_not_depend_on_the_file_any_more(folder):
    model, _ = load(folder)
    (folder / SINGLE).write_bytes(b"")
    assert_same_weights(model, tiny_model())


def test_shards_give_the_same_as_a_single_file_of_any_name(folder):
    (folder / SINGLE).rename(folder / "weights.safetensors")
    assert_same_weights(load(folder)[0], tiny_model())
    (folder / "weights.safetensors").rename(folder / SINGLE)
    shard(folder)
    assert_same_weights(load(folder)[0], tiny_model())


def test_loading_prints_nothing_and_leaves_transformers_as_talkative_as_it_was(folder, capfd):
    make_language_only(
        folder, original_names=True
    )  # starts its vision fresh, which transformers would report
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    load(folder)
    assert capfd.readouterr() == ("", "")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def test_dtype_and_attention_as_asked(folder):
    model, _ = load(folder, dtype="bfloat16", attn_implementation="eager")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert model.config._attn_implementation == "eager"
    assert model.model.rotary_emb.inv_freq.dtype == torch.float32
    with pytest.raises(ValueError, match="allowed are sdpa"):
        load(folder, attn_implementation="fast")


def test_source_is_recorded_in_manifests(folder):
    model, _ = load(folder)
    recorded = medv_lab.runtime.make_manifest({}, model=model)
    assert recorded["model"] == {
        "name": "tiny",
        "sha256": medv_lab.runtime.hash_model(folder),
        "revision": None,
    }
    assert (recorded["device"], recorded["dtype"]) == ("cpu", "float32")


def test_weights_that_changed_after_loading_are_not_recorded_as_the_loaded_ones(folder):
    model, _ = load(folder)
    rewrite(folder, lambda tensors: tensors.update({name: tensor + 1 for name, tensor in tensors.items()}))
    with pytest.raises(CheckpointError, match="changed after they were loaded"):
        _ = model.medv_source.sha256


def test_vocabulary_is_cut_to_the_tokenizer(tmp_path):
    rows = len(tiny_tokenizer())
    wide = save_tiny(tmp_path, vocab_size=rows + 20)
    model, _ = load(tmp_path)
    assert model.config.vocab_size == rows
    assert torch.equal(model.lm_head.weight, wide.lm_head.weight[:rows])
    assert torch.equal(model.model.embed_tokens.weight, wide.model.embed_tokens.weight[:rows])
    assert any(f"to the tokenizer's {rows}" in note for note in model.medv_source.notes)


def test_special_tokens_are_those_of_the_tokenizer_by_name(folder):
    edit_config(folder, bos_token_id=128000, eos_token_id=5, eot_token_id=6)
    model, processor = load(folder)
    assert set(suppressed_ids(model, GenerationSettings())) == set(processor.special.suppressed)
    assert model.config.eot_token_id == processor.special.end_of_turn


def make_language_only(folder: Path, original_names: bool) -> dict[str, torch.Tensor]:
    """Turn a folder into a LLaDA-8B-Instruct-like one; returns its tensors under the model's names."""
    block = {part: own for own, part in checkpoint_files._LLADA_BLOCK.items()}
    tops = {name: own for own, name in checkpoint_files._LLADA_TOP.items()}

    def original(name: str) -> str:
        if name in tops:
            return tops[name]
        layer, part = name.removeprefix("model.layers.").removesuffix(".weight").split(".", 1)
        return f"model.transformer.blocks.{layer}.{block[part]}.weight"

    language = {
        name: value
        for name, value in load_file(folder / SINGLE).items()
        if not name.startswith(checkpoints.VISUAL_PREFIXES)
    }
    save_file(
        {original(name) if original_names else name: value for name, value in language.items()},
        folder / SINGLE,
    )
    config = json.loads((folder / "config.json").read_text())
    sizes = {"d_model": "hidden_size", "n_layers": "num_hidden_layers", "n_heads": "num_attention_heads"}
    sizes |= {"mlp_hidden_size": "intermediate_size", "embedding_size": "vocab_size"}
    sizes = sizes if original_names else {name: name for name in sizes.values()}
    sizes |= {name: name for name in ("mask_token_id", "vision_config")}
    kept = {foreign: config[own] for foreign, own in sizes.items()}
    auto_map = {"auto_map": {"AutoConfig": "configuration_llada.LLaDAConfig"}}
    (folder / "config.json").write_text(json.dumps({"model_type": "llada", **auto_map, **kept}))
    (folder / "processor_config.json").unlink()
    return language


@pytest.mark.parametrize("original_names", [True, False])
def test_language_only_checkpoint_starts_its_vision_fresh_and_says_so(folder, original_names):
    language = make_language_only(folder, original_names)
    torch.manual_seed(5)
    model, _ = load(folder)
    state = model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in language.items())
    fresh = [name for name in state if name.startswith(checkpoints.VISUAL_PREFIXES)]
    assert any(f"{len(fresh)} tensors are not in the checkpoint" in note for note in model.medv_source.notes)
    assert all(torch.isfinite(state[name]).all() for name in fresh)
    assert state["model.image_newline"].std() > 0
    assert state["model.mm_projector.0.weight"].std() > 0


@pytest.mark.parametrize("naming", ["siglip", "llava_llada"])
def test_vision_is_taken_from_another_folder(folder, tmp_path, naming):
    (tmp_path / "vision").mkdir()
    shutil.copy(folder / "config.json", tmp_path / "vision")
    language = make_language_only(folder, original_names=True)
    edit_config(folder, vision_config=None)
    other = tiny_model(seed=9)
    visual = {
        name: value
        for name, value in other.state_dict().items()
        if name.startswith(checkpoints.VISUAL_PREFIXES)
    }
    if naming == "siglip":
        prefix = checkpoints.VISION_PREFIX
        visual = {
            name.replace(prefix, "vision_model."): value for name, value in visual.items() if prefix in name
        }
        visual |= {
            "vision_model.encoder.layers.1.layer_norm1.weight": torch.zeros(8),  # the last layer is dropped
            "vision_model.head.probe": torch.zeros(8),
            "text_model.head.weight": torch.zeros(8),
            "logit_scale": torch.zeros(1),
        }
    save_file(visual, tmp_path / "vision" / SINGLE)
    model, _ = load(folder, vision=tmp_path / "vision")
    state, expected = model.state_dict(), other.state_dict()
    taken = [name for name in state if name.startswith(checkpoints.VISION_PREFIX)]
    assert all(torch.equal(state[name], expected[name]) for name in taken)
    assert all(torch.equal(state[name], value) for name, value in language.items())


def test_vision_for_a_complete_checkpoint_is_refused(folder):
    with pytest.raises(CheckpointError, match="has its own vision tower"):
        load(folder, vision=folder)


def test_all_defects_of_the_weights_are_one_error(folder):
    def spoil(tensors):
        del tensors["model.norm.weight"]
        tensors["adapter.lora_A.weight"] = torch.zeros(2)
        tensors["lm_head.weight"] = tensors["lm_head.weight"][:, :8].contiguous()

    rewrite(folder, spoil)
    with pytest.raises(CheckpointError) as raised:
        load(folder)
    text = str(raised.value)
    assert "1 missing: model.norm.weight" in text
    assert "1 unexpected: adapter.lora_A.weight" in text
    assert "1 mis-shaped: lm_head.weight is (300, 8), should be (300, 16)" in text


def test_stored_buffers_are_ignored(folder):
    buffers = ("model.rotary_emb.inv_freq", f"{checkpoints.VISION_PREFIX}embeddings.position_ids")
    rewrite(folder, lambda tensors: tensors.update({name: torch.zeros(4) for name in buffers}))
    assert_same_weights(load(folder)[0], tiny_model())


def truncate(folder):
    content = (folder / SINGLE).read_bytes()
    (folder / SINGLE).write_bytes(content[: len(content) // 2])


def leave_pickle_only(folder):
    (folder / SINGLE).unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")


def quantise(folder):
    rewrite(
        folder, lambda tensors: tensors.update({"lm_head.weight": torch.zeros(300, 16, dtype=torch.int8)})
    )


def lose_shard(folder):
    shard(folder)[1].unlink()


def lose_index(folder):
    shard(folder)
    (folder / INDEX).unlink()


def edit_index(folder, name, file):
    shard(folder)
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"][name] = file
    (folder / INDEX).write_text(json.dumps(index))


def mix_layouts(folder):
    rewrite(folder, lambda tensors: tensors.update({"model.transformer.ln_f.weight": torch.zeros(16)}))


DEFECTS = [
    (truncate, "not a readable safetensors file"),
    (leave_pickle_only, "pickled weights only .pytorch_model.bin.*never loads"),
    (lambda folder: (folder / SINGLE).unlink(), "holds no weights"),
    (quantise, "lm_head.weight .I8.*not quantised"),
    (lose_shard, "lacks 1 of its 3 shards: model-00002-of-00003.safetensors"),
    (lose_index, "3 safetensors files but no model.safetensors.index.json"),
    (
        lambda folder: edit_index(folder, "model.extra.weight", "model-00001-of-00003.safetensors"),
        "promises 1 tensors that no shard has: model.extra.weight",
    ),
    (
        lambda folder: edit_index(folder, "lm_head.weight", "../other.safetensors"),
        "not safetensors files of this folder: ../other.safetensors",
    ),
    (mix_layouts, "mixes two checkpoints"),
    (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
    (lambda folder: (folder / "config.json").write_text("{"), "config.json is not valid JSON"),
    (lambda folder: (folder / "config.json").write_text("[]"), "holds a list"),
    (
        lambda folder: edit_config(folder, model_type="llama"),
        "model_type 'llama'; medv-lab loads 'llava_llada'",
    ),
    (lambda folder: edit_config(folder, hidden_size="wide"), "does not describe a model"),
    (
        lambda folder: edit_config(folder, mask_token_id=7),
        "mask token is 2, config.json says mask_token_id 7",
    ),
    (lambda folder: (folder / "tokenizer.json").write_text("{}"), "lacks added_tokens, model"),
    (
        lambda folder: (folder / "processor_config.json").write_text('{"image_size": 32, "chat_mode": "x"}'),
        "chat_mode",
    ),
]


@pytest.mark.parametrize(("spoil", "match"), DEFECTS, ids=[match for _, match in DEFECTS])
def test_defective_folder_is_one_clear_error(folder, spoil, match):
    spoil(folder)
    with pytest.raises(CheckpointError, match=match):
        load(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_one_weight_that_is_not_finite_is_named(folder, value):
    weights = load_file(folder / "model.safetensors")
    key = "model.layers.1.mlp.up_proj.weight"
    weights[key][3, 5] = value
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        CheckpointError, match=rf"1 tensors .* hold NaN, or what is infinite in float32: {key};"
    ):
        load(folder)


def test_a_weight_too_large_for_the_dtype_is_named(folder):
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][0] = 1e30
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert load(folder, dtype="bfloat16")[0].model.norm.weight[0] > 1e29
    with pytest.raises(CheckpointError, match=r"infinite in float16: model.norm.weight.*another dtype"):
        load(folder, dtype="float16")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_what_is_finite(dtype):
    good = torch.linspace(-3, 3, 50).to(dtype)
    assert (
        is_finite(good)
        and is_finite(torch.zeros(0, dtype=dtype))
        and is_finite(torch.zeros(3, dtype=torch.int8))
    )
    for value in (float("nan"), float("inf"), float("-inf")):
        for place in (0, 25, 49):
            bad = good.clone()
            bad[place] = value
            assert not is_finite(bad)


def test_tokenizer_of_another_model_is_refused(tmp_path):
    save_tiny(tmp_path, vocab_size=len(tiny_tokenizer()) - 5)
    with pytest.raises(CheckpointError, match="tokenizer has 300 tokens, the model only 295"):
        load(tmp_path)


def test_too_little_memory_is_said_before_anything_is_read(folder, monkeypatch):
    monkeypatch.setattr(checkpoints, "available_memory", lambda device: 1000)
    monkeypatch.setattr(checkpoints, "_weights_of", lambda *_: pytest.fail("weights were read"))
    with pytest.raises(CheckpointError, match=r"needs \d+\.\d kB on cpu in float32, but 1.0 kB are free"):
        load(folder)


PEAK = """
import sys
from pathlib import Path
from medv_lab.model.checkpoints import load

def measured(name):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return 1024 * int(line.split()[1])

load(sys.argv[1], device="cpu")  # what is imported and set up once
before = measured("VmRSS")
model, _ = load(sys.argv[2], device="cpu", dtype="bfloat16")
print((measured("VmHWM") - before) / sum(p.numel() * p.element_size() for p in model.parameters()))
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs Linux's account of memory")
def test_no_more_memory_is_taken_than_the_weights_need(folder, tmp_path):
    save_tiny(tmp_path / "large", hidden_size=256, intermediate_size=2048, num_hidden_layers=16)  # 120 MB
    done = subprocess.run(
        [sys.executable, "-c", PEAK, folder, tmp_path / "large"], capture_output=True, text=True
    )
    assert float(done.stdout) < 1.5, done.stderr  # 1.12; read twice or mapped, 2 and more


def test_file_or_missing_folder_or_strange_name(folder, monkeypatch, tmp_path):
    monkeypatch.setattr(checkpoint_files, "embedded_folder", lambda: tmp_path / "none")
    for model, match in [
        (folder / SINGLE, "neither a folder here nor a hub id"),
        (tmp_path / "absent", "neither a folder here nor a hub id"),
        ("embedded", "no embedded checkpoint"),
    ]:
        with pytest.raises(CheckpointError, match=match):
            load(model)
    with pytest.raises(CheckpointError, match="local folder; leave it out"):
        load(folder, revision="main")


def test_hub_id_that_is_not_cached_says_how_to_allow_the_download(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        CheckpointError, match="not in the local cache; allow the download with download=True"
    ):
        load("nobody/nothing")


def test_download_is_asked_for_safetensors_of_one_commit(folder, monkeypatch):
    asked = {}

    def snapshot(name, **options):
        asked.update(options, name=name)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    model, _ = load("owner/name", download=True, revision="v1")
    assert (asked["name"], asked["revision"], asked["local_files_only"]) == ("owner/name", "v1", False)
    assert not any(pattern.endswith((".bin", ".py", "*")) for pattern in asked["allow_patterns"])
    assert (model.medv_source.name, model.medv_source.revision) == ("owner/name", folder.name)


def test_remote_code_is_never_run(folder, tmp_path):
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    edit_config(folder, auto_map={"AutoConfig": "evil.Config", "AutoModel": "evil.Model"})
    load(folder)
    assert not (tmp_path / "ran").exists()


NONSENSE = [
    *(
        {"num_hidden_layers": 10**5},
        {"num_hidden_layers": 90},
        {"num_labels": 10**9},
        {"num_attention_heads": 0},
    ),
    *({"hidden_act": "nonsense"}, {"hidden_act": []}, {"rms_norm_eps": float("nan")}, {"id2label": 5}),
    *({"image_grid_pinpoints": "(1x1),...,(3000x3000)"}, {"image_grid_pinpoints": [[56 * 10**6, 56]]}),
    *({"image_grid_pinpoints": 7}, {"image_aspect_ratio": 7}, {"hidden_size": "wide"}, {"vision_config": 5}),
    {"rope_parameters": {"rope_type": "nonsense", "rope_theta": 1e4}},
    {"rope_parameters": {"rope_type": "default", "rope_theta": float("nan")}},
    {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": -2.0}},
    *({"rope_parameters": [1]}, {"quantization_config": 7}, {"tokenizer_model_max_length": -4}),
]


@pytest.mark.parametrize("changes", NONSENSE, ids=str)
def test_nonsense_in_the_configuration_is_one_clear_error(folder, changes):
    edit_config(folder, **changes)
    with pytest.raises(CheckpointError, match=r"config\.json|quantis"):
        load(folder)


@pytest.mark.parametrize(
    "name", ["hidden_act", "num_hidden_layers", "num_labels", "patch_size", "layer_norm_eps"]
)
def test_nonsense_about_the_vision_tower_is_one_clear_error(folder, name):
    vision = json.loads((folder / "config.json").read_text())["vision_config"]
    for value in ("nonsense", 0, 10**9, None, [1]):
        edit_config(folder, vision_config={**vision, name: value})
        with pytest.raises(CheckpointError, match=r"config\.json"):
            load(folder)


DEEP = b'{"a":' * 50_000
DAMAGED = [
    *(("config.json", DEEP), ("config.json", b"\0" * 100), ("tokenizer.json", b"[" * 100_000)),
    *(("tokenizer.json", b'{"model": {}, "added_tokens": []}'), ("tokenizer.json", b"[]")),
    *(("tokenizer_config.json", b"{"), ("tokenizer_config.json", DEEP), ("tokenizer_config.json", b"3")),
    *(("processor_config.json", b"[1]"), ("processor_config.json", b'{"image_size": "x"}')),
    ("processor_config.json", b'{"image_size": 56, "image_grid_pinpoints": [[56000000, 56000000]]}'),
    *(("generation_config.json", b"nope"), ("generation_config.json", b'{"max_new_tokens": -5}')),
    *(
        ("model.safetensors", b"\xff" * 100),
        ("model.safetensors", (20_000).to_bytes(8, "little") + b"[" * 20_000),
    ),
    *(("special_tokens_map.json", b"["), ("preprocessor_config.json", DEEP)),
]


@pytest.mark.parametrize(("name", "content"), DAMAGED, ids=lambda value: str(value)[:30])
def test_a_damaged_file_is_one_clear_error(folder, name, content):
    (folder / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{folder.name}"):
        load(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_pipes_folders_and_links_in_a_loop_are_no_files(folder, name):
    for make in (os.mkfifo, os.mkdir, lambda path: os.symlink(path, path)):
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        make(path)
        with pytest.raises(CheckpointError):
            load(folder)


def test_an_index_that_is_no_table_is_refused(folder):
    (folder / SINGLE).unlink()
    for weight_map in ([1], {"a": 5}, {}, "x"):
        (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
        with pytest.raises(CheckpointError, match="no weight_map"):
            load(folder)

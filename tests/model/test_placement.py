"""A model that is offloaded, spread over devices, hooked, compiled or of noisy embeddings answers and learns alike."""

import shutil

import pytest
import torch
from accelerate import cpu_offload, disk_offload
from accelerate.hooks import ModelHook, add_hook_to_module
from PIL import Image
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map_only
from torch.utils.weak import WeakTensorKeyDictionary
from transformers.integrations.neftune import neftune_post_forward_hook

from medv_lab.config import DualCache, GenerationSettings, NoCache, Wino
from medv_lab.diffusion.forward import ForwardNoise
from medv_lab.generation import ask_many
from medv_lab.model import MedVForMaskedDiffusion
from tests.model.tiny import SIDE, tiny_model, tiny_processor

SETTINGS = {"max_new_tokens": 8, "block_length": 4}
CACHES = [NoCache(), DualCache()]


def make_model() -> MedVForMaskedDiffusion:
    return tiny_model(initializer_range=0.5)


def make_inputs(model):
    ids = torch.arange(20, 34).view(2, 7)
    ids[:, 2] = model.config.image_token_index
    pixels = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "pixel_values": pixels}


def assert_answers_as_whole(model, **more):
    whole = make_model()
    for cache in CACHES:
        own = model.generate(**make_inputs(whole), **SETTINGS, cache=cache, **more)
        assert torch.equal(own, whole.generate(**make_inputs(whole), **SETTINGS, cache=cache, **more))


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_an_offloaded_model_gives_the_same_tokens(where, tmp_path):
    model = make_model()
    if where == "memory":
        cpu_offload(model, execution_device="cpu")
    else:
        disk_offload(model, tmp_path, execution_device="cpu")
    assert all(parameter.is_meta for parameter in model.parameters())
    assert_answers_as_whole(model)


def test_a_model_partly_on_disk_gives_the_same_tokens(tmp_path):
    make_model().save_pretrained(tmp_path / "model")
    on_disk = ("layers.1", "vision_tower", "mm_projector", "norm")
    names = ("embed_tokens", "image_newline", "layers.0", "rotary_emb", *on_disk)
    places = {f"model.{name}": "disk" if name in on_disk else "cpu" for name in names} | {"lm_head": "disk"}
    model = MedVForMaskedDiffusion.from_pretrained(
        tmp_path / "model", device_map=places, offload_folder=tmp_path / "offload"
    )
    assert model.lm_head.weight.is_meta and not model.model.embed_tokens.weight.is_meta
    assert_answers_as_whole(model)


class Devices(TorchDispatchMode):
    """Two emulated devices: tensors are labelled, and an operation on tensors of both is an error."""

    def __init__(self):
        super().__init__()
        self.labels = WeakTensorKeyDictionary()

    def label(self, tensors, name):
        for tensor in tree_iter(tensors):
            if isinstance(tensor, torch.Tensor):
                self.labels[tensor] = name

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        given = [one for one in tree_iter((args, kwargs)) if isinstance(one, torch.Tensor) and one.ndim]
        names = {self.labels[one] for one in given if one in self.labels}
        assert len(names) < 2, f"{function} was given tensors of {names}"
        result = function(*args, **(kwargs or {}))
        if names:
            self.label(result, *names)
        return result


class Moving(ModelHook):
    """What accelerate's hooks do on real devices: they bring a module's inputs where its weights are."""

    def __init__(self, devices, name):
        self.devices, self.name = devices, name

    def pre_forward(self, module, *args, **kwargs):
        def move(tensor):
            copied = tensor.clone()
            self.devices.labels[copied] = self.name
            return copied

        return tree_map_only(torch.Tensor, move, (args, kwargs))


def split_model(devices):
    model = make_model()
    parts = {
        "first": [model.model.embed_tokens, model.model.vision_tower, model.model.mm_projector],
        "second": [model.model.layers[1], model.model.norm, model.lm_head],
    }
    parts["first"].append(model.model.layers[0])
    devices.label([model.model.image_newline], "first")
    for name, modules in parts.items():
        for module in modules:
            devices.label(list(module.parameters()), name)
            add_hook_to_module(module, Moving(devices, name))
    return model


def test_a_model_split_over_two_devices_gives_the_same_tokens():
    devices = Devices()
    model = split_model(devices)
    with devices:
        own = [model.generate(**make_inputs(model), **SETTINGS, cache=cache) for cache in CACHES]
        with pytest.raises(AssertionError, match="tensors of"):  # the emulation does see
            model.model.layers[1].mlp.up_proj(model.embed_tokens(torch.tensor([[7]])))
    whole = make_model()
    for answer, cache in zip(own, CACHES, strict=True):
        assert torch.equal(answer, whole.generate(**make_inputs(whole), **SETTINGS, cache=cache))


def test_hooks_of_users_run_in_every_pass():
    model, seen = make_model(), []
    model.model.layers[-1].register_forward_hook(lambda module, args, output: seen.append(output.shape))
    output = model.generate(**make_inputs(model), **SETTINGS, return_dict_in_generate=True)
    assert len(seen) == len(output.trace)


def test_the_backbone_and_the_vision_tower_are_one_graph():
    model = make_model()
    embeds = torch.randn(2, 9, 16, generator=torch.Generator().manual_seed(1))
    pixels = make_inputs(model)["pixel_values"]
    with torch.no_grad():
        for part, given in ((model.model, {"inputs_embeds": embeds}), (model.model.vision_tower, {})):
            args = () if given else (pixels,)
            expected = part(*args, **given, return_dict=True).last_hidden_state
            compiled = torch.compile(part, fullgraph=True, backend="eager")
            torch.testing.assert_close(compiled(*args, **given).last_hidden_state, expected)
    assert model.model._can_compile_fullgraph and not model._can_compile_fullgraph


def test_backbone_and_vision_tower_are_exported():
    model = make_model()
    embeds = torch.randn(2, 9, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        language = torch.export.export(
            model.model, (), {"inputs_embeds": embeds, "use_cache": False}, strict=False
        )
        torch.testing.assert_close(
            language.module()(inputs_embeds=embeds, use_cache=False).last_hidden_state,
            model.backbone(embeds),
        )
        pixels = make_inputs(model)["pixel_values"]
        vision = torch.export.export(model.model.vision_tower, (pixels,), strict=False)
        torch.testing.assert_close(vision.module()(pixels).last_hidden_state, model.vision_features(pixels))


def test_neftune_adds_noise_of_its_own_to_every_mask():
    model = make_model().train()
    table = model.get_input_embeddings()
    embeds, masked = torch.zeros(1, 6, 16), torch.tensor([[True, True, False, True, False, False]])
    silent = model.add_noise(embeds, masked)
    table.neftune_noise_alpha = 5.0
    table.register_forward_hook(neftune_post_forward_hook)
    noisy = model.add_noise(embeds, masked)
    change = (noisy - silent)[0]
    assert not change[~masked[0]].any()
    assert change[0].any() and not torch.equal(change[0], change[1])
    ids = torch.arange(10, 16)[None]
    noise = ForwardNoise(torch.tensor([0.5]), torch.tensor([0.5]), masked)
    assert torch.isfinite(model(ids, labels=ids, noise=noise).loss)


def test_features_have_the_dtype_of_the_model_not_of_stored_weights():
    model = make_model()
    seen = []

    class Coded(
        torch.nn.Linear
    ):  # what bitsandbytes does: weights are stored as codes and computed with in floats
        def forward(self, features):
            seen.append(features.dtype)
            return torch.nn.functional.linear(features, self.codes.float() / 64, self.bias)

    for number in (0, 2):
        plain = model.model.mm_projector[number]
        coded = Coded(plain.in_features, plain.out_features)
        coded.codes = (plain.weight * 64).to(torch.int8)
        coded.weight = torch.nn.Parameter(coded.codes, requires_grad=False)
        model.model.mm_projector[number] = coded
    features = model.get_image_features(make_inputs(model)["pixel_values"]).pooler_output
    assert set(seen) == {torch.float32} and features[0].abs().max() > 0


def test_flex_attention_takes_masks_of_single_queries():
    model = make_model()
    visible = torch.rand(2, 1, 6, 6, generator=torch.Generator().manual_seed(0)) < 0.6
    model.config._attn_implementation_internal = "flex_attention"
    mask = model._prepare_mask(visible, torch.zeros(2, 6, 16))
    seen = [
        [mask.mask_mod(*map(torch.tensor, (row, 0, q, k))) for k in range(6)]
        for row in (0, 1)
        for q in range(6)
    ]
    assert torch.equal(torch.tensor(seen).view(2, 1, 6, 6), visible)


@pytest.mark.slow  # minutes of compiling
@pytest.mark.skipif(shutil.which("g++") is None, reason="flex attention is compiled, and there is no g++")
@pytest.mark.parametrize("settings", [{}, {"cache": DualCache()}, {"remasking": Wino()}], ids=str)
def test_flex_attention_gives_the_same_tokens(settings):
    # torch 2.13 writes wrong C++ for a CPU where masks of another shape were compiled before
    torch._dynamo.reset()
    model, whole = make_model(), make_model()
    model.set_attn_implementation("flex_attention")
    own = model.generate(**make_inputs(model), **SETTINGS, **settings)
    assert torch.equal(own, whole.generate(**make_inputs(whole), **SETTINGS, **settings))


@pytest.fixture
def sharded():
    """A model under FSDP2, in a group of one process."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        model, mesh = make_model(), init_device_mesh("cpu", (1,))
        for layer in model.model.layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
        yield model
    finally:
        distributed.destroy_process_group()


def test_a_sharded_model_gives_the_same_tokens(sharded):
    assert_answers_as_whole(sharded)


def test_a_sharded_model_is_asked_like_any_other(sharded):
    processor, picture = tiny_processor(), Image.new("RGB", (SIDE, SIDE), "red")
    settings = GenerationSettings(gen_length=8, block_length=4, steps=8, stop=())
    questions = ["what ?", "a b"]
    own = ask_many(sharded, processor, [picture] * 2, questions, settings, 2)
    whole = ask_many(make_model(), processor, [picture] * 2, questions, settings, 2)
    for one, other in zip(own, whole, strict=True):
        assert one.trace.replay().tolist() == other.trace.replay().tolist()

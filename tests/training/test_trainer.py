"""Stages train what they name and nothing else; noise does not depend on the number of processes."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from medv_lab.diffusion.forward import ForwardNoise, draw_noise
from medv_lab.phantoms.scenes import make_scenes
from medv_lab.training.examples import Collator, encode_examples, report_examples
from medv_lab.training.recipes import LoRA, Recipe
from medv_lab.training.trainer import (
    Engine,
    MaskedDiffusionTrainer,
    MuonAdamW,
    NoiseSource,
    add_adapters,
    freeze_all_but,
    group_parameters,
    make_arguments,
    orthogonalise,
    run_stage,
    stratified_levels,
)
from tests.model.tiny import tiny_model, tiny_tokenizer

BOTH = {"projector_lr": 1e-3, "language_model_lr": 1e-3}
RECIPE = Recipe("test", **BOTH, batch_size=4, steps=2, max_length=512, precision="fp32")


def data() -> tuple[list[dict], Collator]:
    tokenizer = tiny_tokenizer()
    features = torch.randn(20, 16, 8, generator=torch.Generator().manual_seed(1)).half()
    dataset = encode_examples(report_examples("sentence", make_scenes("train", 20), 0), tokenizer, 0)
    return dataset, Collator(tokenizer.eos_token_id, features)


def train_tiny(folder, recipe=RECIPE, model=None, **settings):
    """Train the tiny model; returns it and its history."""
    model = tiny_model() if model is None else model
    dataset, collator = data()
    settings = {"seed": 3, "folder": folder, "log": lambda line: None} | settings
    return model, run_stage(model, recipe, dataset, collator, **settings)


def state(model) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def changed_parts(model, before) -> set[str]:
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    return {part for part, own in model.parts().items() if changed & own.keys()}


def are_equal(one, two) -> bool:
    return one.keys() == two.keys() and all(torch.equal(value, two[name]) for name, value in one.items())


@pytest.mark.parametrize(
    ("rates", "learn"),
    [
        ({"projector_lr": 1e-3}, {"projector"}),
        (BOTH, {"projector", "language_model"}),
        (BOTH | {"vision_tower_lr": 1e-3}, {"projector", "language_model", "vision_tower"}),
    ],
)
@pytest.mark.parametrize(("precision", "muon"), [("fp32", None), ("bf16", None), ("fp32", 0.01)])
def test_a_stage_changes_its_parts_alone(tmp_path, rates, learn, precision, muon):
    model = tiny_model()
    before = state(model)
    dataset, _ = data()
    pixels = torch.randn(20, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    padded = Collator(tiny_tokenizer().eos_token_id, torch.zeros(20, 1, 1))

    def collate(items):
        batch = padded(items)
        del batch["vision_features"]
        return batch | {"pixel_values": pixels[[item["scene"] for item in items]]}

    recipe = Recipe("test", **rates, muon_lr=muon, batch_size=4, steps=2, precision=precision)
    run_stage(model, recipe, dataset, collate, seed=3, folder=tmp_path, log=lambda line: None)
    assert changed_parts(model, before) == learn
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not model.training


def test_every_part_has_its_own_learning_rate(tmp_path):
    before = tiny_model()
    recipe = replace(RECIPE, steps=1, projector_lr=1e-2, language_model_lr=1e-4, schedule="constant")
    after, _ = train_tiny(tmp_path, recipe)
    for part, rate in recipe.learning_rates.items():
        pairs = zip(after.parts()[part].values(), before.parts()[part].values(), strict=True)
        moved = max((one - two).abs().max().item() for one, two in pairs)
        assert moved <= rate * 1.01  # AdamW's first step is the learning rate, whatever the gradient
        assert moved >= rate * 0.5, part


def test_precision_follows_the_device_unless_it_is_given(tmp_path, monkeypatch):
    found = {}
    for name, is_native, precision in (
        ("poor", False, "auto"),
        ("rich", True, "auto"),
        ("fp32", True, "fp32"),
        ("bf16", False, "bf16"),
    ):
        monkeypatch.setattr("medv_lab.runtime.has_bfloat16", lambda device, is_native=is_native: is_native)
        found[name] = train_tiny(tmp_path / name, replace(RECIPE, precision=precision))[0].state_dict()
    assert are_equal(found["poor"], found["fp32"])
    assert are_equal(found["rich"], found["bf16"])
    assert not are_equal(found["poor"], found["rich"])


@pytest.mark.parametrize("shape", [(6, 6), (12, 4), (4, 12)])
def test_muon_moves_matrices_as_torch_does(shape):
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("this torch has no Muon")
    torch.manual_seed(0)
    start = torch.randn(shape)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    bias = torch.nn.Parameter(torch.zeros(3))
    groups = [{"params": [bias], "lr": 1e-3}, {"params": [ours], "lr": 0.02, "is_muon": True}]
    optimizers = [
        MuonAdamW(groups, is_coarse=True, weight_decay=0.1),
        torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1),
    ]
    for _ in range(4):
        ours.grad, bias.grad = torch.randn(shape), torch.ones(3)
        theirs.grad = ours.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    assert (ours - start).abs().max() > 0.02
    torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=0)
    assert bias.tolist() == pytest.approx([-4e-3] * 3, rel=1e-3)  # AdamW's steps of the learning rate


def test_orthogonal_updates_have_singular_values_near_one():
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalise(torch.randn(3, 8, 20)))
    assert values.min() > 0.6 and values.max() < 1.3


@pytest.mark.parametrize("lora", [None, LoRA(rank=2)])
def test_muon_has_the_matrices_of_layers_and_adamw_the_rest(lora):
    model = tiny_model()
    freeze_all_but(model, ("projector", "language_model"))
    learner = model if lora is None else add_adapters(model, lora)
    found = {True: set(), False: set()}
    for parameters in learner.parts().values():
        names = {id(parameter): name for name, parameter in parameters.items()}
        for group in group_parameters(parameters, 1e-3, 1e-2):
            assert group["lr"] == (1e-2 if group["is_muon"] else 1e-3)
            found[group["is_muon"]] |= {names[id(parameter)] for parameter in group["params"]}
    if lora is not None:
        assert not found[True]
        assert all("lora_" in name or "mm_projector" in name for name in found[False])
        return
    kinds = {name.split(".layers.")[-1].split(".", 1)[1] for name in found[True]}
    attention = {f"self_attn.{kind}_proj.weight" for kind in "qkvo"}
    assert kinds == attention | {f"mlp.{kind}_proj.weight" for kind in ("gate", "up", "down")}
    assert len(found[True]) == 7 * len(model.model.layers)
    rest = {"model.embed_tokens.weight", "lm_head.weight", "model.norm.weight", "model.mm_projector.0.weight"}
    assert rest <= found[False]


def test_muon_needs_whole_matrices(tmp_path):
    trainer = MaskedDiffusionTrainer(
        recipe=replace(RECIPE, muon_lr=0.01),
        generator=generator(),
        model=tiny_model(),
        args=make_arguments(RECIPE, Engine(), seed=0, folder=tmp_path, steps=1),
    )
    trainer.is_fsdp_enabled = True
    with pytest.raises(ValueError, match="without muon_lr"):
        trainer.create_optimizer()


def test_both_optimisers_follow_one_schedule(tmp_path):
    recipe = replace(RECIPE, muon_lr=0.01, steps=4)
    _, history = train_tiny(tmp_path, recipe, engine=Engine(log_steps=1))
    _, plain = train_tiny(tmp_path, replace(recipe, muon_lr=None), engine=Engine(log_steps=1))
    assert history["learning_rate"].tolist() == plain["learning_rate"].tolist()
    assert history["loss"].tolist()[0] == plain["loss"].tolist()[0]
    assert history["loss"].tolist()[-1] != plain["loss"].tolist()[-1]


def test_the_same_seed_gives_the_same_weights(tmp_path):
    one, two = (train_tiny(tmp_path / name)[0].state_dict() for name in "ab")
    assert are_equal(one, two)
    assert not are_equal(one, train_tiny(tmp_path / "c", seed=4)[0].state_dict())


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path):
    model = tiny_model()
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="step 1"):
        train_tiny(tmp_path, model=model)


def test_a_loss_on_a_gpu_is_looked_at_before_reports_checkpoints_and_the_end_only(tmp_path):
    engine = Engine(log_steps=4, save_steps=3)
    arguments = make_arguments(RECIPE, engine, seed=0, folder=tmp_path, steps=7)
    trainer = MaskedDiffusionTrainer(recipe=RECIPE, generator=generator(), model=tiny_model(), args=arguments)
    trainer.state.max_steps = 7
    loss, looked_at = torch.zeros((), device="meta"), set()  # a tensor without a number: to look is an error
    for trainer.state.global_step in range(7):
        try:
            trainer.compute_loss(lambda noise: SimpleNamespace(loss=loss), {})
        except (RuntimeError, NotImplementedError):
            looked_at.add(trainer.state.global_step + 1)
    assert looked_at == {3, 4, 6, 7}


def test_a_batch_that_cannot_be_shared_out_is_refused(tmp_path):
    with pytest.raises(ValueError, match="multiple of 3"):
        train_tiny(tmp_path, engine=Engine(accumulation=3))


def test_recomputing_activations_changes_nothing(tmp_path):
    plain, losses = train_tiny(tmp_path / "a", engine=Engine(log_steps=1))
    again, same = train_tiny(tmp_path / "b", engine=Engine(gradient_checkpointing=True, log_steps=1))
    assert all(layer.gradient_checkpointing for layer in again.model.layers)
    assert not any(layer.gradient_checkpointing for layer in plain.model.layers)
    assert losses["loss"].tolist() == same["loss"].tolist()
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(value, again.state_dict()[name], rtol=1e-5, atol=1e-6)


@pytest.mark.slow  # a minute of compiling
@pytest.mark.skipif(
    shutil.which("g++") is None, reason="layers are compiled by a C++ compiler, and there is no g++"
)
def test_compiled_layers_learn_the_same_and_are_plain_again_afterwards(tmp_path):
    torch._dynamo.reset()
    plain, losses = train_tiny(tmp_path / "a", engine=Engine(log_steps=1))
    again, same = train_tiny(tmp_path / "b", engine=Engine(compile=True, log_steps=1))
    torch.testing.assert_close(losses["loss"].tolist(), same["loss"].tolist(), rtol=1e-4, atol=0)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert not any("forward" in vars(layer) for layer in again.model.layers)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(value, again.state_dict()[name], rtol=1e-3, atol=1e-4)


def test_accumulated_batches_are_one_step_on_their_mean(tmp_path, monkeypatch):
    def mask_all(self, labels):
        ones = torch.ones(len(labels))
        return ForwardNoise(ones, ones, labels != self.ignore_index)

    monkeypatch.setattr(NoiseSource, "__call__", mask_all)
    whole, losses = train_tiny(tmp_path / "a", engine=Engine(log_steps=1))
    parts, means = train_tiny(tmp_path / "b", engine=Engine(accumulation=2, log_steps=1))
    torch.testing.assert_close(losses["loss"].tolist(), means["loss"].tolist(), rtol=1e-5, atol=0)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(value, parts.state_dict()[name], rtol=1e-4, atol=1e-5)


def test_adapters_are_drawn_from_the_seed(tmp_path):
    weights = []
    for number in range(2):
        torch.manual_seed(number)  # whatever was drawn before
        model, _ = train_tiny(tmp_path / str(number), replace(RECIPE, lora=LoRA(rank=2)), tiny_model())
        weights.append(model.state_dict())
    assert are_equal(*weights)


def test_adapters_learn_and_are_merged(tmp_path):
    before = state(tiny_model())
    model, _ = train_tiny(tmp_path, replace(RECIPE, lora=LoRA(rank=2, alpha=4)))
    assert changed_parts(model, before) == {"projector", "language_model"}
    changed = {n for n, value in model.state_dict().items() if not torch.equal(value, before[n])}
    assert model.state_dict().keys() == before.keys()
    assert all("mm_projector" in name or "_proj." in name for name in changed)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_levels_cover_every_part_once():
    levels = stratified_levels(64, 0.3, generator())
    strata = ((levels - 0.3) / (1 - 0.3) * 64).floor().int()
    assert sorted(strata.tolist()) == list(range(64))
    assert levels.tolist() != sorted(levels.tolist())


def test_uniform_draws_are_the_reference_s():
    labels = (
        torch.arange(30).reshape(3, 10).masked_fill(torch.rand(3, 10, generator=generator(1)) < 0.3, -100)
    )
    noise = NoiseSource("uniform", 0, generator(2), -100)(labels)
    expected = draw_noise(labels, generator=generator(2))
    assert torch.equal(noise.masked, expected.masked)
    assert torch.equal(noise.p_mask, expected.p_mask)


@pytest.mark.parametrize("levels", ["uniform", "stratified"])
def test_every_process_takes_its_rows_of_one_draw(monkeypatch, levels):
    lengths, rows = (7, 9), 3
    whole = NoiseSource(levels, 0, generator(), -100)(torch.zeros(2 * rows, max(lengths), dtype=torch.long))
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    monkeypatch.setattr("torch.distributed.all_reduce", lambda tensor, op: tensor.fill_(max(lengths)))
    for process, length in enumerate(lengths):
        monkeypatch.setattr("torch.distributed.get_rank", lambda process=process: process)
        own = NoiseSource(levels, 0, generator(), -100)(torch.zeros(rows, length, dtype=torch.long))
        part = slice(process * rows, (process + 1) * rows)
        assert torch.equal(own.t, whole.t[part])
        assert torch.equal(own.masked, whole.masked[part, :length])

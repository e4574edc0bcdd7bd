"""Parity of training: the forward process, loss, gradients, and two optimiser traces."""

import dataclasses

import numpy as np
import torch
from transformers import get_cosine_schedule_with_warmup

from medv_lab.diffusion.forward import draw_noise
from medv_lab.inputs.image_features import conversation_mask
from medv_lab.training.recipes import Recipe
from medv_lab.training.trainer import Engine, MaskedDiffusionTrainer, NoiseSource, make_arguments
from tests.parity.check_image_features import processed_images, used_images
from tests.parity.golden import (
    TOLERANCE,
    cases,
    close,
    load_arrays,
    load_json,
    recorded_geometry,
    require,
    tiny_model,
)

PARTS = {
    "mm_vision_tower": "vision_tower",
    "mm_mlp_adapter": "projector",
    "mm_language_model": "language_model",
}


@dataclasses.dataclass
class Case:
    """A recorded training case: model, inputs of its forward pass, recorded arrays and settings."""

    model: torch.nn.Module
    inputs: dict
    arrays: dict
    settings: dict

    def merge(self):
        inputs = dict(self.inputs)
        return self.model.merge_image_features(inputs.pop("input_ids"), inputs.pop("pixel_values"), **inputs)


def recorded_arrays(case):
    return {
        n.removeprefix(f"{case}."): a for n, a in load_arrays("training").items() if n.startswith(f"{case}.")
    }


def training_model(settings):
    require("weights_check")
    recorded = load_json("training")
    return tiny_model(
        recorded.get("geometry", recorded_geometry()),
        recorded.get("seed", load_json("weights_check")["seed"]),
        image_aspect_ratio=settings["image_aspect_ratio"],
        mm_patch_merge_type=settings["mm_patch_merge_type"],
    ).train()


def training_case(case):
    settings, arrays = load_json("training")["cases"][case], recorded_arrays(case)
    model = training_model(settings)
    ids = torch.from_numpy(arrays["input_ids"])
    pixels, layouts = processed_images(
        settings, model.config, used_images(ids, model.config.image_token_index)
    )
    inputs = {
        "input_ids": ids,
        "pixel_values": pixels,
        "tile_layouts": layouts,
        "labels": torch.from_numpy(arrays["labels"]),
    }
    if "attention_mask" in arrays:
        inputs["attention_mask"] = torch.from_numpy(arrays["attention_mask"])
    found = Case(model, inputs, arrays, settings)
    if "conversation_ids" in arrays:
        inputs["conversation_ids"] = turns_of_ids(found)
    return found


def turns_of_ids(case):
    """The turn of each id: turns are recorded with the images in, so numbers are merged as labels are."""
    ids = case.inputs["input_ids"]
    case.inputs["conversation_ids"] = torch.arange(1, ids.shape[1] + 1).expand_as(ids)
    source = case.merge().conversation_ids
    turns = torch.zeros(len(ids), ids.shape[1] + 1, dtype=torch.long)
    return turns.scatter(1, source, torch.from_numpy(case.arrays["conversation_ids"]))[:, 1:]


@cases("training")
def test_noise(kind, case):
    found = training_case(case)
    merged = found.merge()
    np.testing.assert_array_equal(merged.labels.numpy(), found.arrays["spliced_labels"])
    torch.manual_seed(found.settings["torch_seed"])
    noise = draw_noise(merged.labels)
    np.testing.assert_array_equal(noise.t.numpy(), found.arrays["t"])
    np.testing.assert_allclose(noise.p_mask.numpy(), found.arrays["p_mask"], rtol=0, atol=1e-7)
    np.testing.assert_array_equal(noise.masked.numpy(), found.arrays["masked"].astype(bool))
    close(found.model.add_noise(merged.inputs_embeds, noise.masked), found.arrays["noisy_embeds"], "hidden")


@cases("training")
def test_dialogue_mask(kind, case):
    found = training_case(case)
    merged = found.merge()
    visible = merged.attention_mask
    if "conversation_ids" in found.arrays:
        np.testing.assert_array_equal(merged.conversation_ids.numpy(), found.arrays["conversation_ids"])
        visible = conversation_mask(merged.conversation_ids, visible)
        np.testing.assert_array_equal(visible.numpy(), found.arrays["backbone_mask_4d"].astype(bool))
    with torch.no_grad():
        logits = found.model.head(
            found.model.backbone(torch.from_numpy(found.arrays["noisy_embeds"]), visible)
        )
    close(logits[..., ::997], found.arrays["logits_stride997"], "logits")


@cases("training")
def test_loss_and_gradients(kind, case):
    found = training_case(case)
    model, arrays, settings = found.model, found.arrays, found.settings
    torch.manual_seed(settings["torch_seed"])
    output = model(**found.inputs)
    output.loss.backward()
    assert abs(output.loss.item() - settings["loss_float32"]) <= TOLERANCE["loss"]
    assert abs(output.loss.item() - settings["loss_recomputed_float64"]) <= TOLERANCE["loss"]
    close(output.masked_ce, arrays["masked_ce"], "logits")
    check_gradients(model, arrays, settings)


@cases("training")
def test_the_trainer_s_own_step(kind, case, tmp_path):
    found = training_case(case)
    recipe = Recipe("parity", *(1e-3,) * 3, batch_size=len(found.arrays["t"]), steps=1, precision="fp32")
    trainer = MaskedDiffusionTrainer(
        recipe=recipe,
        generator=torch.Generator().manual_seed(found.settings["torch_seed"]),
        model=found.model,
        args=make_arguments(recipe, Engine(), seed=0, folder=tmp_path, steps=1),
    )
    trainer.current_gradient_accumulation_steps = 1
    loss = trainer.training_step(found.model, found.inputs)
    assert abs(loss.item() - found.settings["loss_float32"]) <= TOLERANCE["loss"]
    check_gradients(found.model, found.arrays, found.settings)

    recorded = torch.from_numpy(found.arrays["masked"].astype(bool))
    drawn = NoiseSource("uniform", 0, torch.Generator().manual_seed(found.settings["torch_seed"]), -100)
    assert torch.equal(drawn(found.merge().labels).masked, recorded)


def check_gradients(model, arrays, settings):
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    for name, expected in arrays.items():
        if name.startswith("grad.model."):
            close(gradients[name.removeprefix("grad.")], expected, "gradient")
    rows = gradients["model.embed_tokens.weight"][torch.from_numpy(arrays["grad.embed_rows_ids"])]
    close(rows, arrays["grad.embed_rows"], "gradient")
    for name, norm in settings["grad_l2_norms"].items():
        np.testing.assert_allclose(
            gradients[name].double().norm().item(), norm, rtol=1e-4, atol=1e-9, err_msg=name
        )
    total = torch.stack([g.double().norm() for g in gradients.values() if g is not None]).norm().item()
    np.testing.assert_allclose(total, settings["global_grad_l2_norm"], rtol=1e-4, atol=1e-9)
    assert {name for name, gradient in gradients.items() if gradient is None} == set(
        settings["params_without_grad"]
    )


@cases("training", key="traces")
def test_optimiser_trace(kind, case):
    settings, arrays = load_json("training")["traces"][case], recorded_arrays(case)
    model = training_model(settings)
    parts = model.parts()
    model.requires_grad_(False)
    groups = []
    for part in settings["tunable"]:
        parameters = [p.requires_grad_(True) for p in parts[PARTS[part]].values()]
        separate = part == "mm_vision_tower" and settings["vision_tower_lr"] is not None
        groups.append(
            {"params": parameters, "lr": settings["vision_tower_lr"] if separate else settings["lr"]}
        )
    optimizer = torch.optim.AdamW(
        groups, betas=settings["betas"], eps=settings["eps"], weight_decay=settings["weight_decay"]
    )
    schedule = get_cosine_schedule_with_warmup(optimizer, settings["warmup_steps"], settings["total_steps"])
    samples = [trace_sample(sample, settings, model) for sample in settings["samples"]]
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    expected = settings["trainable"]
    assert len(trainable) == expected if isinstance(expected, int) else trainable == set(expected)

    start = {name: weight.clone() for name, weight in model.state_dict().items()}
    number = 0
    for step in settings["steps"]:
        assert {group["lr"] for group in optimizer.param_groups} == set(step["lr"])
        for micro, seed in enumerate(step["torch_seeds"]):
            inputs = samples[number % len(samples)]
            number += 1
            check_draw(model, inputs, seed, arrays, f"step{step['step']}.micro{micro}")
            torch.manual_seed(seed)
            loss = model(**inputs).loss
            (loss / settings["gradient_accumulation"]).backward()
            assert abs(loss.item() - step["losses"][micro]) <= 1e-3
        norm = torch.nn.utils.clip_grad_norm_(
            [p for p in model.parameters() if p.requires_grad], settings["max_grad_norm"]
        )
        np.testing.assert_allclose(norm.item(), step["grad_norm_before_clip"], rtol=1e-4, atol=1e-9)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        weights = model.state_dict()
        for name, total in step["param_sums"].items():
            np.testing.assert_allclose(
                weights[name].double().sum().item(), total, rtol=0, atol=1e-4, err_msg=name
            )
    check_final(model.state_dict(), start, arrays, settings["steps"][-1]["param_sums"])


def check_final(weights, start, arrays, sums):
    """Compare the final weights, unless the recording contradicts its own sums after the last step.

    The published recording stored the weights that training started from under `final`. Its sums are those of
    the trained weights (and are checked after every step), so an array that is exactly the start cannot be
    what the sums describe.
    """
    recorded = {
        name.removeprefix("final."): array for name, array in arrays.items() if name.startswith("final.")
    }
    unmoved = {name for name, array in recorded.items() if np.array_equal(array, start[name].numpy())}
    sums_moved = any(
        abs(start[name].double().sum().item() - sums[name]) > 1e-4 for name in unmoved & sums.keys()
    )
    for name, array in recorded.items():
        if name in unmoved and sums_moved:
            assert not torch.equal(weights[name], start[name]), name
        else:
            close(weights[name], array, "gradient")


def check_draw(model, inputs, seed, arrays, name):
    labels = model.merge_image_features(
        inputs["input_ids"],
        inputs["pixel_values"],
        tile_layouts=inputs["tile_layouts"],
        labels=inputs["labels"],
    ).labels
    torch.manual_seed(seed)
    noise = draw_noise(labels)
    np.testing.assert_array_equal(noise.masked.numpy(), arrays[f"{name}.masked"].astype(bool))
    np.testing.assert_allclose(noise.p_mask.numpy(), arrays[f"{name}.p_mask"], rtol=0, atol=1e-7)


def trace_sample(sample, settings, model):
    ids = torch.tensor(sample["input_ids"])
    described = {"images": sample["images"], "image_aspect_ratio": settings["image_aspect_ratio"]}
    pixels, layouts = processed_images(
        described, model.config, used_images(ids, model.config.image_token_index)
    )
    return {
        "input_ids": ids,
        "pixel_values": pixels,
        "tile_layouts": layouts,
        "labels": torch.tensor(sample["labels"]),
    }

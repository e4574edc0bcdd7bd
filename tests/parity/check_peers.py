"""The original samplers of the papers, on a small random model: the same tokens in the same number of passes.

`peers.json` and its rule of the weights are described in the README beside it.
"""

import functools

import numpy as np
import pytest
import torch

from medv_lab.config import GenerationSettings
from medv_lab.diffusion.sampler import sample
from medv_lab.model import MedVForMaskedDiffusion
from tests.model.tiny import tiny_config
from tests.parity.golden import golden_dir, load_json

EOS, EOT, MASK, PAD = 1, 2, 3, 9
HIDDEN = 48
OURS = ("threshold", "kl_bound", "verify_threshold", "factor", "entropy_bound", "max_length")


@functools.cache
def model_of(seed, head, attention, eos, dtype):
    config = tiny_config(
        vocab_size=300,
        hidden_size=HIDDEN,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        bos_token_id=0,
        eos_token_id=EOS,
        eot_token_id=EOT,
        mask_token_id=MASK,
        pad_token_id=None,
        start_header_token_id=4,
        end_header_token_id=5,
    )
    model = MedVForMaskedDiffusion(config).to(getattr(torch, dtype)).eval()
    named = {
        n: p for n, p in model.named_parameters() if not any(k in n for k in ("vision", "mm_", "newline"))
    }
    with torch.no_grad():
        for number, name in enumerate(sorted(named)):
            values = np.random.default_rng([seed, number]).standard_normal(tuple(named[name].shape))
            if "norm" in name:
                values = 1 + 0.1 * values
            elif "embed_tokens" not in name:
                values *= values.shape[1] ** -0.5
            if "q_proj" in name or "k_proj" in name:
                values *= attention
            if "lm_head" in name:
                values *= head
                values[MASK] = 0
            named[name].copy_(torch.from_numpy(values))
        if eos:
            ids = torch.cat([prompt(seed, 16), torch.full((1, 16), MASK)], dim=1)
            mean = model.backbone(model.embed_tokens(ids))[0, 16:].mean(0)
            model.lm_head.weight[EOS] = eos * mean / (mean @ mean)
    return model


def prompt(seed, length):
    return torch.from_numpy(np.random.default_rng([7, seed]).integers(10, 300, (1, length)))


def settings_of(case):
    given = dict(case["settings"])
    given.setdefault("remasking", "low_confidence")
    remasking = {"name": given.pop("remasking")}
    for name in list(given):
        if name in OURS:
            remasking[name] = given.pop(name)
        elif name == "position_decay":
            remasking["decay"] = given.pop(name)
    length, block, steps = case["lengths"]
    return GenerationSettings(
        gen_length=length,
        block_length=block,
        steps=steps,
        remasking=remasking,
        suppressed_tokens=(),
        stop=(),
        **given,
    )


def run(case, settings=None):
    model = model_of(*(case[k] for k in ("seed", "head", "attention", "eos", "dtype")))
    ids = prompt(case["seed"], case["prompt"])
    attention = None
    if case["kind"] == "masked":
        ids[0, [3, 9]] = MASK
    if case["kind"] == "padded":
        ids = torch.cat([prompt(case["seed"] + 10 * k, case["prompt"]) for k in range(3)])
        for row, pads in enumerate((0, 4, 7)):
            ids[row, :pads] = PAD
        attention = torch.stack([torch.arange(case["prompt"]) >= pads for pads in (0, 4, 7)]).long()
    return list(
        sample(
            model,
            model.embed_tokens(ids).detach(),
            settings or settings_of(case),
            mask_token_id=MASK,
            attention_mask=attention,
            prompt_masked=ids == MASK,
            end_ids=(EOS,),
        )
    )


# Groups that differ, and why: the tokens too, or only the passes.
OTHER_TOKENS = {
    "entropy, several blocks": "the original leaves its block",
    "entropy, KLASS's": "the original's sign is turned",
    "kl_stability 0.3 0.5, Z < L": "the original overwrites a token where a share exceeds the masks that are left",
    "daedal eos 17.0": "the original puts a tail of end tokens behind an answer",
}
FEWER_PASSES = {
    "Z = 2 L": "a full block ends early",
    **dict.fromkeys(
        ("daedal, no growth", "daedal", "daedal eos 11.0", "daedal eos 14.0"),
        "the last look at the length fills already",
    ),
}
CASES = load_json("peers")["cases"] if (golden_dir() / "peers.json").is_file() else []


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_original_gives_the_same_tokens_in_as_many_passes(case):
    records = run(case)
    canvas = records[-1].canvas
    tokens = (canvas if case["kind"] == "padded" else canvas[0]).tolist()
    if tokens != case["tokens"] and case["group"] in OTHER_TOKENS:
        pytest.xfail(OTHER_TOKENS[case["group"]])  # a case of such a group that agrees is held to it
    assert tokens == case["tokens"]
    if case["group"] in FEWER_PASSES:
        assert len(records) < case["passes"]
    else:
        assert len(records) == case["passes"]

"""The dry run against counts made by hand from the published geometry."""

from dataclasses import replace

import pytest

from medv_lab.model.checkpoint_files import PARAMETERS_WITH_VISION
from medv_lab.training.footprint import count_parameters, plan_memory, plan_stages
from medv_lab.training.recipes import PUBLISHED, LoRA

H, FFN, VOCABULARY, LAYERS = 4096, 12288, 126464, 32
VH, VFFN, VLAYERS, PATCH, POSITIONS = 1152, 4304, 26, 14, 27 * 27
# token table and head; attention, feed-forward and two norms a layer; last norm; newline vector
LANGUAGE = 2 * VOCABULARY * H + LAYERS * (4 * H * H + 3 * H * FFN + 2 * H) + H + H
PROJECTOR = (VH * H + H) + (H * H + H)
VISION_LAYER = 4 * (VH * VH + VH) + (VH * VFFN + VFFN) + (VFFN * VH + VH) + 2 * 2 * VH
NORM_AFTER = 2 * VH  # held by the checkpoint, not used
VISION = VLAYERS * VISION_LAYER + (3 * PATCH * PATCH * VH + VH) + POSITIONS * VH + NORM_AFTER


def test_counts_by_part_are_those_made_by_hand():
    counts = count_parameters(PUBLISHED["alignment"])
    assert counts["trainable"].tolist() == [0, PROJECTOR, 0]
    assert counts["frozen"]["language_model"] == LANGUAGE
    assert counts["frozen"]["vision_tower"] == VISION
    assert counts.to_numpy().sum() == PARAMETERS_WITH_VISION == VISION + PROJECTOR + LANGUAGE


@pytest.mark.parametrize("stage", ["instruct", "slake"])
def test_later_stages_train_projector_and_language_model(stage):
    counts = count_parameters(PUBLISHED[stage])
    assert counts["trainable"].tolist() == [0, PROJECTOR, LANGUAGE]
    assert counts["frozen"].tolist() == [VISION, 0, 0]
    memory = plan_memory(counts, 4)
    assert memory.loc["ZeRO-3", "optimizer"] == 3 * (PROJECTOR + LANGUAGE)  # 12 bytes / 4
    assert memory.loc["FSDP2", "optimizer"] == 2 * (PROJECTOR + LANGUAGE)  # 8 bytes / 4
    assert memory.loc["ZeRO-3", "total"] == 4 * (PROJECTOR + LANGUAGE) + VISION / 2
    assert (memory["total"] < 80e9).all()


def test_adapters_are_counted_as_what_learns():
    rank = 16
    counts = count_parameters(replace(PUBLISHED["instruct"], lora=LoRA(rank=rank)))
    wide = 2 * rank * H * 4 + 3 * rank * (H + FFN)  # four square layers; gate, up, down
    assert counts["trainable"]["language_model"] == LAYERS * wide
    assert counts["trainable"]["projector"] == PROJECTOR
    assert counts["frozen"]["language_model"] == LANGUAGE


def test_every_stage_has_a_row():
    table = plan_stages(4)
    assert list(table.index) == list(PUBLISHED)
    assert table.loc["alignment", "steps"] == 37_500
    assert table.loc["alignment", "ZeRO-3 optimizer"] == 3 * PROJECTOR
    with pytest.raises(ValueError, match="at least 1 GPU"):
        plan_stages(0)

"""LLaVA-OneVision, a relative in transformers, in the same harness: what its classes pass is our measure."""

import unittest

import torch
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionModel,
    Qwen2Config,
    SiglipVisionConfig,
)

from tests.conformance.mixins import import_mixins

common = import_mixins("test_modeling_common")
IMAGE, SIDE, PATCH, TEXT = 3, 16, 8, 8
POSITIONS = (
    2 * (SIDE // PATCH) ** 2 + 2
)  # the whole picture, the one tile of its canvas, a newline for each row


class LlavaOnevisionTester:
    base_model_class = LlavaOnevisionModel
    is_training = True
    batch_size = 7

    def __init__(self):
        self.num_hidden_layers, self.num_attention_heads, self.hidden_size = 2, 2, 16
        self.vision_config = {"num_hidden_layers": 2}
        self.seq_length = self.encoder_seq_length = self.key_length = TEXT + POSITIONS

    def get_config(self):
        sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
        return LlavaOnevisionConfig(
            text_config=Qwen2Config(vocab_size=99, num_key_value_heads=2, pad_token_id=0, **sizes),
            vision_config=SiglipVisionConfig(
                image_size=SIDE, patch_size=PATCH, vision_use_head=False, **sizes
            ),
            image_token_index=IMAGE,
            image_grid_pinpoints=[[SIDE, SIDE]],
        )

    def prepare_config_and_inputs_for_common(self):
        config = self.get_config()
        ids = torch.randint(4, 99, (self.batch_size, self.seq_length))
        ids[:, 1 : 1 + POSITIONS] = IMAGE
        return config, {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "pixel_values": torch.rand(self.batch_size, 2, 3, SIDE, SIDE),
            "image_sizes": torch.full((self.batch_size, 2), SIDE),
        }


class LlavaOnevisionTest(common.ModelTesterMixin, unittest.TestCase):
    all_model_classes = (LlavaOnevisionModel, LlavaOnevisionForConditionalGeneration)
    _is_composite = True

    def setUp(self):
        self.model_tester = LlavaOnevisionTester()

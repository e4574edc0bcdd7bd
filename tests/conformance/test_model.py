"""The denoiser and its backbone under transformers' ModelTesterMixin."""

import unittest

import torch

from medv_lab.diffusion.forward import draw_noise
from medv_lab.model import MedVForMaskedDiffusion
from medv_lab.model.backbone import MedVModel
from tests.conformance.mixins import import_mixins
from tests.model.tiny import PATCH, SIDE, tiny_config

common = import_mixins("test_modeling_common")
# The mixin asks these tables which class has labels and which is a bare model; ours stand in transformers' registries,
# not in its tables of its own models.
common.MODEL_MAPPING_NAMES["llava_llada"] = "MedVModel"
common.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES["llava_llada"] = "MedVForMaskedDiffusion"


class MedVTester:
    """A tiny model with one picture per row: S ids with a placeholder each, T indices with the patches in."""

    base_model_class = MedVModel
    is_training = True
    batch_size = 7  # as many rows as the mixin asks for: ids that it adds itself would have no picture

    def __init__(self, has_images: bool = True):
        self.has_images = has_images
        self.num_hidden_layers, self.num_attention_heads, self.hidden_size = 2, 2, 16
        self.vision_config = {"num_hidden_layers": 1}  # those that the model keeps
        self.seq_length = 8
        self.image_size, self.patch_size = SIDE, PATCH
        # an image is its patches and a newline in the place of the placeholder
        self.encoder_seq_length = self.key_length = self.seq_length + has_images * (SIDE // PATCH) ** 2

    def get_config(self):
        return tiny_config(
            num_hidden_layers=self.num_hidden_layers,
            hidden_size=self.hidden_size,
            mm_patch_merge_type="spatial_unpad",
            max_position_embeddings=64,
            tokenizer_model_max_length=None,
        )

    def prepare_config_and_inputs_for_common(self):
        config = self.get_config()
        ids = torch.randint(6, config.vocab_size, (self.batch_size, self.seq_length))
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if self.has_images:
            ids[:, 4] = config.image_token_index
            inputs["pixel_values"] = torch.rand(self.batch_size, 3, SIDE, SIDE)
        return config, inputs


class MedVModelTest(common.ModelTesterMixin, unittest.TestCase):
    all_model_classes = (MedVModel, MedVForMaskedDiffusion)
    all_generative_model_classes = ()  # `generate` denoises; the tests of writing token by token do not fit it
    additional_model_inputs = ("pixel_values",)
    test_all_params_have_gradient = False  # published features skip the vision tower's post-layernorm

    def setUp(self):
        self.model_tester = MedVTester()

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        """The noise of the loss is drawn from a seed, where the mixin compares two calls."""
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels)
        if "labels" in inputs:
            inputs["noise"] = lambda labels: draw_noise(labels, generator=torch.Generator().manual_seed(0))
        return inputs


class MedVTextTest(unittest.TestCase):
    """What the mixin embeds itself: a placeholder (-200) is no row of the table, so these run on text."""

    all_model_classes = MedVModelTest.all_model_classes
    is_encoder_decoder = False
    _prepare_for_class = common.ModelTesterMixin._prepare_for_class
    test_inputs_embeds = common.ModelTesterMixin.test_inputs_embeds
    test_inputs_embeds_matches_input_ids = common.ModelTesterMixin.test_inputs_embeds_matches_input_ids

    def setUp(self):
        self.model_tester = MedVTester(has_images=False)


# They run above, on text.
MedVModelTest.test_inputs_embeds = MedVModelTest.test_inputs_embeds_matches_input_ids = None

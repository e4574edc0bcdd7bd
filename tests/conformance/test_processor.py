"""Our processor under transformers' ProcessorTesterMixin."""

import unittest

from medv_lab.model import MedVProcessor
from tests.conformance.mixins import import_mixins
from tests.model.tiny import PATCH, SIDE, tiny_tokenizer

common = import_mixins("test_processing_common")


class MedVProcessorTest(common.ProcessorTesterMixin, unittest.TestCase):
    processor_class = MedVProcessor

    @classmethod
    def _setup_tokenizer(cls):
        return tiny_tokenizer()

    @staticmethod
    def prepare_processor_dict():
        return {"image_size": SIDE, "patch_size": PATCH, "image_aspect_ratio": "square"}

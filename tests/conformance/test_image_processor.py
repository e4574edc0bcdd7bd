"""Our image processor under transformers' ImageProcessingTestMixin."""

import unittest

from medv_lab.inputs.image_processing import MedVImageProcessor
from tests.conformance.mixins import import_mixins
from tests.model.tiny import PATCH, SIDE

common = import_mixins("test_image_processing_common")


class MedVImageProcessingTester:
    batch_size, num_channels, min_resolution, max_resolution = 3, 3, 30, 60

    def __init__(self, parent):
        self.image_processing_classes = {"pil": MedVImageProcessor}

    def prepare_image_processor_dict(self):
        return {"image_size": SIDE, "patch_size": PATCH, "image_aspect_ratio": "square"}

    def expected_output_image_shape(self, images):
        return 1, 3, SIDE, SIDE  # tiles of every picture

    def prepare_image_inputs(self, **kwargs):
        sizes = {name: getattr(self, name) for name in ("num_channels", "min_resolution", "max_resolution")}
        return common.prepare_image_inputs(batch_size=self.batch_size, **sizes, **kwargs)


class MedVImageProcessingTest(common.ImageProcessingTestMixin, unittest.TestCase):
    image_processor_tester_class = MedVImageProcessingTester

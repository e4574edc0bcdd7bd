"""What tests of training share: a small checkpoint, and runs that are cut off."""

import pytest

from medv_lab.training.trainer import MaskedDiffusionTrainer
from tests.model.tiny import save_tiny


@pytest.fixture(scope="session")
def start(tmp_path_factory):
    """A small checkpoint whose pictures have the phantoms' size."""
    folder = tmp_path_factory.mktemp("start") / "tiny"
    vision = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    save_tiny(folder, vision_config=vision | {"image_size": 72, "patch_size": 24})
    return folder


@pytest.fixture
def cut_off(monkeypatch):
    """A function after which the n-th step from now on does not end; returns the steps that were begun."""

    def end_in(number):
        step, steps = MaskedDiffusionTrainer.training_step, []

        def training_step(self, *args, **kwargs):
            steps.append(self.state.global_step)
            if len(steps) == number:
                raise KeyboardInterrupt
            return step(self, *args, **kwargs)

        monkeypatch.setattr(MaskedDiffusionTrainer, "training_step", training_step)
        return steps

    return end_in

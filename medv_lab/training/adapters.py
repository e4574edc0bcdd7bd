"""Low-rank adapters on the language tower, through peft; the other parts that learn are trained in full."""

import re

from peft import LoraConfig, PeftModel, get_peft_model

from medv_lab.model.modeling import MedVLanguageModel
from medv_lab.training.recipes import LoRA

FULLY_TRAINED = ["mm_projector"]


def add_adapters(model: MedVLanguageModel, lora: LoRA) -> PeftModel:
    """Put adapters into the layers of the language tower, in place; they and the projector learn.

    Args:
        model: parts that are frozen stay frozen.
        lora: rank, scale and layers.
    """
    names = "|".join(map(re.escape, lora.layers))
    frozen = {name for name, p in model.parts()["projector"].items() if not p.requires_grad}
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules=rf"model\.layers\.\d+\..*\.({names})",
        modules_to_save=None if frozen else FULLY_TRAINED,
    )
    return get_peft_model(model, config)


def base_model(model: MedVLanguageModel | PeftModel) -> MedVLanguageModel:
    """The model itself, with or without adapters in it."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def merge_adapters(model: PeftModel) -> MedVLanguageModel:
    """Add the adapters to the weights and take them out; the base model is plain again, in place."""
    return model.merge_and_unload()

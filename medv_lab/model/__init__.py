"""The model: configuration, network, processor, prompts, checkpoints.

Importing this package registers the three classes with transformers' Auto classes under `llava_llada`.
"""

from transformers import AutoConfig, AutoModel, AutoProcessor

from medv_lab.model.configuration import MedVConfig
from medv_lab.model.modeling import MedVForMaskedDiffusion
from medv_lab.model.processing import MedVProcessor

__all__ = ["MedVConfig", "MedVForMaskedDiffusion", "MedVProcessor"]

AutoConfig.register(MedVConfig.model_type, MedVConfig)
AutoModel.register(MedVConfig, MedVForMaskedDiffusion)
AutoProcessor.register(MedVConfig, MedVProcessor)

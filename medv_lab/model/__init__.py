"""The model: configuration, network, processor, prompts, checkpoints.

Importing this package makes the models known to transformers: `AutoConfig`, `AutoModel`, `AutoProcessor`,
`AutoModelForImageTextToText`, `AutoImageProcessor` and `pipeline("image-text-to-text")` then read their folders.
"""

from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageTextToText, AutoProcessor

from medv_lab.inputs.image_processing import MedVImageProcessor
from medv_lab.model.causal import MedVForNextToken
from medv_lab.model.configuration import MedVCausalConfig, MedVConfig
from medv_lab.model.modeling import MedVForMaskedDiffusion
from medv_lab.model.processing import MedVProcessor

__all__ = ["MedVCausalConfig", "MedVConfig", "MedVForMaskedDiffusion", "MedVForNextToken", "MedVProcessor"]

for _config, _model in ((MedVConfig, MedVForMaskedDiffusion), (MedVCausalConfig, MedVForNextToken)):
    AutoConfig.register(_config.model_type, _config)
    AutoModel.register(_config, _model)
    AutoProcessor.register(_config, MedVProcessor)
    AutoImageProcessor.register(_config, MedVImageProcessor)
AutoModelForImageTextToText.register(MedVConfig, MedVForMaskedDiffusion)

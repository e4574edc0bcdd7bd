"""The model: configuration, towers, image and prompt processing, checkpoints.

Importing this room registers `llava_llada` with transformers' AutoConfig and AutoModel classes.
"""

from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText

from medv_lab.model.configuration import MedVConfig
from medv_lab.model.modeling import MedVForMaskedDiffusion

AutoConfig.register(MedVConfig.model_type, MedVConfig)
AutoModel.register(MedVConfig, MedVForMaskedDiffusion)
AutoModelForImageTextToText.register(MedVConfig, MedVForMaskedDiffusion)

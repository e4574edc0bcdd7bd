"""medv-lab: load, ask and look inside masked-diffusion vision-language models on medical images.

Importing this package is cheap: nothing heavy is imported until one of the names below is used.
"""

import logging
from importlib import import_module

# transformers and peft import torchao and bitsandbytes where they are installed, which warn at every import: of CUDA
# extensions and kernels that a machine does not have, and of what they register in torch
for _name in ("torchao", "bitsandbytes", "torch.utils._pytree"):
    logging.getLogger(_name).setLevel(logging.ERROR)

__version__ = "0.1.0"

_PUBLIC = {
    "Answer": "medv_lab.generation",
    "GenerationSettings": "medv_lab.config",
    "SampleTrace": "medv_lab.diffusion.trace",
    "ask": "medv_lab.generation",
    "ask_many": "medv_lab.generation",
    "explore": "medv_lab.explorer.app",
    "load": "medv_lab.model.checkpoints",
}

__all__ = [
    "Answer",
    "GenerationSettings",
    "SampleTrace",
    "__version__",
    "ask",
    "ask_many",
    "explore",
    "load",
]


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'medv_lab' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

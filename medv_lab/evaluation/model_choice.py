"""The models that can be named: a checkpoint, a model of the paper's tables, or an endpoint's model. Loads nothing."""

from dataclasses import dataclass
from pathlib import Path

CHAT = "chat"  # the prompt form of the tokenizer or processor
KINDS = ("auto", "medv", "image-text", "text", "endpoint")


# Models of the paper's Tables 1 and 2 with public weights that can be loaded here: id on the Hugging Face hub, as read
# on the model's own page (November 2026), and kind. Which version the paper used is not known to us, and Table 2 quotes
# fine-tuned ones.
PUBLIC_MODELS = {
    "LLaVA": ("llava-hf/llava-1.5-7b-hf", "image-text"),
    "MedVLM-R1": ("JZPeterPan/MedVLM-R1", "image-text"),
    "LLaDA-V": ("GSAI-ML/LLaDA-V", "medv"),
}


@dataclass(frozen=True)
class ModelChoice:
    """Names the model that answers.

    Attributes:
        model: "embedded", a folder, a hub id, a model of the paper's tables, or the name that an endpoint knows. Those
            of the tables are in `PUBLIC_MODELS`.
        kind: "medv" (LLaDA-MedV's architecture, or its autoregressive twin), "image-text" or "text" (any such model of
            transformers), "endpoint", or "auto": that of a public model, "medv" for anything else.
        prompt: of image-text and text models, "chat" or a text with {question}.
        base_url: of the model's endpoint.
        endpoint_set: parameter=value of its calls, may be repeated; seed=none leaves the seed out.
        device: "auto", "cpu", "cuda" or "cuda:N".
        dtype: "auto", "float32", "bfloat16" or "float16".
        download: allow a download from the hub.
        quantization: "int8" or "int4" holds most weights of a checkpoint in fewer bits.
        offload: folder for layers of a checkpoint that neither GPUs nor memory hold.

    Raises:
        ValueError: for another kind, or fewer bits of a model that is no checkpoint of ours.
    """

    model: str = "embedded"
    kind: str = "auto"
    prompt: str = CHAT
    base_url: str | None = None
    endpoint_set: tuple[str, ...] = ()
    device: str = "auto"
    dtype: str = "auto"
    download: bool = False
    quantization: str | None = None
    offload: Path | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind is {self.kind!r}; allowed are {', '.join(KINDS)}")
        if self.kind not in ("auto", "medv") and (self.quantization, self.offload) != (None, None):
            raise ValueError(
                f"quantization and offload are for checkpoints, and the kind is {self.kind!r}; leave them out"
            )

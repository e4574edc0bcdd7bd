"""The systems of the paper's Tables 1 and 2: where their weights are, under which licence, how they are asked.

What we do not know is "unknown". `checked` names what we read on a stored copy of the model's own page (November
2026); everything else is from memory or from other pages and wants checking before it is relied on: `unchecked` says
what. Which version of a general model the paper used is not known to us; `model_id` is then a public one, and the
note says so.
"""

from dataclasses import dataclass

UNKNOWN = "unknown"
FACTS = ("model_id", "licence", "prompt", "parameters")
_BYTES_OF_BFLOAT16 = 2


@dataclass(frozen=True)
class System:
    """One row of a table.

    Attributes:
        name: as in the table.
        tables: numbers of the tables that list it.
        model_id: on the Hugging Face hub, or "unknown".
        licence: of the weights, as their page states it.
        prompt: "chat" for the checkpoint's own chat template, a text with {question}, or "unknown".
        parameters: how many, None if unknown.
        responder: "diffusion", "image-text", "text", or "none" if nothing here can run it.
        is_public: whether weights are known to us to be public; not whether they are those that the paper used.
        note: what one should know before comparing numbers.
        checked: which of model_id, licence, prompt and parameters we read on the model's own page.
    """

    name: str
    tables: tuple[int, ...]
    model_id: str = UNKNOWN
    licence: str = UNKNOWN
    prompt: str = UNKNOWN
    parameters: int | None = None
    responder: str = "none"
    is_public: bool = False
    note: str = ""
    checked: tuple[str, ...] = ()

    @property
    def unchecked(self) -> tuple[str, ...]:
        """What is said of the system and was not read on its own page."""
        said = {name: getattr(self, name) for name in FACTS}
        return tuple(
            name for name, fact in said.items() if fact not in (UNKNOWN, None) and name not in self.checked
        )

    @property
    def memory(self) -> int | str:
        """Bytes of the weights in bfloat16, or "unknown"; running needs more."""
        return UNKNOWN if self.parameters is None else self.parameters * _BYTES_OF_BFLOAT16


_VERSION = "the version that the paper used is not known to us; this one is public and can be loaded"
_NO_WEIGHTS = "no public weights are known to us; an answer file can stand for it"
_FINE_TUNED = "no public weights of its VQA fine-tuning are known to us; the numbers of Table 2 are quoted"

SYSTEMS = (
    System(
        "LLaMA",
        (1,),
        responder="text",
        note="which LLaMA the paper used is not known to us, so no weights are named; any causal language model can "
        "take the row: it is shown the question and no picture",
    ),
    System(
        "LLaVA",
        (1, 2),
        "llava-hf/llava-1.5-7b-hf",
        "LLAMA 2 Community License",
        "USER: <image>\n{question}\nASSISTANT:",
        7_063_427_072,
        "image-text",
        True,
        f"{_VERSION}; Table 2 quotes a LLaVA that was fine-tuned on each dataset",
        ("model_id", "licence"),
    ),
    System(
        "LLaVA-Med",
        (1,),
        "microsoft/llava-med-v1.5-mistral-7b",
        "Mistral-7B-Instruct-v0.2 licence; research use only, not for clinical decisions",
        responder="image-text",
        is_public=True,
        note=f"{_VERSION} once converted to transformers' LLaVA format",
        checked=("model_id", "licence"),
    ),
    System(
        "Med-Flamingo",
        (1,),
        "med-flamingo/med-flamingo",
        is_public=True,
        note="built on OpenFlamingo-9B, whose architecture is not in transformers, and published as a pickle, which is "
        "never opened here; its page states no licence; an answer file can stand for it",
        checked=("model_id",),
    ),
    System(
        "MedVLM-R1",
        (1,),
        "JZPeterPan/MedVLM-R1",
        "Apache-2.0",
        "chat",
        2_208_985_600,
        "image-text",
        True,
        "a Qwen2-VL-2B; its model page appends instructions to reason in tags, which are part of the question here",
        ("model_id", "licence"),
    ),
    System("Qwen-RL-Med", (1,), note=_NO_WEIGHTS),
    System(
        "Qwen-VL",
        (1,),
        "Qwen/Qwen2-VL-2B-Instruct",
        "Apache-2.0",
        "chat",
        2_208_985_600,
        "image-text",
        True,
        _VERSION,
    ),
    System(
        "RetinalGPT", (1,), note=f"{_NO_WEIGHTS}; its paper (arXiv 2503.03987) names a repository of code"
    ),
    System(
        "LLaDA-V",
        (1,),
        "GSAI-ML/LLaDA-V",
        prompt="chat",
        parameters=8_434_837_024,
        responder="diffusion",
        is_public=True,
        note="loaded by medv_lab.load; the page that we read shows 16.9 GB of safetensors and no licence",
        checked=("model_id",),
    ),
    System(
        "LLaDA-MedV",
        (1, 2),
        prompt="chat",
        parameters=8_434_837_024,
        responder="diffusion",
        is_public=True,
        note="weights are linked from the repository of the paper (arXiv 2508.01617); loaded by medv_lab.load",
    ),
    System("LLaVA-Med (from LLaVA)", (2,), note=_FINE_TUNED),
    System("VL Encoder-Decoder", (2,), note=_FINE_TUNED),
    System("Q2ATransformer", (2,), note=_FINE_TUNED),
    System("Prefix T. Medical LM", (2,), note=_FINE_TUNED),
    System("PubMedCLIP", (2,), note=_FINE_TUNED),
    System("BiomedCLIP", (2,), note=_FINE_TUNED),
    System("M2I2", (2,), note=_FINE_TUNED),
)


def find_system(name: str) -> System:
    """A system by its name in the tables.

    Raises:
        ValueError: for a name that no table has.
    """
    found = next((system for system in SYSTEMS if system.name == name), None)
    if found is None:
        raise ValueError(
            f"there is no system {name!r}; the tables have {', '.join(one.name for one in SYSTEMS)}"
        )
    return found

"""What an exported answer says of itself: question, picture, model and settings, and what it is not."""

from collections.abc import Mapping
from typing import Any

from medv_lab.config import GenerationSettings

NOTICE = "Not a medical device."
_HASH = 12  # characters of a model's hash that are shown


def changed_settings(settings: GenerationSettings) -> dict[str, Any]:
    """Return the settings that are not the defaults, and L, B and Z always, as `GenerationSettings` takes them."""
    values, defaults = settings.to_dict(), GenerationSettings().to_dict()
    always = ("gen_length", "block_length", "steps")
    return {name: value for name, value in values.items() if name in always or value != defaults[name]}


def describe_lengths(settings: GenerationSettings) -> str:
    """Return L, B and Z, for people."""
    return f"L {settings.L}, B {settings.B}, Z {settings.Z}"


def describe_settings(settings: GenerationSettings) -> str:
    """Return all settings but L, B and Z that are not the defaults, for people."""
    changed = list(changed_settings(settings))[3:]
    return ", ".join(f"{name} {getattr(settings, name)}" for name in changed) or "defaults"


def make_caption(
    question: str, picture: str, settings: GenerationSettings, manifest: Mapping[str, Any]
) -> tuple[str, ...]:
    """Return the lines that go with an answer wherever it is shown alone.

    Args:
        question, picture: as they were asked about; of the picture its name.
        settings: of the answer.
        manifest: of the answer's trace, which names the model.
    """
    model = manifest.get("model") or {}
    digest = f" ({model['sha256'][:_HASH]})" if model.get("sha256") else ""
    return (
        f"Question: {question}",
        f"Picture: {picture}",
        f"Model: {model.get('name') or 'unknown'}{digest}",
        f"Settings: {describe_lengths(settings)}, {describe_settings(settings)}",
        NOTICE,
    )

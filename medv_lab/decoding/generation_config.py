"""The settings of a generation as transformers keeps them: a `GenerationConfig`, saved as `generation_config.json`.

Names of the field are understood: those of transformers (`max_new_tokens`, `max_denoising_steps`), of diffusers
(`num_inference_steps`), of LLaDA's own code (`gen_length`, `steps`, `remasking`) and of others. What no run knows is an
error that names what is near. L answer positions.
"""

from collections.abc import Mapping
from dataclasses import fields, replace
from difflib import get_close_matches
from typing import Any

from transformers import GenerationConfig
from transformers.utils import logging

from medv_lab.config import EntropyBound, Factor, GenerationSettings, SettingsError, Threshold
from medv_lab.strategies.base import Choice

DEFAULTS = GenerationSettings()
# What our settings call otherwise; `stop` and `suffix` are texts, which a model without tokenizer cannot read.
_RENAMED = {"gen_length": "max_new_tokens", "steps": "max_denoising_steps"}
_SETTINGS = {
    one.name: _RENAMED.get(one.name, one.name)
    for one in fields(GenerationSettings)
    if one.name not in ("stop", "suffix")
}
_ALIASES = {
    **_RENAMED,
    **dict.fromkeys(
        ("num_inference_steps", "diffusion_steps", "denoising_steps", "num_steps"), "max_denoising_steps"
    ),
    **dict.fromkeys(("block_size", "canvas_length"), "block_length"),
    **dict.fromkeys(("alg", "algorithm", "strategy"), "remasking"),
    "guidance_scale": "cfg_scale",
    "suppress_tokens": "suppressed_tokens",
}
_STRATEGIES = {
    "threshold": Threshold,
    "confidence_threshold": Threshold,
    "factor": Factor,
    "entropy_bound": EntropyBound,
}
# What a caller of other models may give, and which values change nothing here.
_NEUTRAL = {
    "num_beams": (1, None),
    "num_return_sequences": (1, None),
    "repetition_penalty": (1.0, None),
    "top_k": (0, None),
    "top_p": (1.0, None),
    "use_cache": (True, False, None),
}
_log = logging.get_logger(__name__)


class MedVGenerationConfig(GenerationConfig):
    """How `generate` answers. What is None takes its default, that of `GenerationSettings` where there is one.

    Args:
        max_new_tokens: L, positions of the answer (64); also `gen_length`.
        max_length: longest sequence with its prompt of ids, where `max_new_tokens` is not given.
        block_length: positions per block; the largest divisor of L up to 32.
        max_denoising_steps: forward passes (L), the most of an adaptive strategy; also `steps`,
            `num_inference_steps` and others.
        do_sample: true draws at temperature 1 unless one is given; false takes the most probable tokens.
        temperature: of the Gumbel noise; 0 takes the most probable tokens.
        remasking, guard, cache: a name, an object, or what its `to_dict` gives; also `threshold=0.9` and
            `entropy_bound=...` for the strategies of these names.
        cfg_scale, max_passes, defer_ends, suppressed_tokens, seed, noise, lookahead, alternatives: as in
            `GenerationSettings`.
        return_dict_in_generate: return a `MedVGenerationOutput` rather than the ids.
        eos_token_id: more tokens, one or several, before which an answer ends; the end of turn always is one.
        pad_token_id: what stands behind an answer; the model's end of text.
        bos_token_id: kept, not read.

    Raises:
        SettingsError: for an unknown name (those near are named), or values that no run can have.
    """

    def __init__(
        self, **kwargs: Any
    ):  # not the parent's: most of its fields are about writing token by token
        values = translate(kwargs)
        for name in (*_SETTINGS.values(), "max_length", "do_sample", "return_dict_in_generate"):
            setattr(self, name, values.pop(name, None))
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            setattr(self, name, values.pop(name, None))
        for name in ("_commit_hash", "_from_model_config", "transformers_version"):
            setattr(self, name, values.pop(name, None))
        if values:
            raise unknown_name(next(iter(values)))
        self.validate()

    @classmethod
    def from_dict(cls, config_dict: Mapping[str, Any], **kwargs: Any) -> "MedVGenerationConfig":
        """Read what `to_dict` gave, or another model's; of that, what only writing token by token reads is left out."""
        foreign = vars(GenerationConfig()).keys() - vars(cls()).keys() - _ALIASES.keys()
        ignored = sorted(foreign & config_dict.keys())
        if ignored:
            _log.warning_once(
                f"generation_config.json has {', '.join(ignored)}, which a denoiser does not read."
            )
        return super().from_dict({k: v for k, v in config_dict.items() if k not in foreign}, **kwargs)

    def from_model_config(self, *args: Any, **kwargs: Any) -> None:
        """Refuse: sizes of the model say nothing about a generation (transformers then takes the defaults)."""
        raise NotImplementedError

    def update(self, defaults_only: bool = False, allow_custom_entries: bool = False, **kwargs: Any) -> dict:
        """Take in settings by any of their names; those that are not settings come back."""
        return super().update(defaults_only, allow_custom_entries, **translate(kwargs))

    def validate(self, **kwargs: Any) -> None:
        """Check the values.

        Raises:
            SettingsError: for those that no run can have.
        """
        if self.max_new_tokens is not None or self.max_length is None:
            self.settings()

    def to_dict(self) -> dict[str, Any]:
        """Return all values as JSON holds them."""
        values = super().to_dict()
        return {name: one.to_dict() if isinstance(one, Choice) else one for name, one in values.items()}

    def to_diff_dict(self) -> dict[str, Any]:
        """Return the values that are set."""
        return {name: value for name, value in self.to_dict().items() if value is not None}

    def settings(self, length: int | None = None) -> GenerationSettings:
        """Return the settings of a run.

        Args:
            length: L, where it is known from elsewhere.

        Raises:
            SettingsError: for values that no run can have.
        """
        given = {setting: getattr(self, name) for setting, name in _SETTINGS.items()}
        given = {name: value for name, value in given.items() if value is not None}
        size = given["gen_length"] = length or given.get("gen_length", DEFAULTS.gen_length)
        if isinstance(size, int) and size > 0:
            most = min(size, DEFAULTS.block_length)
            given.setdefault("block_length", next(n for n in range(most, 0, -1) if size % n == 0))
            given.setdefault("steps", size)
        if self.do_sample is not None:
            given["temperature"] = (given.get("temperature") or 1.0) if self.do_sample else 0.0
        settings = GenerationSettings.from_dict(given)
        strategy = settings.remasking
        if self.max_denoising_steps and strategy.is_adaptive and not strategy.is_growing:
            # how many passes for a paced strategy, how many at the most for one that sets its own pace
            settings = replace(settings, max_passes=settings.max_passes or self.max_denoising_steps)
        return settings


def translate(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by the names of `MedVGenerationConfig`; other names stay.

    Raises:
        SettingsError: for one setting under two names, or a setting of other models with a value that changes answers.
    """
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name in _NEUTRAL:
            if value not in _NEUTRAL[name]:
                raise SettingsError(
                    f"{name} is {value!r}, which a denoiser has not; leave it out, or give "
                    "logits_processor=[...] what is to change the logits (transformers' TopPLogitsWarper, ...)"
                )
            continue
        if name in _STRATEGIES:
            name, value = "remasking", None if value is None else _STRATEGIES[name](value)
        name = _ALIASES.get(name, name)
        if values.get(name) is not None and value is not None and values[name] != value:
            raise SettingsError(f"{name} was given twice, as {values[name]!r} and {value!r}; give it once")
        if name not in values or value is not None:
            values[name] = value
    return values


def unknown_name(name: str, more: tuple[str, ...] = ()) -> SettingsError:
    """Return the error for a name that is no setting; `more` are others that would have been understood."""
    known = [*vars(MedVGenerationConfig()), *_ALIASES, *_STRATEGIES, *more]
    known = [one for one in known if not one.startswith("_")]
    near = get_close_matches(name, known, n=3)
    hint = f"near are {', '.join(near)}" if near else f"known are {', '.join(sorted(set(known)))}"
    return SettingsError(f"{name!r} is no setting of generate(); {hint}")

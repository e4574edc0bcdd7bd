"""Autoregressive models as responders: transformers models with pictures (LLaVA, Qwen-VL, ...) or of text alone, and
the autoregressive twin of LLaDA-MedV.

Models are read from local folders or the local cache unless a download is allowed; code that comes with a
checkpoint is never run. Transformers models decode greedily and in no other way: no penalty that a checkpoint's own
settings may ask for. One forward pass makes one token, so an answer's passes are its tokens, the closing one
included.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    GenerationConfig,
)

from medv_lab.config import GenerationSettings
from medv_lab.evaluation.model_choice import CHAT
from medv_lab.evaluation.responders import Responder, describe_model, describe_processing, dtype_name
from medv_lab.inputs.image_processing import list_notes, open_pictures
from medv_lab.model.causal import MedVForNextToken
from medv_lab.model.checkpoint_files import find_source
from medv_lab.model.processing import MedVProcessor
from medv_lab.records import Prediction, Question
from medv_lab.runtime import resolve_device

_CLASSES = {
    "image-text": (AutoModelForImageTextToText, AutoProcessor),
    "text": (AutoModelForCausalLM, AutoTokenizer),
}


class TransformersResponder(Responder):
    """A transformers model that writes greedily: with pictures, or of text alone (the LLaMA row of Table 1).

    Args:
        model: e.g. a LlavaForConditionalGeneration, Qwen2VLForConditionalGeneration or LlamaForCausalLM.
        reader: its processor; of a model of text alone its tokenizer, and pictures are not looked at.
        name: what tables call it.
        prompt: "chat", or a text with {question} in it. With pictures it holds the model's own image token too; the
            line of that token is left out where a question has no picture.
        max_new_tokens: longest answer.

    Raises:
        ValueError: for a prompt form that does not fit.
    """

    def __init__(
        self, model: Any, reader: Any, *, name: str, prompt: str = CHAT, max_new_tokens: int = 256
    ) -> None:
        tokenizer = getattr(reader, "tokenizer", reader)
        self._sees = reader is not tokenizer
        if prompt == CHAT and not reader.chat_template:
            raise ValueError(
                f"{name} has no chat template; give the prompt form, a text with {{question}} in it"
            )
        if prompt != CHAT and "{question}" not in prompt:
            raise ValueError(
                f"the prompt form is {prompt!r}; give {CHAT!r}, or a text with {{question}} in it"
            )
        if prompt != CHAT and self._sees and reader.image_token not in prompt:
            raise ValueError(f"the prompt form {prompt!r} lacks the image token {reader.image_token!r}")
        self.name, self.model = name, describe_model(model, name)
        self.network, self._reader, self._tokenizer, self._prompt = model.eval(), reader, tokenizer, prompt
        tokenizer.padding_side = "left"
        self._ends = _as_ids(model.generation_config.eos_token_id) or _as_ids(tokenizer.eos_token_id)
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        self._decoding = GenerationConfig(
            do_sample=False,
            max_new_tokens=max_new_tokens,
            eos_token_id=self._ends or None,
            pad_token_id=tokenizer.pad_token_id,
        )
        self.settings = {"prompt": prompt, "max_new_tokens": max_new_tokens, "dtype": dtype_name(model)}
        if prompt == CHAT:
            self.settings["chat_template"] = reader.chat_template

    def answer(self, questions: Sequence[Question]) -> list[Prediction]:
        """Answer a batch, in order; questions with and without a picture are run apart."""
        found: dict[int, Prediction] = {}
        for shows in (True, False):
            part = [n for n, one in enumerate(questions) if (self._sees and one.image is not None) is shows]
            if part:
                answered = self._answer_alike([questions[number] for number in part], shows)
                found.update(zip(part, answered, strict=True))
        return [found[number] for number in range(len(questions))]

    @torch.no_grad()
    def _answer_alike(self, questions: Sequence[Question], shows: bool) -> list[Prediction]:
        # 1. Prompts and pictures; a start token is added only where the chat template did not write it.
        texts = [self._render(question.text, shows) for question in questions]
        start = self._tokenizer.bos_token
        more: dict[str, Any] = {} if self._sees else {"return_token_type_ids": False}
        pictures = [open_pictures(question.image) if shows else [] for question in questions]
        if shows:
            more["images"] = [own[0] if len(own) == 1 else own for own in pictures]
        inputs = self._reader(
            text=texts,
            padding=True,
            return_tensors="pt",
            add_special_tokens=not (start and texts[0].startswith(start)),
            **more,
        )

        # 2. Decode greedily.
        device, dtype = self.network.device, self.network.dtype
        placed = {
            name: value.to(device, dtype if value.is_floating_point() else None)
            for name, value in inputs.items()
        }
        own = self.network.generation_config
        self.network.generation_config = self._decoding  # generate fills what is unset from the model's own
        try:
            written = self.network.generate(**placed)[:, inputs["input_ids"].shape[1] :].tolist()
        finally:
            self.network.generation_config = own

        # 3. Read each answer up to its closing token.
        predictions = []
        for question, ids, own in zip(questions, written, pictures, strict=True):
            passes = next((count for count, token in enumerate(ids, 1) if token in self._ends), len(ids))
            text = self._tokenizer.decode(ids[:passes], skip_special_tokens=True).strip()
            predictions.append(self.predict(question, text, passes, list_notes(own)))
        return predictions

    def _render(self, question: str, shows: bool) -> str:
        if self._prompt != CHAT:
            form = self._prompt
            if self._sees and not shows:
                image = self._reader.image_token
                form = form.replace(f"{image}\n", "").replace(image, "")
            return form.replace("{question}", question)
        parts = [{"type": "image"}] * shows + [{"type": "text", "text": question}]
        messages = [{"role": "user", "content": parts if self._sees else question}]
        return self._reader.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)


class NextTokenResponder(Responder):
    """The autoregressive twin of LLaDA-MedV.

    Args:
        model, processor: from `load`, or as trained.
        settings: of them, gen_length is the longest answer; temperature and seed are followed too.
        name: what tables call it.
    """

    def __init__(
        self,
        model: MedVForNextToken,
        processor: MedVProcessor,
        settings: GenerationSettings,
        name: str = "autoregressive",
    ) -> None:
        self.name, self.model = name, describe_model(model, name)
        self.network, self._processor = model.eval(), processor
        self._decoding = {
            "max_new_tokens": settings.gen_length,
            "temperature": settings.temperature,
            "seed": settings.seed,
        }
        self.settings = {**self._decoding, **describe_processing(processor), "dtype": dtype_name(model)}

    def answer(self, questions: Sequence[Question]) -> list[Prediction]:
        """Answer a batch, in order."""
        texts = [[("user", one.text)] for one in questions]
        pictures = [open_pictures(one.image) for one in questions]
        inputs = self._processor(pictures, texts, gen_length=self._decoding["max_new_tokens"])
        rows = self.network.write(**inputs, **self._decoding)
        return [
            self.predict(question, self._processor.decode_answer(ids), len(ids), list_notes(own))
            for question, ids, own in zip(questions, rows, pictures, strict=True)
        ]


def load_transformers(
    kind: str, folder: str | Path, device: str = "auto", dtype: str = "auto", download: bool = False
) -> tuple[Any, Any]:
    """Load a transformers model with its processor or tokenizer, from a folder or a hub id in the local cache.

    Args:
        kind: "image-text" or "text".
        folder: a local folder, or a hub id.
        device, dtype: as in `resolve_device`.
        download: allow fetching a hub id.

    Raises:
        CheckpointError: if it is not here.
        ValueError: if it needs code of its own, or a package that is not installed.
    """
    model_class, reader_class = _CLASSES[kind]
    placement = resolve_device(device, dtype)
    source = find_source(folder, download=download)
    here: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        reader = reader_class.from_pretrained(source.folder, **here)
    except ImportError as error:
        raise ValueError(f"{source.name} needs a package that is not installed: {error}") from error
    model = model_class.from_pretrained(
        source.folder, dtype=placement.dtype, use_safetensors=True, **here
    ).to(placement.device)
    model.medv_source = source
    return model, reader


def _as_ids(value: int | Sequence[int] | None) -> list[int]:
    return [] if value is None else [value] if isinstance(value, int) else list(value)

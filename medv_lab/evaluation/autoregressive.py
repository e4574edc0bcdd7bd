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

from medv_lab.data.images import open_image
from medv_lab.evaluation.model_choice import CHAT
from medv_lab.evaluation.responders import Responder, describe_model, describe_processing, dtype_name
from medv_lab.model.causal import MedVForNextToken
from medv_lab.model.checkpoint_files import find_source
from medv_lab.model.processing import MedVProcessor
from medv_lab.records import Prediction, Question
from medv_lab.runtime import resolve_device

"""The prompt form of the checkpoint's own chat template; other forms are texts with {question} in them."""


class _GreedyResponder(Responder):
    """Greedy decoding with a transformers model, which its two kinds share."""

    def __init__(self, model: Any, reader: Any, tokenizer: Any, prompt: str, max_new_tokens: int, name: str):
        if prompt != CHAT and "{question}" not in prompt:
            raise ValueError(
                f"the prompt form is {prompt!r}; give {CHAT!r}, or a text with {{question}} in it"
            )
        if prompt == CHAT and not reader.chat_template:
            raise ValueError(
                f"{name} has no chat template; give the prompt form, a text with {{question}} in it"
            )
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is {max_new_tokens}; give 1 or more")
        self.name, self.model = name, describe_model(model, name)
        self._network, self._reader, self._tokenizer, self._prompt = model.eval(), reader, tokenizer, prompt
        self._tokenizer.padding_side = "left"
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

    @torch.no_grad()
    def _decode(self, questions: Sequence[Question], inputs: Any) -> list[Prediction]:
        device, dtype = self._network.device, self._network.dtype
        placed = {
            name: value.to(device, dtype if value.is_floating_point() else None)
            for name, value in inputs.items()
        }
        own = self._network.generation_config
        self._network.generation_config = self._decoding  # generate fills what is unset from the model's own
        try:
            ids = self._network.generate(**placed)
        finally:
            self._network.generation_config = own
        written = ids[:, inputs["input_ids"].shape[1] :].tolist()
        return [self._read(question, row) for question, row in zip(questions, written, strict=True)]

    def _read(self, question: Question, ids: list[int]) -> Prediction:
        passes = next((count for count, token in enumerate(ids, 1) if token in self._ends), len(ids))
        text = self._tokenizer.decode(ids[:passes], skip_special_tokens=True).strip()
        return self.predict(question, text, passes)

    def _adds_start(self, texts: Sequence[str]) -> bool:
        """Return whether the tokenizer must add its start token: not where the chat template wrote it."""
        start = self._tokenizer.bos_token
        return not (start and texts[0].startswith(start))


class ImageTextResponder(_GreedyResponder):
    """A transformers image-text-to-text model.

    Args:
        model: e.g. a LlavaForConditionalGeneration or Qwen2VLForConditionalGeneration.
        processor: its processor.
        prompt: "chat", or a text with {question} and the model's own image token in it; the line that holds the
            image token is left out where a question has no picture.
        max_new_tokens: longest answer.
        name: what tables call it.

    Raises:
        ValueError: for a prompt form that does not fit.
    """

    def __init__(
        self, model: Any, processor: Any, *, name: str, prompt: str = CHAT, max_new_tokens: int = 256
    ) -> None:
        super().__init__(model, processor, processor.tokenizer, prompt, max_new_tokens, name)
        if prompt != CHAT and processor.image_token not in prompt:
            raise ValueError(f"the prompt form {prompt!r} lacks the image token {processor.image_token!r}")

    def answer(self, questions: Sequence[Question]) -> list[Prediction]:
        """Answer a batch, in order; questions with and without a picture are run apart."""
        found: dict[int, Prediction] = {}
        for has_image in (True, False):
            part = [number for number, one in enumerate(questions) if (one.image is not None) is has_image]
            if part:
                answered = self._answer_alike([questions[number] for number in part], has_image)
                found.update(zip(part, answered, strict=True))
        return [found[number] for number in range(len(questions))]

    def _answer_alike(self, questions: Sequence[Question], has_image: bool) -> list[Prediction]:
        texts = [self._render(question.text, has_image) for question in questions]
        images = {"images": [open_image(question.image) for question in questions]} if has_image else {}
        inputs = self._reader(
            text=texts,
            padding=True,
            return_tensors="pt",
            add_special_tokens=self._adds_start(texts),
            **images,
        )
        return self._decode(questions, inputs)

    def _render(self, question: str, has_image: bool) -> str:
        if self._prompt != CHAT:
            image = self._reader.image_token
            form = self._prompt if has_image else self._prompt.replace(f"{image}\n", "").replace(image, "")
            return form.replace("{question}", question)
        content = [{"type": "text", "text": question}]
        if has_image:
            content.insert(0, {"type": "image"})
        messages = [{"role": "user", "content": content}]
        return self._reader.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)


class TextResponder(_GreedyResponder):
    """A transformers language model that is shown the question and no picture (the LLaMA row of Table 1).

    Args:
        model: e.g. a LlamaForCausalLM.
        tokenizer: its tokenizer.
        prompt: "chat", or a text with {question} in it.
        max_new_tokens: longest answer.
        name: what tables call it.

    Raises:
        ValueError: for a prompt form that does not fit.
    """

    def __init__(
        self, model: Any, tokenizer: Any, *, name: str, prompt: str = CHAT, max_new_tokens: int = 256
    ) -> None:
        super().__init__(model, tokenizer, tokenizer, prompt, max_new_tokens, name)

    def answer(self, questions: Sequence[Question]) -> list[Prediction]:
        """Answer a batch, in order; pictures are not looked at."""
        texts = [self._render(question.text) for question in questions]
        inputs = self._tokenizer(
            texts,
            padding=True,
            return_tensors="pt",
            return_token_type_ids=False,
            add_special_tokens=self._adds_start(texts),
        )
        return self._decode(questions, inputs)

    def _render(self, question: str) -> str:
        if self._prompt != CHAT:
            return self._prompt.replace("{question}", question)
        messages = [{"role": "user", "content": question}]
        return self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)


class NextTokenResponder(Responder):
    """The autoregressive twin of LLaDA-MedV.

    Args:
        model, processor: from `load`, or as trained.
        name: what tables call it.
        max_new_tokens: longest answer.
        temperature: 0 decodes greedily; otherwise tokens are drawn.
        seed: of the draws.

    Raises:
        ValueError: for a length below 1, or a temperature below 0.
    """

    def __init__(
        self,
        model: MedVForNextToken,
        processor: MedVProcessor,
        *,
        name: str = "autoregressive",
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> None:
        if max_new_tokens < 1 or temperature < 0:
            raise ValueError(
                f"max_new_tokens is {max_new_tokens} and temperature {temperature}; give 1 or more, and 0 or more"
            )
        self.name, self.model = name, describe_model(model, name)
        self._network, self._processor = model.eval(), processor
        self._decoding = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed}
        processing = describe_processing(processor)
        self.settings = {**self._decoding, **processing, "dtype": dtype_name(model)}

    def answer(self, questions: Sequence[Question]) -> list[Prediction]:
        """Answer a batch, in order."""
        images, texts = [one.image for one in questions], [one.text for one in questions]
        inputs = self._processor(images, texts, gen_length=self._decoding["max_new_tokens"])
        rows = self._network.write(**inputs, **self._decoding)
        return [
            self.predict(question, self._processor.decode_answer(ids), len(ids))
            for question, ids in zip(questions, rows, strict=True)
        ]


def load_image_text(
    folder: str | Path, device: str = "auto", dtype: str = "auto", download: bool = False
) -> tuple[Any, Any]:
    """Load an image-text-to-text model and its processor, from a folder or a hub id in the local cache.

    Args:
        folder: a local folder, or a hub id.
        device, dtype: as in `resolve_device`.
        download: allow fetching a hub id.

    Raises:
        CheckpointError: if it is not here.
        ValueError: if it needs code of its own, or a package that is not installed.
    """
    return _load(AutoModelForImageTextToText, AutoProcessor, folder, device, dtype, download)


def load_text(
    folder: str | Path, device: str = "auto", dtype: str = "auto", download: bool = False
) -> tuple[Any, Any]:
    """Load a language model and its tokenizer; arguments and errors as in `load_image_text`."""
    return _load(AutoModelForCausalLM, AutoTokenizer, folder, device, dtype, download)


def _load(
    model_class: Any, reader_class: Any, folder: str | Path, device: str, dtype: str, download: bool
) -> tuple[Any, Any]:
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

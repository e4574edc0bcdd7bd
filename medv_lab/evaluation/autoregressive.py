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
from medv_lab.evaluation.responders import Query, Reply, describe_model, describe_processing, dtype_name
from medv_lab.model.causal import MedVForNextToken
from medv_lab.model.checkpoint_files import find_source
from medv_lab.model.processing import MedVProcessor
from medv_lab.runtime import resolve_device

CHAT = "chat"
"""The prompt form of the checkpoint's own chat template; other forms are texts with {question} in them."""


class _GreedyResponder:
    """What both kinds share: settings, decoding, counting."""

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
        self.name = name
        self._model, self._reader, self._tokenizer, self._prompt = model.eval(), reader, tokenizer, prompt
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
        settings = {"prompt": prompt, "max_new_tokens": max_new_tokens, "dtype": dtype_name(model)}
        if prompt == CHAT:
            settings["chat_template"] = reader.chat_template
        self.identity = {"model": describe_model(model, name), "settings": settings}

    @torch.no_grad()
    def _decode(self, inputs: Any) -> list[Reply]:
        device, dtype = self._model.device, self._model.dtype
        placed = {
            name: value.to(device, dtype if value.is_floating_point() else None)
            for name, value in inputs.items()
        }
        own = self._model.generation_config
        self._model.generation_config = self._decoding  # generate fills what is unset from the model's own
        try:
            ids = self._model.generate(**placed)
        finally:
            self._model.generation_config = own
        return [self._read(row) for row in ids[:, inputs["input_ids"].shape[1] :].tolist()]

    def _read(self, ids: list[int]) -> Reply:
        passes = next((place for place, token in enumerate(ids, 1) if token in self._ends), len(ids))
        return Reply(self._tokenizer.decode(ids[:passes], skip_special_tokens=True).strip(), passes)

    def _adds_start(self, texts: Sequence[str]) -> bool:
        """Whether the tokenizer must add its start token: not where the chat template wrote it."""
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

    def answer(self, queries: Sequence[Query]) -> list[Reply]:
        """Answer a batch, in order; questions with and without a picture are run apart."""
        replies: dict[int, Reply] = {}
        for has_image in (True, False):
            part = [place for place, query in enumerate(queries) if (query.image is not None) is has_image]
            if part:
                found = self._answer_alike([queries[place] for place in part], has_image)
                replies.update(zip(part, found, strict=True))
        return [replies[place] for place in range(len(queries))]

    def _answer_alike(self, queries: Sequence[Query], has_image: bool) -> list[Reply]:
        texts = [self._render(query.text, has_image) for query in queries]
        images = {"images": [open_image(query.image) for query in queries]} if has_image else {}
        inputs = self._reader(
            text=texts,
            padding=True,
            return_tensors="pt",
            add_special_tokens=self._adds_start(texts),
            **images,
        )
        return self._decode(inputs)

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

    def answer(self, queries: Sequence[Query]) -> list[Reply]:
        """Answer a batch, in order; pictures are not looked at."""
        texts = [self._render(query.text) for query in queries]
        inputs = self._tokenizer(
            texts,
            padding=True,
            return_tensors="pt",
            return_token_type_ids=False,
            add_special_tokens=self._adds_start(texts),
        )
        return self._decode(inputs)

    def _render(self, question: str) -> str:
        if self._prompt != CHAT:
            return self._prompt.replace("{question}", question)
        messages = [{"role": "user", "content": question}]
        return self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)


class NextTokenResponder:
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
        self.name = name
        self._model, self._processor = model.eval(), processor
        self._decoding = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed}
        processing = describe_processing(processor)
        self.identity = {
            "model": describe_model(model, name),
            "settings": {**self._decoding, **processing, "dtype": dtype_name(model)},
        }

    def answer(self, queries: Sequence[Query]) -> list[Reply]:
        """Answer a batch, in order."""
        images, texts = [query.image for query in queries], [query.text for query in queries]
        inputs = self._processor(images, texts, gen_length=self._decoding["max_new_tokens"])
        rows = self._model.write(**inputs, **self._decoding)
        return [Reply(self._processor.decode_answer(ids), len(ids)) for ids in rows]


def load_image_text(
    folder: str | Path, device: str = "auto", dtype: str = "auto", download: bool = False
) -> tuple[Any, Any]:
    """An image-text-to-text model and its processor, from a folder or a hub id in the local cache.

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
    """A language model and its tokenizer; arguments and errors as in `load_image_text`."""
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

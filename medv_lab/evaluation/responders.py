"""What answers questions: the masked-diffusion model, a file of answers, a model behind an endpoint.

All are a `Responder`; autoregressive transformers models are in `autoregressive`. `make_respond` is the plainer
function that the phantom benchmark asks.
"""

import base64
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from medv_lab.config import PRESETS, GenerationSettings
from medv_lab.data.images import open_image
from medv_lab.evaluation.endpoint import ChatClient, Endpoint, read_completion
from medv_lab.generation import ask_many
from medv_lab.model.modeling import MedVForMaskedDiffusion
from medv_lab.model.processing import MedVProcessor
from medv_lab.phantoms.benchmark import Respond

_PROCESSING = ("chat_mode", "system_prompt", "image_aspect_ratio", "image_size", "drop_after_image")


@dataclass(frozen=True)
class Query:
    """One question to one picture.

    Attributes:
        id: names the question in results; differs from one to the next.
        text: the question.
        image: anything `open_image` takes, or None.
    """

    id: str
    text: str
    image: Any = None


@dataclass(frozen=True)
class Reply:
    """An answer, and the forward passes that it took (NFE); None where they cannot be known."""

    text: str
    passes: int | None = None


class Responder(Protocol):
    """Whatever answers questions.

    `name` is what tables call it. `identity` is all that its answers depend on, JSON-able: {"model": {name, sha256,
    revision}, "settings": {...}}; answers of equal identity are the same answers.
    """

    @property
    def name(self) -> str:
        """What tables call it."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """Model and settings."""

    def answer(self, queries: Sequence[Query]) -> list[Reply]:
        """Answer a batch, in order."""


class DiffusionResponder:
    """A masked-diffusion model with its settings; one forward pass is one step, two with guidance.

    Raises from `answer`:
        KeyboardInterrupt: if a batch is interrupted: half an answer is none.
    """

    def __init__(
        self,
        model: MedVForMaskedDiffusion,
        processor: MedVProcessor,
        settings: GenerationSettings,
        name: str = "diffusion",
    ) -> None:
        self.name = name
        self._model, self._processor, self._settings = model, processor, settings
        self.identity = {
            "model": describe_model(model, name),
            "settings": {**settings.to_dict(), **describe_processing(processor), "dtype": dtype_name(model)},
        }

    def answer(self, queries: Sequence[Query]) -> list[Reply]:
        """Answer a batch, in order."""
        images, texts = [query.image for query in queries], [query.text for query in queries]
        answers = ask_many(
            self._model, self._processor, images, texts, self._settings, len(queries), progress=False
        )
        if not all(answer.is_complete for answer in answers):
            raise KeyboardInterrupt
        each = 2 if self._settings.cfg_scale > 0 else 1
        return [Reply(answer.text, each * answer.trace.forward_evaluations) for answer in answers]


class FileResponder:
    """Answers that another program wrote: JSON lines, one an answer.

    Args:
        path: the file.
        name: of the system that wrote it.
        id_field, text_field: names of the question's id and the answer in its lines.

    Raises:
        ValueError: for a line without these fields, or an id that comes twice.
    """

    def __init__(
        self, path: Path, name: str, id_field: str = "question_id", text_field: str = "text"
    ) -> None:
        self.name = name
        content = path.read_bytes()
        self._answers: dict[str, str] = {}
        for number, line in enumerate(content.decode().splitlines(), 1):
            try:
                record = json.loads(line)
                key, text = str(record[id_field]), record[text_field]
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"line {number} of {path.name} has no {id_field!r} and {text_field!r} ({error}); name the fields"
                ) from error
            if key in self._answers or not isinstance(text, str):
                raise ValueError(f"line {number} of {path.name}: id {key!r} comes twice, or has no text")
            self._answers[key] = text
        digest = hashlib.sha256(content).hexdigest()
        self.identity = {"model": {"name": path.name, "sha256": digest, "revision": None}, "settings": {}}

    def answer(self, queries: Sequence[Query]) -> list[Reply]:
        """The answers that the file has.

        Raises:
            ValueError: for a question that the file does not answer.
        """
        missing = [query.id for query in queries if query.id not in self._answers]
        if missing:
            raise ValueError(
                f"{self.identity['model']['name']} answers {len(self._answers)} questions, but not {missing[0]!r}"
            )
        return [Reply(self._answers[query.id]) for query in queries]


class EndpointResponder:
    """A model behind an OpenAI-compatible endpoint, which is sent the question and the picture as PNG.

    The passes it takes cannot be known. Errors are those of `ChatClient.complete` and `read_completion`.
    """

    def __init__(self, endpoint: Endpoint, name: str | None = None) -> None:
        self.name = name or endpoint.model
        self._endpoint, self._client = endpoint, ChatClient(endpoint)
        where = hashlib.sha256((endpoint.base_url or "").encode()).hexdigest()
        settings = {
            "seed": endpoint.seed,
            "max_tokens": endpoint.max_tokens,
            "temperature": 0,
            "where": where,
        }
        self.identity = {
            "model": {"name": endpoint.model, "sha256": None, "revision": None},
            "settings": settings,
        }

    def answer(self, queries: Sequence[Query]) -> list[Reply]:
        """Answer a batch, so many at a time as the endpoint allows."""
        with ThreadPoolExecutor(self._endpoint.concurrency) as pool:
            return list(pool.map(self._answer_one, queries))

    def _answer_one(self, query: Query) -> Reply:
        content: list[dict[str, Any]] = [{"type": "text", "text": query.text}]
        if query.image is not None:
            content.insert(0, {"type": "image_url", "image_url": {"url": _data_url(query.image)}})
        key = hashlib.sha256(json.dumps([self.identity, content], sort_keys=True).encode()).hexdigest()
        messages = [{"role": "user", "content": content}]
        body = self._client.complete(messages, seed=self._endpoint.seed, idempotency_key=key)
        return Reply(read_completion(body).text)


def make_respond(
    model: MedVForMaskedDiffusion,
    processor: MedVProcessor,
    settings: GenerationSettings = PRESETS["embedded-vqa"],
    batch_size: int = 32,
) -> Respond:
    """What `evaluate_phantoms` asks: batches of pictures and questions to a model's answers.

    The function made raises KeyboardInterrupt if a batch is interrupted: scores of a part would look like scores
    of the whole.
    """

    def respond(pictures: Sequence[np.ndarray | None], questions: Sequence[str]) -> list[str]:
        answers = ask_many(model, processor, pictures, questions, settings, batch_size, progress=False)
        if not all(answer.is_complete for answer in answers):
            raise KeyboardInterrupt
        return [answer.text for answer in answers]

    return respond


def respond_with(responder: Responder) -> Respond:
    """What `evaluate_phantoms` asks, made of any responder; its name and seconds are not kept."""

    def respond(pictures: Sequence[np.ndarray | None], questions: Sequence[str]) -> list[str]:
        pairs = zip(questions, pictures, strict=True)
        queries = [Query(str(number), text, picture) for number, (text, picture) in enumerate(pairs)]
        return [reply.text for reply in responder.answer(queries)]

    return respond


def describe_processing(processor: MedVProcessor) -> dict[str, Any]:
    """Those settings of a processor that change what a model is shown."""
    return {field: getattr(processor, field) for field in _PROCESSING}


def describe_model(model: torch.nn.Module, name: str) -> dict[str, Any]:
    """Name, sha256 and revision of a model: those of its `medv_source`, or a digest of the weights it holds."""
    source = getattr(model, "medv_source", None)
    if source is not None:
        return {"name": source.name, "sha256": source.sha256, "revision": source.revision}
    digest = hashlib.sha256()
    for key, weight in sorted(model.state_dict().items()):
        digest.update(f"{key} {weight.dtype} {tuple(weight.shape)}".encode())
        digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return {"name": name, "sha256": digest.hexdigest(), "revision": None}


def dtype_name(model: torch.nn.Module) -> str:
    """The dtype of a model's first weight, e.g. "float32"."""
    return str(next(model.parameters()).dtype).removeprefix("torch.")


def _data_url(image: Any) -> str:
    buffer = io.BytesIO()
    open_image(image).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()

"""Whatever answers questions: the masked-diffusion model, a file of answers, a model behind an endpoint.

All are a `Responder`: a name, the model and the settings that the answers depend on, and `answer`. Models that write
from left to right are in `autoregressive`. A responder of one's own names itself and answers with `predict`:

    class Constant(Responder):
        name, model, settings = "constant", {"name": "constant", "sha256": None, "revision": None}, {}

        def answer(self, questions):
            return [self.predict(question, "yes") for question in questions]
"""

import base64
import hashlib
import io
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image

from medv_lab.config import GenerationSettings
from medv_lab.evaluation.endpoint import (
    ChatClient,
    Endpoint,
    FilteredError,
    RefusalError,
    ReplyError,
    read_completion,
)
from medv_lab.generation import ask_many
from medv_lab.inputs.image_processing import list_notes, open_pictures
from medv_lab.limits import parse_json, read_file
from medv_lab.model.modeling import MedVForMaskedDiffusion
from medv_lab.model.processing import MedVProcessor
from medv_lab.records import Prediction, Question
from medv_lab.store import content_key

_PROCESSING = ("chat_mode", "system_prompt", "image_aspect_ratio", "image_size", "drop_after_image")


class Responder(Protocol):
    """Answers questions; derive from it, or be like it.

    Attributes:
        name: what tables call it.
        model: {name, sha256, revision} of the model.
        settings: everything else that its answers depend on, JSON-able. Responders of equal model and settings give
            the same answers.
        is_paid: True where every call costs money; then one process answers, whatever the launch, and takes each
            answer from `answer_each` as it comes.
        network: the loaded model, whose device and dtype a run's manifest records; None where nothing is loaded.
    """

    name: str
    model: Mapping[str, Any]
    settings: Mapping[str, Any]
    is_paid: bool = False
    network: torch.nn.Module | None = None

    def answer(self, questions: Sequence[Question]) -> list[Prediction]:
        """Answer a batch, in order."""

    def answer_each(self, questions: Sequence[Question]) -> Iterator[Prediction]:
        """Answer a batch one by one, in any order; a failure is raised once all that was answered is out."""
        yield from self.answer(questions)

    @property
    def run(self) -> str:
        """Short digest of model and settings, which names its answers in files."""
        return content_key(self.model, self.settings)[:12]

    def predict(
        self, question: Question, text: str, passes: int | None = None, notes: Sequence[str] = ()
    ) -> Prediction:
        """Return a text as the answer of this responder to a question."""
        return Prediction(question.id, self.name, text, self.run, self.settings, passes, notes=tuple(notes))


class DiffusionResponder(Responder):
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
        self.name, self.model = name, describe_model(model, name)
        processing = describe_processing(processor)
        self.settings = {**settings.to_dict(), **processing, "dtype": dtype_name(model)}
        self.network, self._processor, self._generation = model, processor, settings

    def answer(self, questions: Sequence[Question]) -> list[Prediction]:
        """Answer a batch, in order."""
        images, texts = [one.image for one in questions], [one.text for one in questions]
        answers = ask_many(
            self.network, self._processor, images, texts, self._generation, len(texts), progress=False
        )
        if any(answer.is_cancelled for answer in answers):
            raise KeyboardInterrupt
        passes_per_step = 2 if self._generation.cfg_scale > 0 else 1
        return [
            self.predict(
                question, answer.text, passes_per_step * answer.trace.forward_evaluations, answer.notes
            )
            for question, answer in zip(questions, answers, strict=True)
        ]


class FileResponder(Responder):
    """Answers that another system wrote: JSON Lines of question_id and text.

    Raises:
        ValueError: for a line without these fields, with half a character, or with an id that comes twice.
        OSError: if there is no such file.
    """

    settings: Mapping[str, Any] = {}

    def __init__(self, path: Path, name: str) -> None:
        content = read_file(path, None)
        digest = hashlib.sha256(content).hexdigest()
        self.name, self.model = name, {"name": path.name, "sha256": digest, "revision": None}
        self._texts: dict[str, str] = {}
        *lines, last = content.split(
            b"\n"
        )  # and nowhere else: a text may hold what Unicode takes for the end of a line
        for number, line in enumerate([*lines, last] if last else lines, 1):
            try:
                record = parse_json(line)
                key, text = str(record["question_id"]), record["text"]
                f"{key}{text}".encode()  # half a character is no text
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"line {number} of {path.name} has no 'question_id' and 'text' ({error}); give one answer per line"
                ) from error
            if key in self._texts or not isinstance(text, str):
                raise ValueError(f"line {number} of {path.name}: id {key!r} comes twice, or has no text")
            self._texts[key] = text

    def answer(self, questions: Sequence[Question]) -> list[Prediction]:
        """Look the answers up.

        Raises:
            ValueError: for a question that the file does not answer.
        """
        missing = [question.id for question in questions if question.id not in self._texts]
        if missing:
            raise ValueError(
                f"{self.model['name']} answers {len(self._texts)} questions, but not {missing[0]!r}"
            )
        return [self.predict(question, self._texts[question.id]) for question in questions]


class EndpointResponder(Responder):
    """A model behind an OpenAI-compatible endpoint, which is sent the question and the picture as PNG.

    The passes it takes cannot be known. A refusal by a content filter, or by the model, is the question's outcome.
    Errors are those of `ChatClient.complete` and `read_completion`.
    """

    is_paid = True

    def __init__(self, endpoint: Endpoint, name: str | None = None) -> None:
        self.name = name or endpoint.model
        self.model = {"name": endpoint.model, "sha256": None, "revision": None}
        where = hashlib.sha256((endpoint.base_url or "").encode()).hexdigest()
        self.settings = {**endpoint.parameters(), "where": where}
        self._endpoint, self._client = endpoint, ChatClient(endpoint)

    def answer(self, questions: Sequence[Question]) -> list[Prediction]:
        """Answer a batch, so many at a time as the endpoint allows."""
        found = {one.question_id: one for one in self.answer_each(questions)}
        return [found[question.id] for question in questions]

    def answer_each(self, questions: Sequence[Question]) -> Iterator[Prediction]:
        """Answer a batch one by one, as answers come; after a failure no further call is begun."""
        failure, ended = None, threading.Event()

        def answer(question: Question) -> Prediction | None:
            try:
                return None if ended.is_set() else self._answer_one(question)
            except ReplyError:  # of this answer, which says nothing of others
                raise
            except (OSError, ValueError):
                ended.set()
                raise

        with ThreadPoolExecutor(self._endpoint.concurrency) as pool:
            try:
                for call in as_completed([pool.submit(answer, question) for question in questions]):
                    try:
                        prediction = call.result()
                    except (OSError, ValueError) as error:
                        failure = failure or error
                        continue
                    if prediction is not None:
                        yield prediction
            finally:
                ended.set()
        if failure is not None:
            raise failure

    def _answer_one(self, question: Question) -> Prediction:
        began = time.perf_counter()
        content: list[dict[str, Any]] = [{"type": "text", "text": question.text}]
        pictures = open_pictures(question.image)
        for picture in pictures[::-1]:
            content.insert(0, {"type": "image_url", "image_url": {"url": _data_url(picture)}})
        text, refusal = "", None
        try:
            body = self._client.complete(
                [{"role": "user", "content": content}],
                seed=self._endpoint.seed,
                idempotency_key=content_key(self.model, self.settings, content),
            )
            text = read_completion(body)[0]
        except (FilteredError, RefusalError) as error:
            refusal = str(error)
        seconds = time.perf_counter() - began
        prediction = self.predict(question, text, notes=list_notes(pictures))
        return replace(prediction, seconds=seconds, refusal=refusal)


def describe_processing(processor: MedVProcessor) -> dict[str, Any]:
    """Return those settings of a processor that change what a model is shown."""
    found = {field: getattr(processor, field) for field in _PROCESSING}
    # only where it is set, so that runs made before it was known keep their names
    return found | ({"parse_control_tokens": True} if processor.parse_control_tokens else {})


def describe_model(model: torch.nn.Module, name: str) -> dict[str, Any]:
    """Return name, sha256 and revision of a model: those of its `medv_source`, or a digest of the weights it holds."""
    source = getattr(model, "medv_source", None)
    if source is not None:
        return {"name": source.name, "sha256": source.sha256, "revision": source.revision}
    digest = hashlib.sha256()
    for key, weight in sorted(model.state_dict().items()):
        digest.update(f"{key} {weight.dtype} {tuple(weight.shape)}".encode())
        digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return {"name": name, "sha256": digest.hexdigest(), "revision": None}


def dtype_name(model: torch.nn.Module) -> str:
    """Return the dtype of a model's first weight, "float32", and in what its layers are held if that is less."""
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    held = getattr(getattr(model, "medv_source", None), "quantization", None)
    return dtype if held is None else f"{dtype}, {held}"


def _data_url(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()

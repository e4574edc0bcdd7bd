"""Questions to a responder, predictions to a results folder; nothing that was answered is asked again.

A results folder has

    predictions-*.jsonl   the store: one line per answer, on the disk as soon as its batch is answered
    answers-RUN.jsonl     all answers of one run in the order of the questions, for people and for git
    manifest.json         versions, commit, model and settings of every run

A run is a responder with its settings; RUN is the digest of both. In the store an answer's key is a hash of question,
bytes of the picture, model and settings, so any process finds what any other has answered, whenever either was killed.
Processes of one launch (`accelerate launch`, `torchrun`: RANK and WORLD_SIZE), or tasks of an array that set the same,
take turns by question.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from medv_lab.evaluation.responders import Responder
from medv_lab.limits import open_file
from medv_lab.records import MANIFEST, Prediction, Question, pair_up, read_manifest, require_distinct
from medv_lab.runtime import make_manifest
from medv_lab.store import (
    ExclusiveAccess,
    Store,
    content_key,
    replace_text,
    require_writable,
    share_of_process,
    write_lines,
)

STORE = "predictions"


def answer_questions(
    questions: Sequence[Question],
    responder: Responder,
    folder: Path,
    *,
    batch_size: int = 8,
    notes: Mapping[str, Any] | None = None,
) -> list[Prediction] | None:
    """Ask what the store lacks, and export the run once all of it is there.

    Args:
        questions: the same in every process.
        responder: who answers.
        folder: of results; one folder holds any number of runs.
        batch_size: questions at a time, of like length.
        notes: what the run's manifest is to say besides, e.g. which part of a plan it is.

    Returns:
        All answers in the order of the questions. In a launch of several processes the first waits for the others and
        returns them; the others return None.

    Raises:
        ValueError: for two questions with one id, a batch size below 1, or a folder with damaged files.
        StoreError: if another process asks a paid responder in this folder, or nothing can be written to it.
        ImageError, OSError: for a picture that cannot be read.
    """
    _check(questions, batch_size)
    rank, count = share_of_process()
    if responder.is_paid:  # one process asks, as many questions at a time as the endpoint takes
        if rank:
            return None
        count = 1
    access = ExclusiveAccess(folder, f"run-{responder.run}") if responder.is_paid else nullcontext()
    with access, Store(folder, STORE, Prediction.check) as store:
        # 1. Name every answer by its content; this process takes every count-th question.
        keys = [make_key(question, responder) for question in questions]
        own = list(zip(keys, questions, strict=True))[rank::count]
        missing = [(key, question) for key, question in own if key not in store]

        # 2. Say what is run, then ask what is missing; a batch is on the disk before the next one is asked.
        if missing:
            require_writable(folder)
        if rank == 0:
            _record_run(folder, responder, len(questions), notes)
        done = len(own) - len(missing)
        with tqdm(total=len(own), initial=done, unit="answer", desc=responder.name) as bar:
            for batch in _make_batches(missing, batch_size):
                if responder.is_paid:  # each answer is on the disk as soon as it is there
                    key_of = {question.id: key for key, question in batch}
                    for prediction in responder.answer_each([question for _, question in batch]):
                        store.put(key_of[prediction.question_id], prediction.to_dict())
                        bar.update()
                    continue
                predictions = _answer_batch([question for _, question in batch], responder)
                keyed = zip(batch, predictions, strict=True)
                store.put_all({key: prediction.to_dict() for (key, _), prediction in keyed})
                bar.update(len(batch))

        # 3. The first process waits for the others, and exports the answers in the order of the questions.
        if rank:
            return None
        store.wait_for(keys)
        found = [Prediction.from_dict(store[key], responder.settings) for key in keys]
    answers = [replace(answer, system=responder.name) for answer in found]  # a run may have had another name
    _record_run(folder, responder, len(questions), notes)  # again: another launch may have written meanwhile
    lines = []
    for question, answer in pair_up(questions, answers):
        about = {"question": question.text, "reference": question.reference, "kind": question.kind}
        about |= {"tags": dict(question.tags), **answer.to_dict(), "words": answer.words}
        lines.append(about)
    write_lines(folder / f"answers-{responder.run}.jsonl", lines)
    return answers


def answer_all(questions: Sequence[Question], responder: Responder, batch_size: int = 32) -> list[Prediction]:
    """Answer questions in memory, e.g. between two stages of training, and return the answers in their order.

    Raises:
        ValueError: for two questions with one id, or a batch size below 1.
    """
    _check(questions, batch_size)
    found: dict[str, Prediction] = {}
    for batch in _make_batches([(question.id, question) for question in questions], batch_size):
        asked = [question for _, question in batch]
        found |= {prediction.question_id: prediction for prediction in _answer_batch(asked, responder)}
    return [found[question.id] for question in questions]


def make_key(question: Question, responder: Responder) -> str:
    """Hash question id, text, bytes of the picture, model and settings."""
    picture = hash_picture(question.image)
    return content_key(question.id, question.text, picture, responder.model, responder.settings)


def hash_picture(image: Any) -> str | list[str] | None:
    """Compute SHA-256 of a picture's bytes: a file's as they are, an array's or Pillow image's with shape and type.

    Raises:
        TypeError: for what is no picture.
        OSError: for a file that cannot be read.
    """
    if image is None:
        return None
    if isinstance(image, list | tuple):
        return [hash_picture(one) for one in image]
    if isinstance(image, str | os.PathLike):
        with open_file(image) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    if isinstance(image, bytes | bytearray | memoryview):
        content = bytes(image)
    elif isinstance(image, np.ndarray):
        content = f"{image.dtype} {image.shape} ".encode() + np.ascontiguousarray(image).tobytes()
    elif isinstance(image, Image.Image):
        content = f"{image.mode} {image.size} ".encode() + image.tobytes()
    else:
        raise TypeError(
            f"{type(image).__name__} is not a picture; give a path, bytes, an array or a Pillow image"
        )
    return hashlib.sha256(content).hexdigest()


def _answer_batch(questions: Sequence[Question], responder: Responder) -> list[Prediction]:
    """Answer one batch, and note how long it took and how many shared it."""
    began = time.perf_counter()
    predictions = responder.answer(questions)
    seconds = (time.perf_counter() - began) / len(questions)
    return [replace(prediction, seconds=seconds, batch=len(questions)) for prediction in predictions]


def _make_batches(
    keyed: Sequence[tuple[str, Question]], batch_size: int
) -> Iterator[list[tuple[str, Question]]]:
    """Cut questions into batches alike in length, so that they pad little; questions with pictures first."""
    ordered = sorted(keyed, key=lambda pair: (pair[1].image is None, len(pair[1].text)))
    for start in range(0, len(ordered), batch_size):
        yield ordered[start : start + batch_size]


def _record_run(folder: Path, responder: Responder, questions: int, notes: Mapping[str, Any] | None) -> None:
    """Describe a run in the folder's manifest, which keeps what it says of others."""
    known = read_manifest(folder)
    about = {"name": responder.name, "questions": questions, **(notes or {})}
    if all(known.get(responder.run, {}).get(name) == value for name, value in about.items()):
        return
    settings = responder.settings
    manifest = make_manifest(settings, seed=settings.get("seed"), model=responder.network)
    manifest["model"] = dict(responder.model)
    replace_text(folder / MANIFEST, json.dumps({**known, responder.run: about | manifest}, indent=1) + "\n")


def _check(questions: Sequence[Question], batch_size: int) -> None:
    require_distinct(questions)
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; give 1 or more")

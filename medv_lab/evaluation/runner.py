"""Questions to a responder, answers to a results folder; nothing that was answered is asked again.

A results folder has
    shard-R.jsonl     one line an answer, on the disk as soon as it is known; R is the rank of the process
    answers-D.jsonl   all answers of one responder in the order of the questions, once they are complete
    manifest.json     versions, commit, model and settings of every responder; D is the digest of its identity

An answer's key is a hash of question, bytes of the picture, model hash and settings. Processes of one launch
(`accelerate launch`, `torchrun`: RANK and WORLD_SIZE) take turns by question, and the last one to end merges.
"""

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed
from PIL import Image
from tqdm import tqdm

from medv_lab.evaluation.responders import Query, Responder
from medv_lab.runtime import make_manifest
from medv_lab.store import (
    FolderLock,
    Journal,
    JournalError,
    is_held,
    read_holder,
    read_lines,
    replace_text,
)

MANIFEST = "manifest.json"
PATIENCE = timedelta(days=30)  # for other processes to end their shares


@dataclass(frozen=True)
class Answered:
    """One answer of a results folder.

    Attributes:
        key: hash of question, picture, model and settings.
        system: the responder's name and the digest of its identity.
        id, question, answer: texts.
        words: of the answer.
        seconds: wall time of its batch, shared equally by the batch's questions.
        passes: forward passes (NFE), None if unknown.
        batch: how many questions were answered together.
    """

    key: str
    system: str
    id: str
    question: str
    answer: str
    words: int
    seconds: float
    passes: int | None
    batch: int


@dataclass(frozen=True)
class Shard:
    """Which part of the questions a process answers: every `count`-th one, from `rank` on."""

    rank: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.count:
            raise ValueError(f"rank is {self.rank} of {self.count}; give 0 to {self.count - 1}")

    @classmethod
    def from_environment(cls) -> "Shard":
        """The shard that a launcher's RANK and WORLD_SIZE name; the whole without them."""
        return cls(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))


def answer_questions(
    queries: Sequence[Query],
    responder: Responder,
    folder: Path,
    *,
    batch_size: int = 8,
    shard: Shard | None = None,
    progress: bool = True,
) -> list[Answered] | None:
    """Ask what is missing, and merge.

    Args:
        queries: the questions, the same in every process.
        responder: who answers.
        folder: of results; one folder holds any number of responders.
        batch_size: questions at a time, of like length.
        shard: by default the launcher's.
        progress: show rate and time left on stderr.

    Returns:
        All answers in the order of the questions; None while other processes have yet to answer theirs.

    Raises:
        ValueError: for two questions with one id, a batch size below 1, or a folder with damaged files.
        JournalError: if another run writes to this folder.
        ImageError, OSError: for a picture that cannot be read.
    """
    twice = [name for name, count in Counter(query.id for query in queries).items() if count > 1]
    if twice:
        raise ValueError(f"{len(twice)} question ids come twice, the first is {twice[0]!r}; ids must differ")
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; give 1 or more")
    shard = shard or Shard.from_environment()
    name = f"shard-{shard.rank}"
    with FolderLock(folder, name, {"shards": shard.count}):
        _refuse_other_launches(folder, shard)
        keys = [make_key(query, responder.identity) for query in queries]
        if shard.rank == 0:
            _record(folder, responder, len(queries))
        with Journal(folder / f"{name}.jsonl") as journal:
            known = {answered.key for answered in _read_shards(folder)}
            own = list(zip(keys, queries, strict=True))[shard.rank :: shard.count]
            missing = [pair for pair in own if pair[0] not in known]
            _answer(missing, len(own), responder, journal, batch_size, progress)
        return _merge(folder, keys, digest_of(responder.identity))


def answer_together(
    queries: Sequence[Query],
    responder: Responder,
    folder: Path,
    *,
    batch_size: int = 8,
    progress: bool = True,
) -> list[Answered] | None:
    """As `answer_questions` in every process of a launch; the first waits for the others and has all answers.

    Returns:
        All answers in the first process, None in every other.
    """
    shard = Shard.from_environment()
    settings = {"batch_size": batch_size, "shard": shard, "progress": progress}
    answers = answer_questions(queries, responder, folder, **settings)
    if shard.count == 1:
        return answers
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo", timeout=PATIENCE)
    torch.distributed.barrier()
    return answer_questions(queries, responder, folder, **settings) if shard.rank == 0 else None


def read_answers(folder: Path) -> dict[str, list[Answered]]:
    """The complete answers of a results folder by system, each in the order of its questions.

    Raises:
        ValueError: if the folder has none.
    """
    files = sorted(folder.glob("answers-*.jsonl"))
    if not files:
        raise ValueError(f"{folder.name} has no answers-*.jsonl; give a results folder whose run has ended")
    answers = [[Answered(**line) for line in read_lines(file)] for file in files]
    return {part[0].system: part for part in answers if part}


def make_key(query: Query, identity: Mapping[str, Any]) -> str:
    """Hash of question id, text, bytes of the picture, model hash and settings."""
    return _hash([query.id, query.text, hash_picture(query.image), identity])


def digest_of(identity: Mapping[str, Any]) -> str:
    """Short digest of a responder's identity, as in file names."""
    return _hash(identity)[:12]


def hash_picture(image: Any) -> str | list[str] | None:
    """SHA-256 of a picture's bytes: a file's as they are, an array's or Pillow image's with shape and type.

    Raises:
        TypeError: for what is no picture.
        OSError: for a file that cannot be read.
    """
    if image is None:
        return None
    if isinstance(image, list | tuple):
        return [hash_picture(one) for one in image]
    if isinstance(image, str | os.PathLike):
        content = Path(image).read_bytes()
    elif isinstance(image, bytes | bytearray | memoryview):
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


def _answer(
    missing: Sequence[tuple[str, Query]],
    total: int,
    responder: Responder,
    journal: Journal,
    batch_size: int,
    progress: bool,
) -> None:
    system = f"{responder.name} {digest_of(responder.identity)}"
    # Alike in length, so that a batch pads little.
    ordered = sorted(missing, key=lambda pair: (pair[1].image is None, len(pair[1].text)))
    with tqdm(
        total=total, initial=total - len(missing), unit="answer", desc=responder.name, disable=not progress
    ) as bar:
        for start in range(0, len(ordered), batch_size):
            batch = ordered[start : start + batch_size]
            began = time.perf_counter()
            replies = responder.answer([query for _, query in batch])
            seconds = (time.perf_counter() - began) / len(batch)
            for (key, query), reply in zip(batch, replies, strict=True):
                answered = Answered(
                    key=key,
                    system=system,
                    id=query.id,
                    question=query.text,
                    answer=reply.text,
                    words=len(reply.text.split()),
                    seconds=seconds,
                    passes=reply.passes,
                    batch=len(batch),
                )
                journal.append(vars(answered))
            bar.update(len(batch))


def _merge(folder: Path, keys: Sequence[str], digest: str) -> list[Answered] | None:
    """Write the answers in order, if all are there; every process may, since all write the same."""
    by_key = {answered.key: answered for answered in _read_shards(folder)}
    if not by_key.keys() >= set(keys):
        return None
    answers = [by_key[key] for key in keys]
    lines = [json.dumps(vars(answered), ensure_ascii=False) + "\n" for answered in answers]
    replace_text(folder / f"answers-{digest}.jsonl", "".join(lines))
    return answers


def _read_shards(folder: Path) -> Iterable[Answered]:
    for file in sorted(folder.glob("shard-*.jsonl")):
        yield from (Answered(**line) for line in read_lines(file))


def _record(folder: Path, responder: Responder, questions: int) -> None:
    path = folder / MANIFEST
    systems = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    identity = responder.identity
    manifest = make_manifest(
        identity["settings"], seed=identity["settings"].get("seed"), model=identity["model"]
    )
    about = {"name": responder.name, "questions": questions}
    replace_text(path, json.dumps({**systems, digest_of(identity): about | manifest}, indent=1) + "\n")


def _refuse_other_launches(folder: Path, shard: Shard) -> None:
    """Processes of one launch agree on how many they are; one that does not belongs to another run."""
    for lock in folder.glob(".shard-*.lock"):
        name = lock.name.removeprefix(".").removesuffix(".lock")
        if name == f"shard-{shard.rank}" or not is_held(folder, name):
            continue
        holder = read_holder(folder, name)
        if holder.get("shards", shard.count) != shard.count:
            raise JournalError(
                f"another run (process {holder['pid']}, {holder['shards']} processes) is writing to {folder.name}; "
                "wait until it ends, or give this run a folder of its own"
            )


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()

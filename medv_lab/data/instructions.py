"""Instruction data of LLaVA's kind: {id, image, conversations: [{from, value}]}, read as a stream.

The rules are those of the published training code: `<image>` in a message marks where a picture goes, a text-only
row has no `image`, several pictures come as a list, ids may be missing, and the misspelt key `conversatons` of
some released files is read too. Texts are not trimmed. A single `<image>` may stand anywhere in its message: it is
moved to the front when the dialogue is encoded. Knows no tokenizer and opens no picture.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from medv_lab.data.rows import SURROGATE, Damage, Fault, damage, mapping_of, read_rows
from medv_lab.records import Question

IMAGE_TOKEN = "<image>"
ROLES = {"user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant"}
CONVERSATION_KEYS = ("conversations", "conversatons")
SPECIAL_TOKEN = re.compile(r"<\|\w+\|>")


@dataclass(frozen=True)
class Dialogue:
    """One training dialogue.

    Attributes:
        id: the row's name, "" where it has none.
        images: names of its pictures, relative to a folder of images; empty for text alone.
        turns: (role, text) in order, as `encode_dialogue` takes them; roles as in the file.
    """

    id: str
    images: tuple[str, ...]
    turns: tuple[tuple[str, str], ...]


def read_dialogues(path: str | Path) -> Iterator[Dialogue]:
    """Read a JSON list or JSON Lines of instruction rows, one at a time.

    Raises:
        ValueError: for a broken row, or a file of another layout.
        FileNotFoundError: if there is no such file.
    """
    for number, value in read_rows(path):
        damages = damages_of(value, number)
        if damages:
            raise ValueError(
                f"{str(path)!r}: {damages[0]}. `medv data check` lists every broken row of a file"
            )
        yield to_dialogue(value)


def damages_of(value: Any, number: int) -> list[Damage]:
    """Return everything that is wrong with one row of `read_rows` by itself; nothing for a whole row."""
    if isinstance(value, Damage):
        return [value]
    name = _id_of(value) if isinstance(value, Mapping) else ""
    return [damage(number, name, fault) for fault in find_faults(value)]


def find_faults(row: Any) -> list[Fault]:
    """Return the faults of a row's shape, turns and image placeholders; pictures are not looked at."""
    try:
        messages = _messages(mapping_of(row))
    except Fault as fault:
        return [fault]
    if not isinstance(messages, list):
        kind = "no conversation" if messages is None else "wrong type"
        found = f"the row has {', '.join(sorted(row)) or 'nothing'}" if messages is None else "it is no list"
        return [Fault(kind, found, "give conversations: [{from, value}, ...]")]
    if not messages:
        return [Fault("empty conversation", "conversations is []", "add a question and an answer")]
    faults = [*_field_faults(row), *_message_faults(messages)]
    return faults or [*_order_faults(messages), *_placeholder_faults(row, messages)]


def to_dialogue(row: Mapping[str, Any]) -> Dialogue:
    """Return the dialogue of a row in which `find_faults` found nothing."""
    turns = tuple((message["from"], message["value"]) for message in _messages(row))
    return Dialogue(_id_of(row), _images(row), turns)


def from_question(question: Question, images: str | Path) -> Dialogue:
    """Return a question and its reference answer as a dialogue of one exchange, to train on.

    Args:
        question: from any reader of a data set, whose image is a path.
        images: folder that the dialogue's picture is named relative to.

    Raises:
        ValueError: if the question's picture is not in that folder.
    """
    name = question.image.relative_to(images).as_posix()
    turns = (("human", f"{IMAGE_TOKEN}\n{question.text}"), ("gpt", question.reference))
    return Dialogue(question.id, (name,), turns)


def _id_of(row: Mapping[str, Any]) -> str:
    return "" if row.get("id") is None else str(row["id"])


def _messages(row: Mapping[str, Any]) -> Any:
    return next((row[key] for key in CONVERSATION_KEYS if key in row), None)


def _images(row: Mapping[str, Any]) -> tuple[str, ...]:
    image = row.get("image")
    if image is None:
        return ()
    return (image,) if isinstance(image, str) else tuple(image)


def _field_faults(row: Mapping[str, Any]) -> Iterator[Fault]:
    if isinstance(row.get("id"), bool) or not isinstance(row.get("id"), str | int | None):
        yield Fault(
            "wrong type", f"id is {row['id']!r:.40}", "give a text or a whole number, or leave it out"
        )
    image = row.get("image")
    names = image if isinstance(image, list) else [image] if image is not None else []
    if not all(isinstance(name, str) and name for name in names):
        yield Fault("wrong type", f"image is {image!r:.60}", "give a path or a list of paths")


def _message_faults(messages: list[Any]) -> Iterator[Fault]:
    for number, message in enumerate(messages, 1):
        if not isinstance(message, Mapping) or not {"from", "value"} <= message.keys():
            yield Fault("wrong type", f"message {number} is {message!r:.60}", "give {from, value}")
            continue
        role, text = message["from"], message["value"]
        if not isinstance(role, str) or role not in ROLES:
            yield Fault(
                "unknown role", f"message {number} is from {role!r}", f"allowed are {', '.join(ROLES)}"
            )
            continue
        if not isinstance(text, str) or SURROGATE.search(text):
            yield Fault("not text", f"message {number} has the value {text!r:.60}", "give a text")
            continue
        speaker = "answer" if ROLES[role] == "assistant" else "question"
        if not text.strip():
            yield Fault(f"empty {speaker}", f"message {number} is {text!r:.20}", "write it, or take it out")
        if speaker == "answer" and IMAGE_TOKEN in text:
            yield Fault(
                "placeholder in an answer", f"message {number} has {IMAGE_TOKEN}", "put it into a question"
            )
        if token := SPECIAL_TOKEN.search(text):
            remedy = "take it out: it would be read as the end of a turn, a mask or the like"
            yield Fault("special token", f"message {number} has {token.group()}", remedy)


def _order_faults(messages: list[Mapping[str, str]]) -> Iterator[Fault]:
    speakers = [ROLES[message["from"]] for message in messages]
    if speakers[0] != "user":
        remedy = "put a question before it: training skips an answer that nobody asked for"
        yield Fault("no question first", "the first message is an answer", remedy)
    for number, (speaker, following) in enumerate(pairwise(speakers), 1):
        if speaker == following:
            found = f"messages {number} and {number + 1} are both from {messages[number]['from']}"
            yield Fault("repeated role", found, "join them, or add what is missing between them")
    if speakers[-1] == "user":
        remedy = "add the answer, or drop the question"
        yield Fault("no answer last", "the last question has no answer", remedy)


def _placeholder_faults(row: Mapping[str, Any], messages: list[Mapping[str, str]]) -> Iterator[Fault]:
    images = _images(row)
    placeholders = sum(message["value"].count(IMAGE_TOKEN) for message in messages)
    if placeholders == len(images):
        return
    found = f"{placeholders} {IMAGE_TOKEN} for {len(images)} image(s)"
    if not images:
        yield Fault("placeholder without an image", found, f"name the image, or take {IMAGE_TOKEN} out")
    elif not placeholders:
        yield Fault("no placeholder", found, f"put {IMAGE_TOKEN} into the first question")
    elif len(images) == 1:
        yield Fault("several placeholders for one image", found, "leave one of them")
    else:
        yield Fault("placeholders and images differ", found, "give every image one placeholder")

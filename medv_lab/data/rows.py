"""Rows of data files as a stream, the questions made of them, and what is wrong with those that cannot be used.

A file is a JSON list or JSON Lines; which of the two is read from its first character, so the name does not
matter. Only one row is in memory at a time. Nothing is dropped silently: a row that is broken comes as a
`Damage`, and a `Reading` of a benchmark holds its questions and its broken rows.
"""

import os
import re
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import ijson

from medv_lab.limits import DepthGuard, LimitError, open_file, parse_json
from medv_lab.records import Question

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
HEAD_LENGTH = TAIL_LENGTH = 4096  # bytes that tell the two layouts apart, and a cut list from a damaged one
SURROGATE = re.compile(
    "[\ud800-\udfff]"
)  # JSON can hold half of a pair, which no tokenizer and no file takes
Row = tuple[
    int, Any
]  # number, from 1, and value: parsed JSON, or the `Damage` that kept it from being parsed


class Fault(ValueError):
    """One thing wrong with a row: its kind, what was found, and what to do."""

    def __init__(self, kind: str, what: str, remedy: str) -> None:
        """Keep the three texts; the message joins them."""
        super().__init__(f"{kind}: {what}; {remedy}")
        self.kind, self.what, self.remedy = kind, what, remedy


@dataclass(frozen=True)
class Damage:
    """A fault, and the row that has it.

    Attributes:
        row: from 1; the line in JSON Lines, the number of the item in a list.
        id: the row's own name, "" where it has none.
        kind: one of few short texts, to count by.
        what, remedy: what was found, and what to do.
    """

    row: int
    id: str
    kind: str
    what: str
    remedy: str

    def __str__(self) -> str:
        name = f" (id {self.id})" if self.id else ""
        return f"row {self.row}{name}: {self.kind}: {self.what}; {self.remedy}"


@dataclass(frozen=True)
class Reading:
    """All usable rows of a file or folder as questions, and all others with what is wrong with them."""

    questions: tuple[Question, ...]
    broken: tuple[Damage, ...]


def damage(number: int, name: str, fault: Fault) -> Damage:
    """Return a fault with the row that it was found in."""
    return Damage(number, name, fault.kind, fault.what, fault.remedy)


def read_rows(path: str | Path) -> Iterator[Row]:
    """Read a JSON list or JSON Lines row by row, in constant memory.

    A line that is not JSON is one damaged row, and reading goes on after it; a JSON list cannot be read past
    the first such error, so it ends with a damaged row. Empty lines are counted and otherwise skipped.

    Args:
        path: a UTF-8 file whose first character is `[` (a list) or `{` (JSON Lines).

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it begins in another way, or is empty.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{str(path)!r} is not a file; give the path of a .json or .jsonl file")
    with open_file(path) as file:
        head = file.read(HEAD_LENGTH)
        file.seek(len(BYTE_ORDER_MARK) if head.startswith(BYTE_ORDER_MARK) else 0)
        first = head.removeprefix(BYTE_ORDER_MARK).lstrip()[:1]
        if first not in (b"[", b"{"):
            found = f"begins with {head[:20]!r}" if head else "is empty"
            raise ValueError(
                f"{str(path)!r} {found}; allowed are a JSON list, which begins with '[', and JSON Lines, whose "
                "lines begin with '{'. Pickles are never opened, since opening one runs code"
            )
        yield from _read_list(file) if first == b"[" else _read_lines(file)


def _read_list(file: BinaryIO) -> Iterator[Row]:
    number = 0
    try:
        for number, value in enumerate(ijson.items(DepthGuard(file), "item", use_float=True), 1):
            yield number, value
    except LimitError as error:
        remedy = "write it flatter; the rows after it were not read"
        yield (
            number + 1,
            damage(number + 1, "", Fault("nested too deep", f"here or soon after, {error}", remedy)),
        )
    except (ijson.JSONError, ValueError) as error:
        reason = " ".join(str(error).split("\n")[0].split())
        file.seek(max(file.seek(0, os.SEEK_END) - TAIL_LENGTH, 0))
        if file.read().rstrip().endswith(b"]"):
            fault = Fault(
                "not JSON",
                f"the list cannot be read from here on ({reason})",
                "correct this row; the rows after it were not read",
            )
        else:
            fault = _truncated(f"the file ends before its list does ({reason})")
        yield number + 1, damage(number + 1, "", fault)


def _read_lines(file: BinaryIO) -> Iterator[Row]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            yield number, parse_json(line)
        except LimitError as error:
            fault = Fault(
                "nested too deep or too long", f"the line cannot be read ({error})", "write it anew"
            )
            yield number, damage(number, "", fault)
        except ValueError as error:
            fault = Fault("not JSON", f"the line cannot be read ({error})", "write one object per line")
            if not line.endswith(b"\n"):
                fault = _truncated(f"the last line is cut off ({error})")
            yield number, damage(number, "", fault)


def _truncated(what: str) -> Fault:
    return Fault("truncated JSON", what, "copy or download the file again")


def read_questions(
    rows: Iterable[Row], make: Callable[[Mapping[str, Any]], Question], id_key: str, need_images: bool
) -> Reading:
    """Make questions of rows; a row that cannot become one is reported as a damage, and a warning says so.

    Args:
        rows: from `read_rows`.
        make: returns a row's question, or raises `Fault`.
        id_key: the field that names a row in damages.
        need_images: if true, a picture that does not exist is a damage.
    """
    questions: list[Question] = []
    broken: list[Damage] = []
    first_rows: dict[str, int] = {}
    is_there = cache(os.path.isfile)  # many questions share a picture, and asking the file system is slow

    def make_whole(value: Any, number: int) -> Question:
        question = make(mapping_of(value))
        check_id(question.id, number, first_rows)
        if need_images and not is_there(question.image):
            what = f"there is no {question.image}"
            raise Fault("missing image", what, "put it there, or read the texts alone with need_images=False")
        return question

    for number, value in rows:
        if isinstance(value, Damage):
            broken.append(value)
            continue
        try:
            questions.append(make_whole(value, number))
        except Fault as fault:
            name = str(value.get(id_key, "")) if isinstance(value, Mapping) else ""
            broken.append(damage(number, name, fault))
    if broken:
        warnings.warn(
            f"{len(broken)} of the rows are broken and not among the {len(questions)} questions: see reading.broken. "
            f"The first: {broken[0]}",
            stacklevel=3,
        )
    return Reading(tuple(questions), tuple(broken))


def join(readings: Iterable[Reading]) -> Reading:
    """Join several readings to one; damages keep the row numbers of their own files."""
    parts = list(readings)
    return Reading(
        tuple(question for part in parts for question in part.questions),
        tuple(one for part in parts for one in part.broken),
    )


def mapping_of(value: Any) -> Mapping[str, Any]:
    """Return a row, which must be an object, else raise `Fault`."""
    if not isinstance(value, Mapping):
        raise Fault("not an object", f"the row is {value!r:.40}", "write an object {...} for every row")
    return value


def check_id(name: str, number: int, first_rows: dict[str, int]) -> None:
    """Note in which row an id came first; raise `Fault` if that is another one."""
    first = first_rows.setdefault(name, number)
    if first != number:
        raise Fault("duplicate id", f"row {first} has it too", "give every row an id of its own")


def text_of(row: Mapping[str, Any], key: str) -> str:
    """Return a row's text, trimmed; whole numbers count as text, since some answers are numbers.

    Raises:
        Fault: if it is missing, empty, or of another type.
    """
    if key not in row:
        raise Fault("missing field", f"there is no {key!r} among {sorted(row)[:20]}", f"add {key!r}")
    value = row[key]
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise Fault("wrong type", f"{key} is {value!r:.60} ({type(value).__name__})", "give a text")
    text = str(value).strip()
    if half := SURROGATE.search(text):
        raise Fault(
            "not text", f"{key} holds {half.group()!a}, half of a character", "write whole characters"
        )
    if not text:
        raise Fault(f"empty {key}", f"{key} is {value!r}", "write the text, or take the row out")
    return text


def choice_of(row: Mapping[str, Any], key: str, allowed: Collection[str]) -> str:
    """Return which of a few a row's text is; case and blanks do not count, and a warning says what was matched so.

    Raises:
        Fault: as `text_of`, or for a text outside `allowed`.
    """
    value = text_of(row, key)
    if value in allowed:
        return value
    match = next((one for one in allowed if _plain(one) == _plain(value)), None)
    if match is None:
        raise Fault(f"unknown {key}", f"{key} is {value!r:.60}", f"allowed are {', '.join(allowed)}")
    warnings.warn(f"{key} {value!r} was read as {match!r}", stacklevel=2)
    return match


def _plain(text: str) -> str:
    return "".join(text.split()).casefold()


def image_in(folder: Path, name: str) -> Path:
    """Return the path of a picture in a folder.

    Raises:
        Fault: if the name leads out of the folder.
    """
    path = Path(name)
    if path.is_absolute() or ".." in path.parts:
        raise Fault(
            "image outside the folder", f"the image is {name!r}", "give a path relative to the image folder"
        )
    return folder / path

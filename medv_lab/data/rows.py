"""Rows of data files as a stream, and what is wrong with those that cannot be used.

A file is a JSON list or JSON Lines; which of the two is read from its first character, so the name does not
matter. Only one row is in memory at a time. Nothing is dropped silently: a row that is broken comes as a
`Damage`, and a reader that holds all its rows gives both in a `Reading`.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO, Generic, NamedTuple, TypeVar

import ijson
import pandas as pd

Record = TypeVar("Record")

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
HEAD_LENGTH = 4096  # bytes looked at to tell the two layouts apart
TAIL_LENGTH = 4096  # bytes looked at to tell a cut list from a damaged one


class Fault(ValueError):
    """One thing wrong with a row: its kind, what was found, and what to do."""

    def __init__(self, kind: str, what: str, remedy: str) -> None:
        """Keep the three texts; the message joins them."""
        super().__init__(f"{kind}: {what}; {remedy}")
        self.kind, self.what, self.remedy = kind, what, remedy


@dataclass(frozen=True)
class Damage:
    """A fault and where it is.

    Attributes:
        row: from 1; the line in JSON Lines, the place in a list.
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


class Row(NamedTuple):
    """A row's number, from 1, and its value: parsed JSON, or the `Damage` that kept it from being parsed."""

    number: int
    value: Any


@dataclass(frozen=True)
class Reading(Generic[Record]):
    """All usable rows of a file or folder, and all others with what is wrong with them."""

    records: tuple[Record, ...]
    broken: tuple[Damage, ...]


def damage(number: int, name: str, fault: Fault) -> Damage:
    """A fault with the row that it was found in."""
    return Damage(number, name, fault.kind, fault.what, fault.remedy)


def damage_table(damages: tuple[Damage, ...] | list[Damage]) -> pd.DataFrame:
    """One line for every damage: row, id, kind, what, remedy."""
    return pd.DataFrame([asdict(one) for one in damages], columns=[field.name for field in fields(Damage)])


def read_rows(path: str | Path) -> Iterator[Row]:
    """Read a JSON list or JSON Lines row by row, in constant memory.

    A line that is not JSON is one damaged row, and reading goes on behind it; a JSON list cannot be read behind
    the first such place, so it ends with a damaged row. Empty lines are counted and otherwise passed over.

    Args:
        path: a UTF-8 file whose first character is `[` (a list) or `{` (JSON Lines).

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it begins in another way, or is empty.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{str(path)!r} is not a file; give the path of a .json or .jsonl file")
    with path.open("rb") as file:
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
        for number, value in enumerate(ijson.items(file, "item", use_float=True), 1):
            yield Row(number, value)
    except (ijson.JSONError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split("\n")[0].split())
        if _ends_with_bracket(file):
            fault = Fault(
                "not JSON",
                f"the list cannot be read from here on ({reason})",
                "mend this row; the rows behind it were not looked at",
            )
        else:
            fault = Fault(
                "truncated JSON",
                f"the file ends before its list does ({reason})",
                "copy or download the file again",
            )
        yield Row(number + 1, damage(number + 1, "", fault))


def _ends_with_bracket(file: BinaryIO) -> bool:
    size = file.seek(0, 2)
    file.seek(max(size - TAIL_LENGTH, 0))
    return file.read().rstrip().endswith(b"]")


def _read_lines(file: BinaryIO) -> Iterator[Row]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            yield Row(number, json.loads(line))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            if line.endswith(b"\n"):
                fault = Fault("not JSON", f"the line cannot be read ({error})", "write one object a line")
            else:
                fault = Fault(
                    "truncated JSON", f"the last line is cut off ({error})", "copy or download the file again"
                )
            yield Row(number, damage(number, "", fault))

"""Folders of Hugging Face `datasets` on disk, read as tables: Parquet snapshots and what `save_to_disk` writes.

Tables are read a few rows at a time through pyarrow (the extra `tables`), and the pictures inside them are written out
once, each under the hash of its bytes, so that everything after this module knows plain picture files only.

The `datasets` library is not used. It would save few lines; left to find the splits of a folder, it takes
`validate-*.parquet` for training data and refuses a snapshot with a loading script beside its tables.
"""

import hashlib
import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from medv_lab.data.releases import LANGUAGES, SPLIT_FILES, kind_of_type, question_of
from medv_lab.data.rows import Fault, Reading, Row, choice_of, image_in, join, read_questions, text_of
from medv_lab.limits import LimitError, open_file, parse_json, read_file
from medv_lab.records import Question

BATCH_ROWS = 4  # a cell may be a whole picture, and one that is stored once may stand in every row
MAX_EXPANSION, MAX_RATIO = 64_000_000, 20  # bytes of a Parquet file when unpacked, whichever allows more
SUFFIXES = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg"}
LANGUAGE_KEYS = ("q_lang", "language")
ID_KEYS = ("qid", "question_id", "id")
TAG_KEYS = {"organ": ("location", "image_organ", "organ"), "modality": ("modality",)}


def is_hugging_face(folder: Path) -> bool:
    """Return True if a folder has Parquet files of splits, or was written by `save_to_disk`."""
    return bool(_tables(folder))


def read_hugging_face(dataset: str, folder: Path, pictures: Path, need_images: bool) -> Reading:
    """Read the splits of a folder.

    The columns image, question and answer are needed; answer_type (without it, questions answered by yes or no are
    closed), q_lang (language), an id, organ (location, image_organ) and modality are read where they are there.

    Args:
        dataset: the name that questions are tagged with.
        folder: `[data/]{split}-*.parquet`, or `dataset_dict.json` and a folder of Arrow files for each split.
        pictures: folder that pictures inside the tables are written to; made if need be.
        need_images: if true, a picture that a table only names, and that does not exist, makes its row broken.

    Raises:
        ModuleNotFoundError: without pyarrow.
        ValueError: for a table that is damaged or incomplete.
    """

    def make(row: Mapping[str, Any], split: str) -> Question:
        tags = {name: _first(row, keys) for name, keys in TAG_KEYS.items()}
        language = next((key for key in LANGUAGE_KEYS if row.get(key) is not None), None)
        if language is not None:
            tags["language"] = choice_of(row, language, LANGUAGES)
        tags = {name: text_of({name: tag}, name) for name, tag in tags.items() if tag is not None}
        image = _picture(row.get("image"), folder, pictures)
        kind = "" if row.get("answer_type") is None else kind_of_type(row)
        return question_of(row, dataset, split, image, "id", kind, **tags)

    return join(
        read_questions(_rows(files), partial(make, split=split), "id", need_images)
        for split, files in _tables(folder).items()
    )


def _tables(folder: Path) -> dict[str, list[Path]]:
    """Return the files of every split, in order."""
    found: dict[str, list[Path]] = {}
    for split, names in SPLIT_FILES.items():
        for name in names:
            parquet = sorted(folder.glob(f"{name}-*.parquet")) + sorted(folder.glob(f"data/{name}-*.parquet"))
            state = folder / name / "state.json"
            if parquet:
                found.setdefault(split, parquet)
            elif state.is_file():
                found.setdefault(split, _listed_files(state))
    return found


def _listed_files(state: Path) -> list[Path]:
    """Return the Arrow files that a split's `state.json` names."""
    try:
        listed = parse_json(read_file(state))["_data_files"]
        return [state.parent / Path(file["filename"]).name for file in listed]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{str(state)!r} is no list of the split's Arrow files ({error!r:.200}); copy or download it again"
        ) from error


def _rows(files: list[Path]) -> Iterator[Row]:
    values = (value for file in files for batch in _batches(file) for value in batch)
    for number, value in enumerate(values, 1):
        named = _first(value, ID_KEYS)
        yield number, {**value, "id": number if named is None else named}


def _first(row: Mapping[str, Any], keys: Iterable[str]) -> Any:
    return next((row[key] for key in keys if row.get(key) is not None), None)


def _batches(file: Path) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of a Parquet file or of an Arrow stream, a few at a time."""
    try:
        import pyarrow.ipc
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "folders of Hugging Face datasets need pyarrow; install it with `pip install 'medv-lab[tables]'`"
        ) from error
    try:
        open_file(file).close()
        if file.suffix == ".parquet":
            with pyarrow.parquet.ParquetFile(file) as table:
                _check_expansion(table.metadata, file.stat().st_size)
                for batch in table.iter_batches(batch_size=BATCH_ROWS):
                    yield batch.to_pylist()
            return
        with pyarrow.memory_map(str(file)) as source:
            _check_compression(pyarrow.ipc.MessageReader.open_stream(source))
        with pyarrow.memory_map(str(file)) as source, pyarrow.ipc.open_stream(source) as batches:
            for batch in batches:
                for start in range(0, batch.num_rows, BATCH_ROWS):
                    yield batch.slice(start, BATCH_ROWS).to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise ValueError(
            f"{str(file)!r} cannot be read as a table ({error}); copy or download it again"
        ) from error


def _check_expansion(metadata: Any, size: int) -> None:
    """Refuse a Parquet file of so many bytes that unpacks to many times as much; pictures, which fill it, do not."""
    expanded = sum(metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups))
    if expanded > max(MAX_EXPANSION, MAX_RATIO * size):
        raise LimitError(
            f"its {size} bytes unpack to {expanded}; {MAX_RATIO} times as many, or {MAX_EXPANSION}, are the most"
        )


def _check_compression(messages: Iterable[Any]) -> None:
    """Refuse an Arrow stream with compressed batches, which pyarrow unpacks whole; `datasets` writes none."""
    for message in messages:
        if message.type == "schema":
            continue
        try:
            is_compressed = _is_compressed(message.metadata.to_pybytes(), message.type == "dictionary")
        except struct.error as error:
            raise ValueError(f"a {message.type} is damaged: {error}") from error
        if is_compressed:
            raise LimitError("its batches are compressed; save it again uncompressed, or as Parquet")


def _is_compressed(message: bytes, is_dictionary: bool) -> bool:
    """Return True if a message of a batch says that its body is compressed.

    A message is a FlatBuffers table whose third field is the batch (of a dictionary its second), whose fourth field is
    there if it is compressed. Arrow 0.17 said so in a text instead.
    """

    def field(table: int, number: int) -> int:
        """Return the table that a field of another leads to, 0 without one."""
        fields = table - struct.unpack_from("<i", message, table)[0]
        is_there = 4 + 2 * number < struct.unpack_from("<H", message, fields)[0]
        place = struct.unpack_from("<H", message, fields + 4 + 2 * number)[0] if is_there else 0
        return place and table + place + struct.unpack_from("<I", message, table + place)[0]

    batch = field(struct.unpack_from("<I", message)[0], 2)
    if is_dictionary:
        batch = field(batch, 1)
    return bool(field(batch, 3)) or b"ARROW:experimental_compression" in message


def _picture(value: Any, folder: Path, pictures: Path) -> Path:
    """Return the path of a row's picture, written out if it came as bytes."""
    name = value.get("path") if isinstance(value, Mapping) else value
    content = value.get("bytes") if isinstance(value, Mapping) else None
    if isinstance(content, bytes) and content:
        suffix = next((end for start, end in SUFFIXES.items() if content.startswith(start)), "")
        path = pictures / f"{hashlib.sha256(content).hexdigest()[:32]}{suffix}"
        if not path.exists():
            pictures.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_name(f"{path.name}.{os.getpid()}.unfinished")
            unfinished.write_bytes(content)
            unfinished.replace(path)
        return path
    if not isinstance(name, str) or not name:
        raise Fault("missing image", f"image is {value!r:.60}", "give a picture's bytes or its path")
    return image_in(folder, name)

"""Make figures and tables that are not up to date, and remember what each was made from.

`manifest.json` in the folder of the figures has, for every exhibit, a hash of all that it was made from (input files,
the rows shown, drawing code, versions of the drawing libraries) and hashes of its files. What still has both is left
alone.
"""

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd

import medv_lab
from medv_lab.paper.exhibits import Exhibit, MissingResults
from medv_lab.store import replace_text

MANIFEST = "manifest.json"
PRESETS = {"embedded": ("results", "figures"), "full": ("results/full", "figures/full")}
_PACKAGE = Path(medv_lab.__file__).parent
_LIBRARIES = ("matplotlib", "numpy", "pandas", "pillow", "seaborn")
_DRAWING_IMPORT = re.compile(r"^\s*from medv_lab\.((?:paper|views)[.\w]*) import", re.MULTILINE)


@dataclass
class Drawn:
    """What a run did.

    Attributes:
        drawn, kept: names of exhibits made, and left alone.
        missing: name to what results it lacks.
    """

    drawn: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)


def results_folder(preset: str) -> Path:
    """Where measured results of a preset lie, from the present folder.

    Raises:
        ValueError: for another preset.
    """
    return Path(_folders(preset)[0])


def figures_folder(preset: str) -> Path:
    """Where figures of a preset are drawn to, from the present folder.

    Raises:
        ValueError: for another preset.
    """
    return Path(_folders(preset)[1])


def draw_exhibits(
    exhibits: Sequence[Exhibit], results: Path, folder: Path, report: Callable[[str], None] = lambda _: None
) -> Drawn:
    """Make what is not up to date.

    Args:
        exhibits: what is wanted.
        results: folder of measured results.
        folder: of the figures.
        report: told one line an exhibit that is made or cannot be.
    """
    done = Drawn()
    records = _read_manifest(folder)
    for number, exhibit in enumerate(exhibits, 1):
        place = f"[{number}/{len(exhibits)}] {exhibit.name}"
        try:
            data = exhibit.collect(results)
        except MissingResults as error:
            done.missing[exhibit.name] = str(error)
            report(f"{place}: not drawn, {error}")
            continue
        made_from = hash_sources(exhibit, data, results)
        if _is_up_to_date(records.get(exhibit.name), made_from, exhibit.output_files(folder)):
            done.kept.append(exhibit.name)
            continue
        report(f"{place}: drawing")
        exhibit.write(data, results, folder)
        files = {path.name: _hash(path.read_bytes()) for path in exhibit.output_files(folder)}
        records[exhibit.name] = {"made_from": made_from, "files": files}
        done.drawn.append(exhibit.name)
        replace_text(folder / MANIFEST, json.dumps(records, indent=1, sort_keys=True) + "\n")
    return done


def hash_sources(exhibit: Exhibit, data: pd.DataFrame, results: Path) -> str:
    """Hash of all that an exhibit is made from."""
    parts = [
        exhibit.name,
        exhibit.title,
        exhibit.caption,
        data.to_csv(index=False),
        _hash_code(),
        *_versions(),
    ]
    parts += [
        f"{path.relative_to(results).as_posix()} {_hash(path.read_bytes())}"
        for path in exhibit.input_files(results)
    ]
    return _hash("\n".join(parts).encode())


@cache
def _hash_code() -> str:
    """Hash of the drawing code: the modules of this room, and those of `views` that they import."""
    waiting = sorted((_PACKAGE / "paper").glob("*.py"))
    seen: dict[str, str] = {}
    while waiting:
        path = waiting.pop()
        name = path.relative_to(_PACKAGE).as_posix()
        if name in seen:
            continue
        text = path.read_text(encoding="utf-8")
        seen[name] = _hash(text.encode())
        named = (_PACKAGE / f"{module.replace('.', '/')}.py" for module in _DRAWING_IMPORT.findall(text))
        waiting += [other for other in named if other.is_file()]
    return _hash(json.dumps(seen, sort_keys=True).encode())


def _versions() -> list[str]:
    return [f"{name} {metadata.version(name)}" for name in _LIBRARIES]


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _is_up_to_date(record: dict[str, Any] | None, made_from: str, files: Sequence[Path]) -> bool:
    if record is None or record["made_from"] != made_from:
        return False
    return all(
        path.is_file() and record["files"].get(path.name) == _hash(path.read_bytes()) for path in files
    )


def _folders(preset: str) -> tuple[str, str]:
    if preset not in PRESETS:
        raise ValueError(f"preset is {preset!r}; allowed are {', '.join(PRESETS)}")
    return PRESETS[preset]


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()

"""Checks of a whole instruction file before a long run: every broken row at once, and a summary.

Beyond what `instructions.find_faults` sees in one row, pictures are looked for (and opened when asked), ids and
lengths are compared. The length of a dialogue depends on a tokenizer and a model's image settings, which are
not known here: a function returns it. Memory grows by one id and a few numbers per row, and one entry per picture.
"""

from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from medv_lab.data.images import ImageError, open_image
from medv_lab.data.instructions import ROLES, Dialogue, damages_of, to_dialogue
from medv_lab.data.rows import Damage, Fault, damage, damage_table, image_in, is_file, read_rows

Size = tuple[int, int]  # (width, height)
LengthOf = Callable[[Dialogue, tuple[Size, ...]], int]  # (dialogue, sizes of its pictures) -> positions


@dataclass(frozen=True)
class Report:
    """Contents of an instruction file, and its damages.

    Attributes:
        rows: number of rows, whole or broken.
        damages: everything found; a row can have several.
        images: number of different pictures that are named.
        lengths: quantity -> one number for every row that is whole by itself.
    """

    rows: int
    damages: tuple[Damage, ...]
    images: int
    lengths: dict[str, array] = field(repr=False)

    @property
    def broken_rows(self) -> int:
        """Number of rows with at least one damage."""
        return len({one.row for one in self.damages})

    def counts(self) -> pd.Series:
        """Return the number of damages by kind, most first."""
        found = Counter(one.kind for one in self.damages)
        return pd.Series(dict(found.most_common()), name="damages", dtype=int)

    def table(self) -> pd.DataFrame:
        """Return every damage: row, id, kind, what, remedy."""
        return damage_table(self.damages)

    def summary(self) -> pd.DataFrame:
        """Return least, median, mean, 95th percentile, most and sum of each quantity, over rows whole by themselves."""
        measured = {name: np.asarray(values) for name, values in self.lengths.items() if len(values)}
        return pd.DataFrame(
            {
                name: {
                    "rows": len(values),
                    "least": values.min(),
                    "median": np.median(values),
                    "mean": values.mean(),
                    "95 %": np.quantile(values, 0.95),
                    "most": values.max(),
                    "sum": values.sum(),
                }
                for name, values in measured.items()
            }
        ).T


def check_instructions(
    path: str | Path,
    images: str | Path,
    *,
    open_images: bool = False,
    length_of: LengthOf | None = None,
    max_length: int | None = None,
) -> Report:
    """Read a whole instruction file and report all that would break or harm a training run.

    Args:
        path: JSON list or JSON Lines of {id, image, conversations}.
        images: folder that image names are relative to.
        open_images: if true, decode every picture, which takes much longer than looking for its file.
        length_of: number of sequence positions of a dialogue with its images in; needs `open_images`, for their sizes.
        max_length: longest dialogue that training does not cut; needs `length_of`.

    Raises:
        FileNotFoundError: if the file or the folder is not there.
        ValueError: for a file of another layout, or arguments that do not go together.
    """
    folder = Path(images)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{str(folder)!r} is no folder; give the folder that image names are relative to"
        )
    if length_of is not None and not open_images:
        raise ValueError("length_of needs the sizes of pictures; give open_images=True too")
    if (max_length is None) != (length_of is None):
        raise ValueError("max_length and length_of are given together, or neither is")

    rows = 0
    damages: list[Damage] = []
    first_rows: dict[str, int] = {}
    pictures = _Pictures(folder, open_images)
    lengths = {name: array("q") for name in ("turns", "images", "question characters", "answer characters")}
    if length_of is not None:
        lengths["positions"] = array("q")

    for number, value in read_rows(path):
        rows += 1
        found = damages_of(value, number)
        if found:
            damages += found
            continue
        dialogue = to_dialogue(value)
        for name, amount in _measure(dialogue).items():
            lengths[name].append(amount)
        faults = []
        if dialogue.id and first_rows.setdefault(dialogue.id, number) != number:
            faults.append(
                Fault(
                    "duplicate id",
                    f"row {first_rows[dialogue.id]} has it too",
                    "give every row its own, or drop one",
                )
            )
        image_faults = pictures.look(dialogue)
        faults += image_faults
        if length_of is not None and not image_faults:
            positions = length_of(dialogue, tuple(pictures.sizes[name] for name in dialogue.images))
            lengths["positions"].append(positions)
            if positions > max_length:
                faults.append(
                    Fault(
                        "too long",
                        f"{positions} positions with the images in; {max_length} are allowed",
                        "shorten or split it: training would cut its end off",
                    )
                )
        damages += [damage(number, dialogue.id, fault) for fault in faults]
    return Report(rows, tuple(damages), len(pictures.faults), lengths)


class _Pictures:
    """Pictures that were looked at, each once: what was wrong with it, and its size."""

    def __init__(self, folder: Path, is_opening: bool) -> None:
        self.folder = folder
        self.is_opening = is_opening
        self.faults: dict[str, Fault | None] = {}
        self.sizes: dict[str, Size] = {}

    def look(self, dialogue: Dialogue) -> list[Fault]:
        """Return the faults of a dialogue's pictures."""
        for name in dialogue.images:
            if name not in self.faults:
                self.faults[name] = self._look(name)
        return [fault for name in dialogue.images if (fault := self.faults[name]) is not None]

    def _look(self, name: str) -> Fault | None:
        try:
            path = image_in(self.folder, name)
        except Fault as fault:
            return fault
        if not is_file(path):
            return Fault(
                "missing image", f"there is no {str(path)[:200]}", "put it there, or take the row out"
            )
        if self.is_opening:
            try:
                self.sizes[name] = open_image(path).size
            except ImageError as error:
                return Fault("unreadable image", str(error), "replace the picture, or take the row out")
        return None


def _measure(dialogue: Dialogue) -> dict[str, int]:
    said = Counter()
    for role, text in dialogue.turns:
        said[ROLES[role]] += len(text)
    return {
        "turns": len(dialogue.turns),
        "images": len(dialogue.images),
        "question characters": said["user"],
        "answer characters": said["assistant"],
    }

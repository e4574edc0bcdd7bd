"""Checks of a whole instruction file before a long run: every broken row at once, and a summary.

Beyond what `instructions.find_faults` sees in one row, pictures are looked for (and opened when asked), ids and
lengths are compared. The length of a dialogue depends on a tokenizer and a model's image settings, which are
not known here: a function returns it. Memory grows by one id and a few numbers per row, and one entry per picture.
"""

import os
from array import array
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from medv_lab.data.images import ImageError, open_image
from medv_lab.data.instructions import ROLES, Dialogue, damages_of, to_dialogue
from medv_lab.data.rows import Damage, Fault, check_id, damage, image_in, read_rows

Size = tuple[int, int]  # (width, height)
LengthOf = Callable[[Dialogue, tuple[Size, ...]], int]  # (dialogue, sizes of its pictures) -> positions
STATISTICS = {  # pandas' names: ours
    **{"count": "rows", "min": "least", "50%": "median", "mean": "mean"},
    **{"95%": "95 %", "max": "most", "sum": "sum"},
}


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
        return self.table().kind.value_counts()

    def table(self) -> pd.DataFrame:
        """Return every damage: row, id, kind, what, remedy."""
        return pd.DataFrame(map(asdict, self.damages), columns=[one.name for one in fields(Damage)])

    def summary(self) -> pd.DataFrame:
        """Return least, median, mean, 95th percentile, most and sum of each quantity, over rows whole by themselves."""
        table = pd.DataFrame(
            {name: pd.Series(np.array(own, float)) for name, own in self.lengths.items() if own}
        )
        if table.empty:
            return table
        found = table.describe(percentiles=[0.5, 0.95]).T.assign(sum=table.sum())
        return found[list(STATISTICS)].rename(columns=STATISTICS)


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
        length_of: number of sequence positions of a dialogue with its images in; opens pictures, for their sizes.
        max_length: longest dialogue that training does not cut, by `length_of`; None for no limit.

    Raises:
        FileNotFoundError: if the file or the folder is not there.
        ValueError: for a file of another layout.
    """
    folder = Path(images)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{str(folder)!r} is no folder; give the folder that image names are relative to"
        )

    @cache  # every picture is looked at once
    def look(name: str) -> Size | Fault | None:
        try:
            path = image_in(folder, name)
            if not os.path.isfile(path):
                return Fault(
                    "missing image", f"there is no {str(path)[:200]}", "put it there, or take the row out"
                )
            return open_image(path).size if open_images or length_of else None
        except Fault as fault:
            return fault
        except ImageError as error:
            return Fault("unreadable image", str(error), "replace the picture, or take the row out")

    rows = 0
    damages: list[Damage] = []
    first_rows: dict[str, int] = {}
    names = ("turns", "images", "question characters", "answer characters", "positions")
    lengths = {name: array("q") for name in names}
    for number, value in read_rows(path):
        rows += 1
        found = damages_of(value, number)
        if found:
            damages += found
            continue
        dialogue = to_dialogue(value)
        lengths["turns"].append(len(dialogue.turns))
        lengths["images"].append(len(dialogue.images))
        for role, speaker in (("user", "question"), ("assistant", "answer")):
            count = sum(len(text) for said_by, text in dialogue.turns if ROLES[said_by] == role)
            lengths[f"{speaker} characters"].append(count)
        faults = []
        try:
            if dialogue.id:
                check_id(dialogue.id, number, first_rows)
        except Fault as fault:
            faults.append(fault)
        sizes = [look(name) for name in dialogue.images]
        faults += [one for one in sizes if isinstance(one, Fault)]
        if length_of and not any(isinstance(one, Fault) for one in sizes):
            positions = length_of(dialogue, tuple(sizes))
            lengths["positions"].append(positions)
            if max_length is not None and positions > max_length:
                what = f"{positions} positions with the images in; {max_length} are allowed"
                faults.append(Fault("too long", what, "shorten or split it: training would cut its end off"))
        damages += [damage(number, dialogue.id, fault) for fault in faults]
    return Report(rows, tuple(damages), look.cache_info().currsize, lengths)

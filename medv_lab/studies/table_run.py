"""Settings of the tables on phantoms, apart from what measures and scores them: the command line reads them at once."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TableRun:
    """Amounts of what is asked.

    Attributes:
        pictures: of the open-ended benchmark (Tables 1 and 3), a multiple of 5.
        rounds: of balanced questions in each VQA benchmark (Table 2).
        steps: Z of Table 3, the most first; Table 1 uses the first.
    """

    pictures: int = 30
    rounds: int = 4
    steps: tuple[int, ...] = (96, 48, 24, 12, 6)

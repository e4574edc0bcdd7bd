"""What the columns of the paper's tables mean: header, kind, unit, and which way is better.

`TABLE_COLUMNS` declares every column of every published table; reading one holds the file to it.
"""

from dataclasses import dataclass

RELATIVE = "mean of candidate / reference judge scores x 100"
RECALL = "token recall, percent"
ACCURACY = "accuracy, percent"


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        name: in the CSV file.
        header: in print.
        kind: "text" for names, "key" for whole numbers that say which run a row is, "count" for whole numbers,
            "number" for measurements.
        better: "high", "low", or "" where neither is.
        digits: decimals in print, as in the paper.
        meaning: definition and unit, for captions.
    """

    name: str
    header: str
    kind: str = "number"
    better: str = ""
    digits: int = 3
    meaning: str = ""

    @property
    def is_number(self) -> bool:
        """Whether cells are numbers."""
        return self.kind != "text"


def _score(name: str, header: str, meaning: str = RELATIVE, digits: int = 3) -> Column:
    return Column(name, header, better="high", digits=digits, meaning=meaning)


def _text(name: str, header: str) -> Column:
    return Column(name, header, "text")


def _key(name: str, header: str, meaning: str) -> Column:
    return Column(name, header, "key", digits=0, meaning=meaning)


_MODEL = _text("model", "model")
_LENGTHS = (
    _key("L", "L", "generation length"),
    _key("B", "B", "block length"),
    _key("Z", "Z", "sampling steps"),
)
_RUNS = ("alignment", "md_sft", "sd_sft_vqa_rad", "sd_sft_slake", "sd_sft_pathvqa")

TABLE_COLUMNS: dict[int, tuple[Column, ...]] = {
    1: (
        _MODEL,
        _score("conversation", "conversation"),
        _score("description", "description"),
        _score("cxr", "CXR"),
        _score("mri", "MRI"),
        _score("histology", "histology"),
        _score("gross", "gross"),
        _score("ct", "CT"),
        _score("overall", "overall"),
    ),
    2: (
        _MODEL,
        _score("vqa_rad_open", "VQA-RAD open", RECALL, 2),
        _score("vqa_rad_closed", "VQA-RAD closed", ACCURACY, 2),
        _score("slake_open", "SLAKE open", RECALL, 2),
        _score("slake_closed", "SLAKE closed", ACCURACY, 2),
        _score("pathvqa_open", "PathVQA open", RECALL, 2),
        _score("pathvqa_closed", "PathVQA closed", ACCURACY, 2),
    ),
    3: (
        _MODEL,
        Column("seconds_per_question", "s / question", better="low", meaning="wall time"),
        Column("words_per_question", "words / question", meaning="length of an answer"),
        Column("seconds_per_word", "s / word", better="low", meaning="wall time over words"),
        _key("sampling_steps", "Z", "sampling steps; none for models that write from left to right"),
        _score("overall", "overall"),
    ),
    4: (
        _MODEL,
        _score("open_ended_overall", "open-ended"),
        _score("vqa_rad_open", "VQA-RAD open", RECALL, 2),
        _score("vqa_rad_closed", "VQA-RAD closed", ACCURACY, 2),
        _score("slake_open", "SLAKE open", RECALL, 2),
        _score("slake_closed", "SLAKE closed", ACCURACY, 2),
    ),
    5: (
        _text("group", "group"),
        _text("varied", "varied"),
        *_LENGTHS,
        _key("steps_per_block", "Z B / L", "steps a block"),
        _score("overall", "overall"),
    ),
    6: (_text("setting", "setting"), *(_text(name, name.replace("_", " ")) for name in _RUNS)),
    8: (
        _text("dataset", "dataset"),
        _text("split", "split"),
        *(
            Column(name, name.replace("_", " "), "count", digits=0, meaning=meaning)
            for name, meaning in (
                ("images", "pictures that questions are about"),
                ("question_answer_pairs", "questions"),
                ("closed_form", "yes / no and choice questions"),
                ("open_form", "other questions"),
            )
        ),
    ),
}

"""The two scores that a language model writes for two answers, read wherever only one reading is possible.

A prompt asks for "8 9" on a line of its own; models write "8/10 9/10", "8, 9", "**8** **9**" or "Scores: 8 9", too.
`metrics.scoring.parse_scores` is the strict reader of LLaVA-Med's files.
"""

import re

from medv_lab.evaluation.judges import HIGHEST, LOWEST

_MARKUP = str.maketrans("", "", "*_`#>[]()\"'{}")
_NAME = r"(?:assistant|answer|response|model)"
_LABEL = re.compile(
    rf"\b(?:(?:scores?|ratings?)(?:\s+(?:for|of)\s+{_NAME})?|{_NAME})\s*#?([12ab])?\s*[:=]", re.I
)
_SCORE = r"([0-9]{1,2}(?:\.[0-9]{1,4})?)(?:\s*/\s*10|\s+out\s+of\s+10)?"
_BETWEEN = r"(?:\s*[,;|&]\s*|\s+and\s+|\s+)"
_ONE = re.compile(rf"\s*{_SCORE}\s*[.,;]?\s*", re.I)
_TWO = re.compile(rf"\s*{_SCORE}{_BETWEEN}{_SCORE}\s*\.?\s*", re.I)


def read_scores(reply: str) -> tuple[float, float] | None:
    """Read both scores in the order in which they stand, or None if a reply does not begin with two from 1 to 10.

    They stand on the first line that is not empty, with nothing beside them but labels and markup, or on the first two
    lines, one on each. One number, three numbers, a scale other than 10, or a range have no single reading.
    """
    lines = [line.translate(_MARKUP) for line in reply.splitlines()[:20]]
    lines = [line for line in lines if line.strip()]
    bare = [_LABEL.sub(" ", line) for line in lines]
    scores, used = None, 1
    if lines and (both := _TWO.fullmatch(bare[0])):
        scores = both.groups()
    elif len(lines) > 1:
        singles = [match[1] for match in map(_ONE.fullmatch, bare[:3]) if match]
        is_pair = len(singles) == 2 and _ONE.fullmatch(bare[0]) and _ONE.fullmatch(bare[1])
        scores, used = singles if is_pair else None, 2
    named = "".join(name.lower() for line in lines[:used] for name in _LABEL.findall(line))
    if scores is None or named not in ("", "12", "ab"):
        return None
    first, second = map(float, scores)
    return (first, second) if min(first, second) >= LOWEST and max(first, second) <= HIGHEST else None

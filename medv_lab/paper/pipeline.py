"""Table 4 of the paper (training pipelines) beside the ablations of the small world: do the differences agree?

Published are scores of 8-billion-parameter models in a judge's points, measured are scores of 2-million-parameter
ones on phantoms: only the direction of a difference can be compared.
"""

import pandas as pd

from medv_lab.paper.published import load_table

ROWS = {"LLaVA-Med*": "twin", "LLaDA-MedV*": "ours", "LLaDA-MedV V1": "V1", "LLaDA-MedV V2": "V2"}
"""Row of Table 4 to the arm that stands for it."""
COMPARISONS = (
    ("LLaDA-MedV*", "LLaVA-Med*"),
    ("LLaDA-MedV V1", "LLaDA-MedV*"),
    ("LLaDA-MedV V2", "LLaDA-MedV*"),
    ("LLaDA-MedV V2", "LLaDA-MedV V1"),
)
TIE = 1.0  # points of the published score; a smaller difference is called none
PUBLISHED_SCORE = "open_ended_overall"


def compare_with_published(differences: pd.DataFrame, score: str) -> pd.DataFrame:
    """Each difference of Table 4 beside the measured one, and whether their directions agree.

    Args:
        differences: columns arm, base, equal, score, mean, low, high, as `training.ablations.compare_arms` gives them,
            for every base that is needed.
        score: the measured score.

    Returns:
        Columns difference, published, equal, measured, low, high, verdict. The verdict is "agrees", "disagrees", or
        "undecided" where the interval holds both directions; a published tie is agreed with by an interval that holds
        0. Comparisons that were not measured are left out.
    """
    table = load_table(4).set_index("model")[PUBLISHED_SCORE]
    rows = []
    for one, other in COMPARISONS:
        published = table[one] - table[other]
        own = differences[
            (differences.arm == ROWS[one]) & (differences.base == ROWS[other]) & (differences.score == score)
        ]
        for found in own.itertuples():
            rows.append(
                {
                    "difference": f"{ROWS[one]} - {ROWS[other]}",
                    "published": published,
                    "equal": found.equal,
                    "measured": found.mean,
                    "low": found.low,
                    "high": found.high,
                    "verdict": judge(published, found.low, found.high),
                }
            )
    columns = ["difference", "published", "equal", "measured", "low", "high", "verdict"]
    return pd.DataFrame(rows, columns=columns)


def judge(published: float, low: float, high: float) -> str:
    """Whether a measured interval agrees with a published difference: "agrees", "disagrees" or "undecided"."""
    is_open = not (low > 0 or high < 0)  # of NaN too: one seed has no interval
    if abs(published) < TIE:
        return "undecided" if low != low else "agrees" if is_open else "disagrees"
    if is_open:
        return "undecided"
    return "agrees" if (low > 0) == (published > 0) else "disagrees"

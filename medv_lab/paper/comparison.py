"""Tables 1 to 6 and 8: published rows, and ours below them; do the differences of Table 4 agree with ours?"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import pandas as pd

from medv_lab.paper.exhibits import Exhibit, MissingResults
from medv_lab.paper.measured import (
    BENCHMARKS,
    counted_data,
    measured_inference,
    measured_open_ended,
    measured_pipelines,
    measured_steps,
    measured_vqa,
    own_recipes,
)
from medv_lab.paper.published import (
    ACCURACY,
    RECALL,
    RELATIVE,
    TABLE_COLUMNS,
    TABLES,
    Column,
    load_table,
    published_source,
)
from medv_lab.paper.typeset import to_latex, to_markdown

PHANTOM_COLUMNS = tuple(
    Column(f"{name}_{kind}", f"{name} {kind}", better="high", digits=1, meaning=meaning)
    for name in BENCHMARKS
    for kind, meaning in (("open", RECALL), ("closed", ACCURACY))
)

ABLATION_COLUMNS = (
    Column("seeds", "seeds", "whole"),
    Column("facts", "facts", better="high", digits=1, meaning="fact score, percent"),
    Column("phantoms_open", "phantoms open", better="high", digits=1, meaning=RECALL),
    Column("phantoms_closed", "phantoms closed", better="high", digits=1, meaning=ACCURACY),
)

# Row of Table 4: the arm that stands for it. Published are scores of 8-billion-parameter models in a judge's points,
# measured are scores of 2-million-parameter ones on phantoms: only the direction of a difference can be compared.
ARM_OF_ROW = {"LLaVA-Med*": "twin", "LLaDA-MedV*": "ours", "LLaDA-MedV V1": "V1", "LLaDA-MedV V2": "V2"}
DIFFERENCES_OF_TABLE_4 = (
    ("LLaVA-Med*", "LLaDA-MedV*"),
    ("LLaDA-MedV V1", "LLaDA-MedV*"),
    ("LLaDA-MedV V2", "LLaDA-MedV*"),
    ("LLaDA-MedV V2", "LLaDA-MedV V1"),
)
TIE = 1.0  # points of the published score; a smaller difference is called none
PUBLISHED_SCORE = "open_ended_overall"
COMPARED = ("open", "closed", "facts")


def collect_table(
    number: int,
    columns: Sequence[Column],
    measure: Callable[[Path], pd.DataFrame],
    keys: Sequence[str],
    results: Path,
) -> pd.DataFrame:
    """Collect published rows, then measured ones; a measured column's interval follows the columns of the table.

    Args:
        number: of the table.
        columns: in print.
        measure: results folder to measured rows.
        keys: columns by which a measured row is put behind its published one; none puts all behind all.
        results: folder of measured results.
    """
    data = load_table(number).assign(source=published_source(number))
    with suppress(MissingResults):  # the published rows stand alone then, and the printed table says so
        data = pd.concat([data, measure(results)], ignore_index=True)
    if keys:
        groups = data.groupby(list(keys), sort=False).ngroup()
        data = data.loc[groups.sort_values(kind="stable").index].reset_index(drop=True)
    names = [column.name for column in columns]
    bounds = [f"{name}{end}" for name in names for end in ("_low", "_high") if f"{name}{end}" in data]
    whole = {column.name: "Int64" for column in columns if column.kind == "whole"}
    return data.reindex(columns=[*names, *bounds, "source"]).astype(whole)


def _table(
    number: int,
    title: str,
    caption: str,
    measure: Callable[[Path], pd.DataFrame],
    added: Sequence[Column] = (),
    keys: Sequence[str] = (),
) -> Exhibit:
    """Make an exhibit of a published table and what is measured beside it; `added` columns only ours have."""
    columns, numbered = (*TABLE_COLUMNS[number], *added), f"Table {number}. {caption}"
    label = TABLES[number].partition("_")[2].replace("_", "-")

    def draw(data: pd.DataFrame, results: Path) -> tuple[str, str]:
        return to_markdown(data, columns, numbered), to_latex(data, columns, caption, label)

    collect = partial(collect_table, number, columns, measure, keys)
    return Exhibit(TABLES[number], title, numbered, collect, draw, "table")


_ARMS = "ours, twin, V1 and V2 have the shorter training of the ablations, one seed."

PAPER_TABLES = (
    _table(
        1,
        "Open-ended biomedical conversation",
        "Relative scores in percent of the reference's, as published (judge: GPT-4.1 mini), and those of "
        "our systems on phantoms (judge: phantom facts; 95 % intervals over questions), below them controls of "
        f"descriptions. The two share no scale; {_ARMS}",
        measured_open_ended,
    ),
    _table(
        2,
        "Downstream visual question answering",
        "Open questions by token recall and closed ones by accuracy, percent, as published on three data "
        "sets, and ours on phantoms with 95 % intervals. In strict rows a closed answer must say yes or no as a whole "
        f"word, and not both; the control says both to everything; {_ARMS}",
        measured_vqa,
        PHANTOM_COLUMNS,
    ),
    _table(
        3,
        "Length and time of answers",
        "Seconds and words per question at falling numbers of steps Z: as published at L = 256, B = 64, and "
        "ours at L = 96, B = 32 on phantoms, one question at a time on one CPU core, scored by the judge that knows "
        f"the facts; of descriptions alone too, below them their controls; {_ARMS}",
        measured_steps,
        (Column("description", "description", better="high", meaning=RELATIVE),),
    ),
    _table(
        4,
        "Training pipelines",
        "Initialisations and stages as published, and the training ablations on phantoms: means with "
        "95 % intervals over seeds and questions, arms equal in steps and in compute. The twin stands where LLaVA-Med "
        "does.",
        measured_pipelines,
        ABLATION_COLUMNS,
    ),
    _table(
        5,
        "Inference settings",
        "L, Z or B varied as published (open-ended score), and of our descriptions of phantoms (fact "
        "score from 0 to 1, 95 % intervals over questions), and below them of controls.",
        measured_inference,
        (Column("fact_score", "fact score", better="high", meaning="F1 of facts"),),
    ),
    _table(
        6,
        "Training set-up",
        "Hyper-parameters of every stage as published, and those that made the embedded checkpoint.",
        own_recipes,
        keys=("setting",),
    ),
    _table(
        8,
        "Dataset statistics",
        "Statistics of the VQA data sets as published, and as our readers count them in the released files "
        "that were at hand; pictures are counted where questions name them.",
        counted_data,
        keys=("dataset", "split"),
    ),
)


def compare_with_published(differences: pd.DataFrame, score: str) -> pd.DataFrame:
    """Set each difference of Table 4 beside the measured one, and whether their directions agree.

    Args:
        differences: columns arm, base, equal, score, mean, low, high, as `studies.ablation_grid.compare_arms` gives
            them.
        score: the measured score.

    Returns:
        Columns difference, published, equal, measured, low, high, verdict. The verdict is "agrees", "disagrees", or
        "undecided" where the interval holds both directions; a published tie is agreed with by an interval that holds
        0. Comparisons that were not measured are left out.
    """
    table = load_table(4).set_index("model")[PUBLISHED_SCORE]
    rows = []
    for one, other in DIFFERENCES_OF_TABLE_4:
        arm, base, published = ARM_OF_ROW[one], ARM_OF_ROW[other], table[one] - table[other]
        is_own = (differences.arm == arm) & (differences.base == base) & (differences.score == score)
        for own in differences[is_own].itertuples():
            verdict = judge(published, own.low, own.high)
            rows.append((f"{arm} - {base}", published, own.equal, own.mean, own.low, own.high, verdict))
    columns = ["difference", "published", "equal", "measured", "low", "high", "verdict"]
    return pd.DataFrame(rows, columns=columns)


def state_agreement(differences: pd.DataFrame) -> list[str]:
    """Say whether the ablations agree with Table 4, and whether few pictures turn the comparison with the twin.

    Args:
        differences: as `compare_with_published` takes them.

    Returns:
        Lines of Markdown; every word about a direction follows from an interval.
    """
    verdicts = pd.concat([compare_with_published(differences, one).assign(score=one) for one in COMPARED])
    counts = {name: int((verdicts.verdict == name).sum()) for name in ("agrees", "disagrees", "undecided")}
    lines = [
        f"Of {len(verdicts)} comparisons with Table 4, {counts['agrees']} agree, {counts['disagrees']} disagree and "
        f"{counts['undecided']} are undecided:"
    ]
    for name, own in verdicts.groupby("difference", sort=False):
        cases = {f"{row.score} (equal {row.equal})": row.verdict for row in own.itertuples()}
        lines.append(f"- {name} (published {own.published.iloc[0]:+.1f}): {_group_cases(cases)}.")

    # the two regimes of data
    leads = {}
    for arm, base, pictures in (("twin", "ours", "plenty of"), ("twin-few", "ours-few", "few")):
        is_own = (differences.arm == arm) & (differences.base == base) & (differences.equal == "steps")
        own = differences[is_own & differences.score.isin(COMPARED)]
        signs = {row.score: (row.low > 0) - (row.high < 0) for row in own.itertuples()}
        words = {1: f"{arm} ahead", -1: f"{base} ahead", 0: "undecided"}
        if signs:
            leads[arm] = signs
            cases = {score: words[sign] for score, sign in signs.items()}
            lines.append(f"- {arm} against {base}, {pictures} pictures: {_group_cases(cases)}.")
    if len(leads) == 2:
        turned = [one for one, sign in leads["twin"].items() if sign * leads["twin-few"].get(one, 0) < 0]
        lines.append(f"- Few pictures turn who is ahead in: {', '.join(turned) or 'none of them'}.")
    return lines


def _group_cases(cases: Mapping[str, str]) -> str:
    """Write cases behind what they have in common: "agrees: a, b; undecided: c", "agrees in all 3"."""
    groups: dict[str, list[str]] = {}
    for case, verdict in cases.items():
        groups.setdefault(verdict, []).append(case)
    if len(groups) == 1 and len(cases) > 1:
        return f"{next(iter(groups))} in all {len(cases)}"
    return "; ".join(f"{verdict}: {', '.join(own)}" for verdict, own in groups.items())


def judge(published: float, low: float, high: float) -> str:
    """Judge a published difference by a measured interval: "agrees", "disagrees" or "undecided"."""
    is_open = not (low > 0 or high < 0)  # of NaN too: one seed has no interval
    if abs(published) < TIE:
        return "undecided" if low != low else "agrees" if is_open else "disagrees"
    if is_open:
        return "undecided"
    return "agrees" if (low > 0) == (published > 0) else "disagrees"

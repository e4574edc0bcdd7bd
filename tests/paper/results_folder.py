"""Results as the measuring commands write them, with made-up numbers."""

import json
from pathlib import Path

import pandas as pd

from medv_lab.phantoms.reports import CONTROLS

GROUPS = (
    *("all", "conversation", "detailed_description"),
    *("chest x-ray", "abdominal ct", "brain mri", "histology", "gross pathology"),
)


def write(path: Path, rows: list[dict]) -> pd.DataFrame:
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame(rows)
    frame.to_csv(path, index=False)
    return frame


def interval(value: float) -> dict[str, float]:
    return {"estimate": value, "low": value - 1, "high": value + 2}


def write_table1(results: Path) -> pd.DataFrame:
    rows = [
        {"system": system, "judge": judge, "group": group, **interval(10.0 * rank + number)}
        for number, system in enumerate(("diffusion", "twin"))
        for judge in ("phantom facts", "word overlap")
        for rank, group in enumerate(GROUPS, 1)
    ]
    rows += [
        {"system": name, "judge": judge, "group": "detailed_description", **interval(100.0)}
        for name in CONTROLS
        for judge in ("phantom facts", "word overlap")
    ]
    return write(results / "table1" / "scores.csv", rows)


def write_table2(results: Path) -> pd.DataFrame:
    rows = [
        {"system": "diffusion", "benchmark": benchmark, "kind": kind, **interval(20.0 + rank)}
        for rank, benchmark in enumerate(("radiology", "tissue", "compositional"))
        for kind in ("open", "closed")
    ]
    return write(results / "table2" / "scores.csv", rows)


def write_table3(results: Path) -> pd.DataFrame:
    quantities = ("seconds_per_question", "words_per_question", "passes_per_question", "relative")
    rows = [
        {
            "system": system,
            "steps": steps,
            "group": group,
            "quantity": name,
            **interval(float(steps or 1) + rank),
        }
        for system, steps in (("diffusion", 96), ("diffusion", 6), ("twin", None))
        for group in ("all", "conversation", "detailed_description")
        for rank, name in enumerate(quantities)
    ]
    of_control = {"steps": None, "group": "detailed_description"}
    rows += [
        {"system": control, **of_control, "quantity": name, **interval(100.0)}
        for control in CONTROLS
        for name in ("words_per_question", "relative")
    ]
    return write(results / "table3" / "scores.csv", rows)


def write_ablations(results: Path) -> pd.DataFrame:
    rows = [
        {"arm": arm, "equal": equal, "score": score, "seeds": 5, "mean": 3.0 + rank, "low": 2.0, "high": 9.0}
        | {"by_seed": "2 3 4 5 6"}
        for arm, equal in (("V1", "steps"), ("V1", "compute"), ("V2", "steps"))
        for rank, score in enumerate(("closed", "open", "facts", "duplicates"))
    ]
    differences = [{**row, "base": "ours"} for row in rows]
    write(results / "ablations" / "differences.csv", differences)
    return write(results / "ablations" / "table.csv", rows)


def write_study(results: Path, name: str, arms: dict[str, tuple[str, tuple[int, int, int]]]) -> pd.DataFrame:
    """Arms by name: group and (L, B, Z)."""
    rows = []
    for rank, (arm, (group, _)) in enumerate(arms.items()):
        row = {"arm": arm, "group": group, "questions": 9, "passes": 4.0 + rank, "seconds": 1.0 + rank}
        for measure in ("score", "recall", "adjacent_duplicates", "looped", "words"):
            value = 0.5 + 0.01 * rank
            row |= {measure: value, f"{measure}_low": value - 0.1, f"{measure}_high": value + 0.2}
        rows.append(row)
    names = ("gen_length", "block_length", "steps")
    settings = {
        arm: {"settings": dict(zip(names, lengths, strict=True))} for arm, (_, lengths) in arms.items()
    }
    frame = write(results / "studies" / name / "summary.csv", rows)
    controls = [
        {"control": control, "questions": 9, "score": 0.3, "score_low": 0.2, "score_high": 0.4}
        for control in CONTROLS
    ]
    write(results / "studies" / name / "controls.csv", controls)
    (results / "studies" / name / "manifest.json").write_text(json.dumps({"settings": {"arms": settings}}))
    return frame

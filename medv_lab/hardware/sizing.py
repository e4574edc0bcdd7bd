"""How long full-size work takes on how many GPUs: from measured seconds per pass, or from stated assumptions.

Evaluation is a product: questions x settings x passes x seconds per pass, shared out by question. Seconds per pass are
published (Table 3: an answer of 256 passes), measured here (`medv rehearse --trial`), or computed: floating point
operations / (peak x utilisation). Operations are 2 per weight and position forward, 4 backward of weights that learn
and 2 of weights that gradients only pass through, and 2 more where activations are computed again. Attention, data and
waiting for other GPUs are in the utilisation.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import pandas as pd

from medv_lab.model.checkpoint_files import PARAMETERS_LANGUAGE
from medv_lab.paper.published import load_table
from medv_lab.training.footprint import count_parameters, plan_memory
from medv_lab.training.recipes import PUBLISHED

HOUR = 3600


@dataclass(frozen=True)
class Assumptions:
    """What a plan takes for granted.

    Attributes:
        peak: floating point operations per second of a GPU in bfloat16: an A100 of 80 GB.
        utilisation: share of the peak that is reached in training.
        pass_utilisation: share of it in the passes of one answer at a time.
        questions: of the chatbot benchmark.
        settings: that each is answered in.
        passes: of an answer, the most that a setting of the paper has.
        positions: of a prompt with its picture, and its answer.
        dialogue: positions of a dialogue in training: a tile in alignment, several and the turns later.
    """

    peak: float = 312e12
    utilisation: float = 0.4
    pass_utilisation: float = 0.3
    questions: int = 193
    settings: int = 7
    passes: int = 256
    positions: int = 1256
    dialogue: tuple[int, int] = (800, 3000)


def plan_evaluation(
    results: Path | None = None,
    processes: Sequence[int] = (1, 4, 32),
    assumed: Assumptions = Assumptions(),
) -> pd.DataFrame:
    """Tabulate the hours of an evaluation by where its seconds per pass come from.

    Args:
        results: folder of trials of the 8B; None for none.
        processes: GPUs, or machines, that share the questions.
        assumed: the rest.

    Returns:
        `seconds_per_pass`, `source`, and `hours_N` for N processes: those of the one with the most questions.
    """
    published = load_table(3).set_index("model").loc["LLaDA-MedV-256"]
    rows = [("published, Table 3", published.seconds_per_question / published.sampling_steps)]
    operations = 2 * PARAMETERS_LANGUAGE * assumed.positions
    rows.append(
        (
            f"computed: {assumed.peak / 1e12:.0f} TFLOP/s at {assumed.pass_utilisation:.0%}",
            operations / (assumed.peak * assumed.pass_utilisation),
        )
    )
    for file in sorted(results.glob("8b-*.json")) if results is not None else ():
        trial = json.loads(file.read_text())
        machine = trial["machine"]
        where = f"{trial['precision']}, {machine['processor']}, {machine['threads']} threads, every position"
        rows.append((f"measured: {where}", trial["seconds_first_pass"]))
    table = pd.DataFrame(rows, columns=["source", "seconds_per_pass"])
    for count in processes:
        most = ceil(assumed.questions / count) * assumed.settings * assumed.passes
        table[f"hours_{count}"] = table["seconds_per_pass"] * most / HOUR
    return table


def plan_training(
    gpus: int = 4,
    assumed: Assumptions = Assumptions(),
) -> pd.DataFrame:
    """Tabulate the stages of Table 6: dialogues, positions, memory that a GPU keeps between steps, and hours.

    Returns:
        One row per stage: `dialogues` (of all epochs), `positions`, `gigabytes_ZeRO-3`, `gigabytes_FSDP2`, `hours`.
    """
    rows = {}
    for name, recipe in PUBLISHED.items():
        counts = count_parameters(recipe)
        learns, frozen = int(counts["trainable"].sum()), int(counts["frozen"].sum())
        positions = assumed.dialogue[name != "alignment"]
        dialogues = recipe.epochs * recipe.samples
        operations = (2 + 4 + 2) * learns + (2 + 2 + 2) * frozen  # forward, backward, forward again
        seconds = dialogues * positions * operations / (gpus * assumed.peak * assumed.utilisation)
        memory = plan_memory(counts, gpus)["total"] / 1e9
        rows[name] = {"dialogues": dialogues, "positions": positions}
        rows[name] |= {f"gigabytes_{engine}": kept for engine, kept in memory.items()}
        rows[name]["hours"] = seconds / HOUR
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("stage").reset_index()

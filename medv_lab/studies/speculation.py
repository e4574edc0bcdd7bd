"""Where lookahead pays: passes in sequence and seconds with states that are guessed and run ahead, and without.

On top of the dual cache with one prompt and one token per pass, where a pass computes fewest positions; a guessed state
costs a row of the batch, and saves a pass if the run comes to it. How often it does is the model's: random weights say
only what the rows cost.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from medv_lab.config import DualCache, GenerationSettings
from medv_lab.diffusion.sampler import sample
from medv_lab.diffusion.state import StepRecord
from medv_lab.studies.timing import Subject, device_clock

BLOCKS = (4, 8, 32)  # positions


def measure_lookahead(
    subject: Subject, settings: GenerationSettings, depths: tuple[int, ...], repeats: int = 3
) -> list[dict[str, Any]]:
    """Answer with every block length, number of threads (one, and all) and number of guessed states, taking turns.

    Args:
        subject: the model and its prompt.
        settings: of which the length is taken.
        depths: numbers of states that are guessed beside each pass.
        repeats: of each answer, after one of each to warm up.

    Returns:
        For each, JSON-able: block_length, threads, lookahead, passes, in_sequence (passes that waited for the one
        before), sequences (that the model ran), seconds and speedup (over no lookahead; medians over the repeats, the
        latter with speedup_range) and same_tokens.
    """
    length, most = settings.gen_length, torch.get_num_threads()
    rows = []
    for threads in sorted({1, most}):
        torch.set_num_threads(threads)
        try:
            for block in (one for one in BLOCKS if length % one == 0):
                base = replace(settings, block_length=block, steps=length, cache=DualCache())
                rows += [
                    {"block_length": block, "threads": threads, **row}
                    for row in _compare(subject, base, depths, repeats)
                ]
        finally:
            torch.set_num_threads(most)
    return rows


def _compare(
    subject: Subject, base: GenerationSettings, depths: tuple[int, ...], repeats: int
) -> list[dict[str, Any]]:
    clock = device_clock(subject.model.device)
    seconds: dict[int, list[float]] = {depth: [] for depth in (0, *depths)}
    last: dict[int, list[StepRecord]] = {}
    for _ in range(1 + repeats):
        for depth, spent in seconds.items():
            started = clock()
            run = sample(
                subject.model, subject.prefix_embeds, replace(base, lookahead=depth), **subject.known
            )
            last[depth] = list(run)
            spent.append(clock() - started)
    rows = []
    for depth in depths:
        ratios = np.array(seconds[0][1:]) / np.array(seconds[depth][1:])
        counts = [record.sequences for record in last[depth]]
        rows.append(
            {
                "lookahead": depth,
                "passes": len(counts),
                "in_sequence": sum(map(bool, counts)),
                "sequences": sum(counts),
                "seconds": float(np.median(seconds[depth][1:])),
                "speedup": float(np.median(ratios)),
                "speedup_range": [float(ratios.min()), float(ratios.max())],
                "same_tokens": bool(np.array_equal(last[0][-1].canvas, last[depth][-1].canvas)),
            }
        )
    return rows

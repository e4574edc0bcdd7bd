"""Studies of the sampler on the descriptions of phantoms: arms, scored question by question. They can be killed.

A folder of studies has
    rows-*.jsonl         the store: one record per question and arm, on the disk as soon as its batch is answered
    STUDY/scores.csv     one row per question and arm
    STUDY/summary.csv    one row per arm, means with 95 % bootstrap intervals over the questions
    STUDY/controls.csv   the same of controls, which no model writes, over the same scenes: see `score_controls`
    STUDY/manifest.json  versions, commit, model, arms

A row's key is a hash of model, dtype, settings, question, scene and what is measured: what two studies share is
answered once, and another model answers everything anew.
"""

from __future__ import annotations

import copy
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from medv_lab.evaluation.responders import describe_model, dtype_name
from medv_lab.generation import ask_many
from medv_lab.metrics.intervals import bootstrap_interval, paired_difference
from medv_lab.metrics.repetition import measure_trace
from medv_lab.model.modeling import MedVForMaskedDiffusion
from medv_lab.model.processing import MedVProcessor
from medv_lab.phantoms.benchmark import SEED
from medv_lab.phantoms.facts import score_description
from medv_lab.phantoms.rendering import render
from medv_lab.phantoms.reports import write_controls, write_report
from medv_lab.phantoms.scenes import Scene, make_scenes
from medv_lab.runtime import make_manifest
from medv_lab.store import Store, content_key, replace_text, share_of_process
from medv_lab.studies.arms import STUDIES, Arm

SPLIT = "test"
# Of any text, by name in `score_description`, here as shares; `score` is the fact score.
TEXT_MEASURES = {
    "score": "facts",
    "precision": "precision",
    "recall": "recall",
    "well_formed": "well-formed",
    "repeated": "repeated",
    "contradictions": "contradictions",
}
# Of a row; `seconds` are processor time on a CPU and wall time on a GPU.
MEASURES = (*TEXT_MEASURES, "adjacent_duplicates", "looped", "distinct_1", "words", "passes", "seconds")
BOUNDED = (*TEXT_MEASURES, "adjacent_duplicates", "looped", "words")  # those with intervals
ENOUGH = 0.98  # share of the baseline's score that `fast` must keep


def run_study(
    name: str,
    model: MedVForMaskedDiffusion,
    processor: MedVProcessor,
    folder: Path,
    *,
    extra_arms: Sequence[Arm] = (),
    questions: int = 400,
    batch_size: int = 16,
    log: Callable[[str], None] = print,
) -> pd.DataFrame | None:
    """Answer what is missing, and write scores, summary and manifest of one study.

    Processes of one launch, or tasks of an array with RANK and WORLD_SIZE, take turns by scene.

    Args:
        name: one of `STUDIES`.
        model, processor, folder: who answers, and where studies are kept.
        extra_arms: arms of one's own beside those of the study, e.g. with a strategy class of one's own, in a group
            of their own. Rows are kept by name and parameters: where a class changes, so should its name.
        questions: the first so many scenes of the test split are described.
        batch_size: descriptions at a time.
        log: told of every arm that is complete.

    Returns:
        The summary, see `summarise_study`. Of several processes the first waits for the others and returns it; the
        others return None.

    Raises:
        ValueError: for an unknown study, an arm with the name of another, or fewer than two questions.
        StoreError: for a damaged file in the folder.
        KeyboardInterrupt: if a batch is interrupted: half an answer is none.
    """
    if name not in STUDIES:
        raise ValueError(f"there is no study {name!r}; the studies are {', '.join(STUDIES)}")
    if questions < 2 or batch_size < 1:
        raise ValueError(f"questions is {questions} and batch_size {batch_size}; give 2 and 1, or more")
    make_arms, baseline = STUDIES[name]
    arms = [*make_arms(), *extra_arms]
    twice = [arm for arm, count in Counter(arm.name for arm in arms).items() if count > 1]
    if twice:
        raise ValueError(f"{twice[0]!r} is the name of two arms; give each of extra_arms a name of its own")
    scenes, (rank, count) = make_scenes(SPLIT, questions), share_of_process()
    rows = []
    with Store(folder, "rows") as store:
        for arm in arms:
            keys = _keys(arm, model, questions)
            missing = [number for number in range(rank, questions, count) if keys[number] not in store]
            for start in range(0, len(missing), batch_size):
                batch = missing[start : start + batch_size]
                described = _describe(arm, [scenes[number] for number in batch], model, processor)
                pairs = zip(batch, described, strict=True)
                store.put_all({keys[number]: {"scene": number, **measures} for number, measures in pairs})
            log(f"{arm.name}: {questions} descriptions, {len(missing)} of them new")
        if rank:
            return None
        for arm in arms:
            keys = _keys(arm, model, questions)
            store.wait_for(keys)
            rows += [{"arm": arm.name, "group": arm.group, **store[key]} for key in keys]
    scores = pd.DataFrame(rows).drop(columns="key")
    summary = summarise_study(scores, baseline)
    settings = {"study": name, "split": SPLIT, "questions": questions, "batch_size": batch_size}
    settings["arms"] = {arm.name: {**vars(arm), "settings": arm.settings.to_dict()} for arm in arms}
    manifest = make_manifest(settings, seed=arms[0].settings.seed, model=model)
    manifest["threads"] = torch.get_num_threads()
    replace_text(folder / name / "scores.csv", _csv(scores))
    replace_text(folder / name / "summary.csv", _csv(summary))
    replace_text(folder / name / "controls.csv", _csv(score_controls(questions)))
    replace_text(folder / name / "manifest.json", json.dumps(manifest, indent=1) + "\n")
    return summary


def summarise_study(scores: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Tabulate one row per arm, in the order of the scores.

    Args:
        scores: one row per arm and scene: `arm`, `group`, `scene` and `MEASURES`.
        baseline: name of the arm that the others are compared with.

    Returns:
        `arm`, `group`, `questions`; of every measure its mean under its own name, and of those in `BOUNDED` also
        `..._low` and `..._high` (95 %, bootstrap over scenes);
        `difference`, `difference_low`, `difference_high` (score minus the baseline's, paired by scene), `share`,
        `share_low`, `share_high` (score / the baseline's, with the difference's interval) and `confirmed`,
        `confirmed_low`, `confirmed_high`: the share over the scenes on which `choose_fast` does not choose, so that of
        an arm that was chosen for its share it holds no luck.
    """
    table = {arm: part.sort_values("scene") for arm, part in scores.groupby("arm", sort=False)}
    exact = table[baseline]["score"].to_numpy()
    confirms = table[baseline]["scene"].to_numpy() % 2 == 1
    rows = []
    for arm, part in table.items():
        row: dict[str, Any] = {"arm": arm, "group": part["group"].iloc[0], "questions": len(part)}
        row |= {measure: part[measure].mean() for measure in MEASURES}
        for measure in BOUNDED:
            found = bootstrap_interval(part[measure])
            row |= {f"{measure}_low": found.low, f"{measure}_high": found.high}
        found = paired_difference(part["score"], exact)
        row |= {"difference": found.estimate, "difference_low": found.low, "difference_high": found.high}
        row |= _share("share", part["score"].to_numpy(), exact)
        row |= _share("confirmed", part["score"].to_numpy()[confirms], exact[confirms])
        rows.append(row)
    return pd.DataFrame(rows)


def _share(name: str, scores: np.ndarray, exact: np.ndarray) -> dict[str, float]:
    """Return score / the baseline's with its interval; NaN where there is nothing to divide by."""
    names = (name, f"{name}_low", f"{name}_high")
    if not (exact.size and exact.mean()):
        return dict.fromkeys(names, float("nan"))
    found = paired_difference(scores, exact)
    ends = (1 + end / exact.mean() for end in (found.estimate, found.low, found.high))
    return dict(zip(names, ends, strict=True))


def score_controls(questions: int) -> pd.DataFrame:
    """Tabulate what the studies' summaries are read against, one row per control.

    Args:
        questions: of the study; the controls are about the same scenes.

    Returns:
        `control`, `questions`, and of `TEXT_MEASURES` and `words` mean, `..._low` and `..._high`.
    """
    scenes, rng = make_scenes(SPLIT, questions), np.random.default_rng(SEED)
    reports = [write_report(scene, rng) for scene in scenes]
    rows = []
    for control, texts in write_controls(scenes, reports, SEED).items():
        scores = pd.DataFrame([_score_text(*pair) for pair in zip(texts, scenes, strict=True)])
        row: dict[str, Any] = {"control": control, "questions": questions}
        for measure, values in scores.items():
            found = bootstrap_interval(values)
            row |= {measure: found.estimate, f"{measure}_low": found.low, f"{measure}_high": found.high}
        rows.append(row)
    return pd.DataFrame(rows)


def choose_fast(scores: pd.DataFrame, baseline: str, passes: float) -> tuple[str, pd.Series] | None:
    """Choose the arm of least time on every other scene, and report it on the scenes between.

    Args:
        scores: as in `summarise_study`.
        baseline: name of the arm whose score is to be kept.
        passes: the most forward passes that an arm may take on average.

    Returns:
        The arm's name and its row of the summary over the scenes that did not choose it; None if no arm keeps `ENOUGH`
        of the baseline's score.
    """
    chosen = summarise_study(scores[scores["scene"] % 2 == 0], baseline)
    good = chosen[(chosen["share"] >= ENOUGH) & (chosen["passes"] <= passes)]
    if good.empty:
        return None
    name = str(good.sort_values("seconds")["arm"].iloc[0])
    reported = summarise_study(scores[scores["scene"] % 2 == 1], baseline)
    return name, reported.set_index("arm").loc[name]


def _describe(
    arm: Arm, scenes: Sequence[Scene], model: MedVForMaskedDiffusion, processor: MedVProcessor
) -> list[dict[str, float]]:
    """Measure one batch of descriptions."""
    if arm.dtype not in (None, dtype_name(model)):
        # a copy: another dtype and back would round the weights
        model = copy.deepcopy(model).to(getattr(torch, arm.dtype))
    clock = time.process_time if model.device.type == "cpu" else time.perf_counter
    pictures, asked = [render(scene) for scene in scenes], [arm.question] * len(scenes)
    began = clock()
    answers = ask_many(model, processor, pictures, asked, arm.settings, len(scenes), progress=False)
    seconds = (clock() - began) / len(scenes)
    if any(answer.is_cancelled for answer in answers):
        raise KeyboardInterrupt
    measured = []
    for answer, scene in zip(answers, scenes, strict=True):
        repetition = measure_trace(answer.trace)
        row = _score_text(answer.text, scene)
        row |= {name: getattr(repetition, name) for name in ("adjacent_duplicates", "looped", "distinct_1")}
        row |= {"passes": answer.trace.forward_evaluations, "seconds": seconds}
        measured.append(row)
    return measured


def _score_text(text: str, scene: Scene) -> dict[str, float]:
    found = score_description(text, scene)
    shares = {name: found[own] / 100 for name, own in TEXT_MEASURES.items()}
    return shares | {"words": len(text.split())}


def _keys(arm: Arm, model: MedVForMaskedDiffusion, questions: int) -> list[str]:
    network, dtype = describe_model(model, "model"), arm.dtype or dtype_name(model)
    about = (network, dtype, arm.settings.to_dict(), arm.question, SPLIT, MEASURES)
    return [content_key(*about, scene) for scene in range(questions)]


def _csv(frame: pd.DataFrame) -> str:
    return frame.to_csv(index=False, float_format="%.4g", lineterminator="\n")

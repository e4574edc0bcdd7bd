"""The commands `medv evaluate`: phantoms, real data sets and the chatbot benchmark, answered, scored and judged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from medv_lab.cli.errors import clear_errors, one_voice

if TYPE_CHECKING:
    import pandas as pd

    from medv_lab.config import GenerationSettings
    from medv_lab.evaluation.endpoint_judge import Spending
    from medv_lab.evaluation.judges import Judge
    from medv_lab.evaluation.responders import Responder
    from medv_lab.records import Prediction, Question

EMBEDDED_WARNING = "The embedded model knows phantoms only; what it says about a real picture means nothing."
PHANTOMS = "phantoms"
PUBLISHED_NAMES = {"vqa-rad": "VQA-RAD", "slake": "SLAKE", "pathvqa": "PathVQA"}  # in Table 8
ASSUMED_ANSWER = "."  # so many of these stand for an answer that is not there yet

evaluate = typer.Typer(no_args_is_help=True, help="Score a model.")

ModelOption = Annotated[
    str,
    typer.Option(help="embedded, a folder, a hub id, a system of the paper's tables, or an endpoint's model"),
]
KindOption = Annotated[str, typer.Option(help="auto, medv, image-text, text or endpoint")]
AnswersOption = Annotated[
    Path | None,
    typer.Option(help="score these answers (JSON Lines of question_id and text) instead of a model's"),
]
PromptOption = Annotated[str, typer.Option(help="chat, or a text with {question} in it")]
UrlOption = Annotated[str | None, typer.Option(help="base URL of the model's endpoint")]
LengthOption = Annotated[int | None, typer.Option(help="L, longest answer; by default the preset's")]
BlockOption = Annotated[int | None, typer.Option(help="B, positions per block")]
StepsOption = Annotated[int | None, typer.Option(help="Z, forward passes")]
LimitOption = Annotated[int | None, typer.Option(help="the first so many questions only", min=1)]
BatchOption = Annotated[int, typer.Option(help="questions answered at a time")]
OutputOption = Annotated[
    Path | None, typer.Option(help="results folder; a rerun does only what is missing in it")
]
DryOption = Annotated[bool, typer.Option("--dry-run", help="say what there is to do, and do nothing")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")]
DtypeOption = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16")]
DownloadOption = Annotated[bool, typer.Option(help="allow a download from the hub")]


@evaluate.command()
def phantoms(
    model: ModelOption = "embedded",
    split: Annotated[str, typer.Option(help="validation, test or compositional")] = "test",
    rounds: Annotated[int, typer.Option(help="balanced rounds; one asks about 130 questions")] = 6,
    pictures: Annotated[str, typer.Option(help="right, shuffled (another question's) or none")] = "right",
    batch_size: BatchOption = 32,
    output: OutputOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    download: DownloadOption = False,
) -> None:
    """Score a model on phantoms: accuracy and token recall in percent, with 95 % intervals."""
    with clear_errors(), one_voice():
        from medv_lab.config import PRESETS
        from medv_lab.evaluation.benchmarks import summarise_phantoms
        from medv_lab.evaluation.loading import ModelChoice, load_responder
        from medv_lab.phantoms.benchmark import make_questions
        from medv_lab.runtime import medv_home

        questions = make_questions(split, rounds, pictures)
        output = output or medv_home() / "results" / f"phantoms-{split}-{pictures}"
        choice = ModelChoice(model, device=device, dtype=dtype, download=download)
        responder = load_responder(choice, PRESETS["embedded-vqa"])
        asked = {"split": split, "rounds": rounds, "pictures": pictures}
        found = _answer(questions, responder, output, batch_size, {"asked": asked})
        if found is None:
            return
        for by in ("family", "domain"):
            table = summarise_phantoms(questions, found, by)
            title = f"{model}, {split} split, pictures {pictures}: percent (95 % interval)"
            _print_scores(table.rename(columns={"group": by}), title, ("kind", by, "questions"))
        _save(summarise_phantoms(questions, found), output, responder.run)


@evaluate.command()
def vqa(
    data: Annotated[Path, typer.Option(help="folder of VQA-RAD, SLAKE or PathVQA")],
    dataset: Annotated[str, typer.Option(help="auto, vqa-rad, slake or pathvqa")] = "auto",
    split: Annotated[str, typer.Option(help="train, validation or test")] = "test",
    language: Annotated[str, typer.Option(help="en or zh")] = "en",
    model: ModelOption = "embedded",
    kind: KindOption = "auto",
    answers: AnswersOption = None,
    prompt: PromptOption = "chat",
    base_url: UrlOption = None,
    gen_length: LengthOption = None,
    block_length: BlockOption = None,
    steps: StepsOption = None,
    limit: LimitOption = None,
    batch_size: BatchOption = 8,
    output: OutputOption = None,
    dry_run: DryOption = False,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    download: DownloadOption = False,
) -> None:
    """Answer a VQA data set, or score answers to it: LLaVA-Med's metrics in percent, with 95 % intervals."""
    with clear_errors(), one_voice():
        from medv_lab.data.vqa import count_questions, read_vqa, tell_dataset
        from medv_lab.evaluation.benchmarks import answer_candidates, summarise_vqa, without_pictures
        from medv_lab.runtime import medv_home

        name = tell_dataset(data) if dataset == "auto" else dataset
        output = output or medv_home() / "results" / f"{name}-{split}"
        need_images = answers is None and not dry_run
        reading = read_vqa(name, data, need_images=need_images, pictures=output / "pictures")
        questions = [one for one in reading.questions if one.tags["language"] == language]
        asked = [one for one in questions if one.split == split][:limit]
        _print_counts(count_questions(questions))
        for one in reading.broken:
            typer.echo(f"broken: {one}", err=True)
        if not asked:
            raise ValueError(f"{name} has no questions of split {split!r} in {language!r} here")
        settings = _settings(model, "vqa", gen_length, block_length, steps)
        if answers is not None:
            asked = without_pictures(asked)
        if dry_run:
            _print_answering(asked, settings, answers)
            return
        responder = _responder(
            model, settings, answers, kind, prompt, base_url, device=device, dtype=dtype, download=download
        )
        found = _answer(asked, responder, output, batch_size)
        if found is None:
            return
        table = summarise_vqa(asked, found, answer_candidates(questions))
        title = f"{responder.name} on {name}, {split} split: percent (95 % interval)"
        _print_scores(table, title, ("variant", "metric", "questions"))
        _print_effort(found, is_measured=answers is None)
        _save(table, output, responder.run)


@evaluate.command()
def chat(
    data: Annotated[str, typer.Option(help="folder of the chatbot benchmark, or phantoms")] = PHANTOMS,
    images: Annotated[
        Path | None, typer.Option(help="folder of its pictures; by default DATA/images")
    ] = None,
    pictures: Annotated[int, typer.Option(help="phantoms: how many pictures")] = 50,
    model: ModelOption = "embedded",
    kind: KindOption = "auto",
    answers: AnswersOption = None,
    prompt: PromptOption = "chat",
    base_url: UrlOption = None,
    gen_length: LengthOption = None,
    block_length: BlockOption = None,
    steps: StepsOption = None,
    judge: Annotated[
        str, typer.Option(help="none, overlap, facts (phantoms), or the name of an endpoint's model")
    ] = "none",
    judge_url: Annotated[str | None, typer.Option(help="base URL of the judge's endpoint")] = None,
    swap: Annotated[bool, typer.Option(help="judge both orders of the two answers")] = False,
    prices: Annotated[
        tuple[float, float] | None, typer.Option(help="of a million tokens, in and out, for costs")
    ] = None,
    cap: Annotated[float | None, typer.Option(help="most that judging may cost; needs prices")] = None,
    limit: LimitOption = None,
    batch_size: BatchOption = 8,
    output: OutputOption = None,
    dry_run: DryOption = False,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    download: DownloadOption = False,
) -> None:
    """Answer the open-ended benchmark, real or of phantoms, and have the answers judged."""
    with clear_errors(), one_voice():
        from medv_lab.evaluation.endpoint_judge import EndpointJudge
        from medv_lab.evaluation.judges import position_bias, summarise_verdicts
        from medv_lab.runtime import medv_home

        output = output or medv_home() / "results" / f"chat-{Path(data).name}"
        settings = _settings(model, "open-ended", gen_length, block_length, steps)
        asked = _open_ended(data, images, pictures, limit, answers is None, dry_run)
        judged_by = _judge(judge, data, output, judge_url, swap, prices, cap)
        if dry_run:
            _print_answering(asked, settings, answers)
            _print_plan(judged_by, asked, settings, answers)
            return
        responder = _responder(
            model, settings, answers, kind, prompt, base_url, device=device, dtype=dtype, download=download
        )
        found = _answer(asked, responder, output, batch_size)
        if found is None:
            return
        _print_effort(found, is_measured=answers is None)
        if judged_by is None:
            typer.echo("not judged; --judge names a judge")
            return
        judgement = judged_by.judge(asked, found)
        table = summarise_verdicts(asked, judgement.verdicts).rename(columns={"relative": "score"})
        title = f"{responder.name}: score relative to the reference (95 % interval)"
        _print_scores(table, title, ("judge", "order", "group", "questions"))
        for name in judgement.unscored:
            typer.echo(f"no readable scores for {name}", err=True)
        if isinstance(judged_by, EndpointJudge):
            _print_spending("spent", judged_by.spending())
        if swap:
            typer.echo(f"points of 10 gained by being shown first: {position_bias(judgement.verdicts)}")
        _save(table, output, responder.run)


def _settings(
    model: str, task: str, gen_length: int | None, block_length: int | None, steps: int | None
) -> GenerationSettings:
    """Return the paper's settings for a task, or the embedded model's, with what was asked for in place of them."""
    from medv_lab.config import PRESETS

    small = {"vqa": "embedded-vqa", "open-ended": "embedded-description"}
    preset = PRESETS[small[task] if model == "embedded" else f"paper-{task}"]
    given = {"gen_length": gen_length, "block_length": block_length, "steps": steps}
    return replace(preset, **{name: value for name, value in given.items() if value is not None})


def _responder(
    model: str,
    settings: GenerationSettings,
    answers: Path | None,
    kind: str,
    prompt: str,
    base_url: str | None,
    **where: str | bool,
) -> Responder:
    from medv_lab.evaluation.loading import ModelChoice, load_responder
    from medv_lab.evaluation.responders import FileResponder

    if answers is not None:
        return FileResponder(answers, answers.stem)
    if model == "embedded":
        typer.echo(EMBEDDED_WARNING, err=True)
    return load_responder(ModelChoice(model, kind, prompt, base_url, **where), settings)


def _answer(
    questions: Sequence[Question],
    responder: Responder,
    output: Path,
    batch_size: int,
    notes: dict[str, Any] | None = None,
) -> list[Prediction] | None:
    from medv_lab.evaluation.runner import answer_questions

    found = answer_questions(questions, responder, output, batch_size=batch_size, notes=notes)
    if found is not None:
        typer.echo(f"{len(found)} answers of {responder.name} in {output}")
    return found


def _open_ended(
    data: str, images: Path | None, pictures: int, limit: int | None, with_pictures: bool, dry_run: bool
) -> list[Question]:
    """Draw the questions about phantoms, or read those of the chatbot benchmark."""
    if data == PHANTOMS:
        from medv_lab.phantoms.conversation import make_conversation

        asked = make_conversation(pictures=pictures, with_pictures=with_pictures)[:limit]
    else:
        from medv_lab.data.chatbot import read_chatbot
        from medv_lab.evaluation.benchmarks import without_pictures

        reading = read_chatbot(
            data, images or Path(data) / "images", need_images=with_pictures and not dry_run
        )
        for one in reading.broken:
            typer.echo(f"broken: {one}", err=True)
        asked = list(reading.questions[:limit])
        if not asked:
            raise ValueError(
                f"{data} has no usable question; its {len(reading.broken)} broken rows are listed above"
            )
        asked = asked if with_pictures else without_pictures(asked)
    typer.echo(f"{len(asked)} questions")
    for counted in (Counter(one.kind for one in asked), Counter(one.tags["domain"] for one in asked)):
        typer.echo("  " + ", ".join(f"{name} {count}" for name, count in counted.items()))
    return asked


def _judge(name: str, data: str, output: Path, url, swap: bool, prices, cap) -> Judge | None:
    from medv_lab.evaluation.endpoint import Endpoint, Prices
    from medv_lab.evaluation.endpoint_judge import EndpointJudge
    from medv_lab.evaluation.judges import FactJudge, OverlapJudge

    if name in ("none", "overlap", "facts"):
        if swap or url or prices or cap:
            raise ValueError(
                f"the judge is {name!r}, which calls nobody; --swap, --judge-url, --prices, --cap need one"
            )
        if name == "facts" and data != PHANTOMS:
            raise ValueError(
                "the judge 'facts' knows phantoms only; give 'overlap' or the name of an endpoint's model"
            )
        return {"none": None, "overlap": OverlapJudge(), "facts": FactJudge()}[name]
    return EndpointJudge(
        Endpoint(name, url), output, swap=swap, prices=None if prices is None else Prices(*prices), cap=cap
    )


def _print_counts(counts: pd.DataFrame) -> None:
    """Print counts per split and type beside those that the paper publishes."""
    from medv_lab.paper.published import load_table

    published = load_table(8).replace({"split": {"val": "validation"}}).set_index(["dataset", "split"])
    names = ("images", "question_answer_pairs", "closed_form", "open_form")
    table = Table("data set", "split", "images", "questions", "closed", "open", "Table 8")
    for row in counts.itertuples():
        own = [getattr(row, name) for name in names]
        paper = [int(published.loc[(PUBLISHED_NAMES[row.dataset], row.split), name]) for name in names]
        verdict = "equal" if own == paper else "differs: " + ", ".join(map(str, paper))
        table.add_row(row.dataset, row.split, *map(str, own), verdict)
    Console().print(table)


def _print_answering(
    questions: Sequence[Question], settings: GenerationSettings, answers: Path | None
) -> None:
    from medv_lab.evaluation.endpoint import estimate_tokens

    if answers is not None:
        typer.echo(f"answers: {len(questions)} from {answers.name}, no call")
        return
    tokens = sum(estimate_tokens([{"content": question.text}]) for question in questions)
    typer.echo(
        f"answers: {len(questions)} calls of the model, about {tokens:,} tokens of questions without pictures, at most "
        f"{len(questions) * settings.gen_length:,} tokens of answers (L = {settings.gen_length}) and "
        f"{len(questions) * settings.steps:,} forward passes (Z = {settings.steps}, a diffusion model)"
    )


def _print_plan(
    judged_by: Judge | None, asked: Sequence[Question], settings: GenerationSettings, answers: Path | None
) -> None:
    """Say what judging would take; answers that are not there yet count as long as they may get."""
    from medv_lab.evaluation.endpoint import CHARACTERS_PER_TOKEN
    from medv_lab.evaluation.endpoint_judge import EndpointJudge
    from medv_lab.evaluation.responders import FileResponder
    from medv_lab.records import Prediction

    if not isinstance(judged_by, EndpointJudge):
        typer.echo(f"judging: no call ({judged_by.name if judged_by else 'not judged'})")
        return
    if answers is None:
        text = ASSUMED_ANSWER * CHARACTERS_PER_TOKEN * settings.gen_length
        predictions = [Prediction(question.id, "assumed", text) for question in asked]
    else:
        predictions = FileResponder(answers, answers.stem).answer(asked)
    _print_spending(f"judging by {judged_by.name}", judged_by.plan(asked, predictions))


def _print_spending(title: str, spending: Spending) -> None:
    cost = "" if spending.cost is None else f", cost {spending.cost:.4f}"
    faults = f"; {spending.unparsable} unparsable, {spending.lost} lost" if title == "spent" else ""
    typer.echo(
        f"{title}: {spending.calls} calls, {spending.tokens_in:,} tokens in, {spending.tokens_out:,} tokens out{cost}"
        f"{faults}"
    )


def _print_scores(table: pd.DataFrame, title: str, labels: Sequence[str]) -> None:
    printed = Table(*labels, "score", "interval", title=title)
    for row in table.itertuples():
        interval = f"{row.low:.2f} to {row.high:.2f}"
        printed.add_row(*(str(getattr(row, name)) for name in labels), f"{row.score:.2f}", interval)
    Console().print(printed)


def _print_effort(answers: Sequence[Prediction], is_measured: bool) -> None:
    """Print length and, of answers made here, time and forward passes."""
    from medv_lab.evaluation.benchmarks import summarise_effort

    found = summarise_effort(answers)
    shown = found if is_measured else {"words_per_question": found["words_per_question"]}
    typer.echo(", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in shown.items()))


def _save(table: pd.DataFrame, output: Path, run: str) -> None:
    path = output / f"scores-{run}.csv"
    table.to_csv(path, index=False, float_format="%.4f", lineterminator="\n")
    typer.echo(f"scores in {path}")

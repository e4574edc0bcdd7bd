"""The commands `medv evaluate`: real data sets and the chatbot benchmark, answered, scored and judged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from medv_lab.cli.errors import clear_errors, one_voice

if TYPE_CHECKING:
    import pandas as pd

    from medv_lab.config import GenerationSettings
    from medv_lab.evaluation.endpoint_judge import Spending
    from medv_lab.evaluation.judges import Case, Judge
    from medv_lab.evaluation.responders import Query, Responder
    from medv_lab.evaluation.runner import Answered

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
    typer.Option(help="score these answers (JSON lines of question_id and text) instead of a model's"),
]
PromptOption = Annotated[str | None, typer.Option(help="chat, or a text with {question} in it")]
UrlOption = Annotated[str | None, typer.Option(help="base URL of the model's endpoint")]
LengthOption = Annotated[int | None, typer.Option(help="L, longest answer; by default the preset's")]
BlockOption = Annotated[int | None, typer.Option(help="B, positions of a block")]
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
def vqa(
    data: Annotated[Path, typer.Option(help="folder of VQA-RAD, SLAKE or PathVQA")],
    dataset: Annotated[str, typer.Option(help="auto, vqa-rad, slake or pathvqa")] = "auto",
    split: Annotated[str, typer.Option(help="train, validation or test")] = "test",
    language: Annotated[str, typer.Option(help="en or zh")] = "en",
    model: ModelOption = "embedded",
    kind: KindOption = "auto",
    answers: AnswersOption = None,
    prompt: PromptOption = None,
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
        from medv_lab.evaluation.benchmarks import answer_candidates, summarise_vqa, to_queries, vqa_items
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
        queries = to_queries(asked, with_pictures=answers is None)
        if dry_run:
            _print_answering(queries, settings, answers)
            return
        responder = _responder(
            model, settings, answers, kind, prompt, base_url, device=device, dtype=dtype, download=download
        )
        found = _answer(queries, responder, output, batch_size)
        if found is None:
            return
        table = summarise_vqa(vqa_items(asked, [one.answer for one in found]), answer_candidates(questions))
        title = f"{responder.name} on {name}, {split} split: percent (95 % interval)"
        _print_scores(table, title, ("script", "metric", "questions"))
        _print_effort(found, is_measured=answers is None)
        _save(table, output, found[0].system)


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
    prompt: PromptOption = None,
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
        queries, make_cases, facts = _open_ended(data, images, pictures, limit, answers is None, dry_run)
        judged_by = _judge(judge, facts, output, judge_url, swap, prices, cap)
        if dry_run:
            _print_answering(queries, settings, answers)
            _print_plan(judged_by, make_cases, queries, settings, answers)
            return
        responder = _responder(
            model, settings, answers, kind, prompt, base_url, device=device, dtype=dtype, download=download
        )
        found = _answer(queries, responder, output, batch_size)
        if found is None:
            return
        _print_effort(found, is_measured=answers is None)
        if judged_by is None:
            typer.echo("not judged; --judge names a judge")
            return
        cases = make_cases([one.answer for one in found])
        judgement = judged_by.judge(cases)
        table = summarise_verdicts(cases, judgement.verdicts).rename(columns={"relative": "score"})
        title = f"{responder.name}: score relative to the reference (95 % interval)"
        _print_scores(table, title, ("judge", "order", "group", "questions"))
        for name in judgement.unscored:
            typer.echo(f"no readable scores for {name}", err=True)
        if isinstance(judged_by, EndpointJudge):
            _print_spending("spent", judged_by.spending())
        if swap:
            typer.echo(f"points of 10 gained by being shown first: {position_bias(judgement.verdicts)}")
        _save(table, output, found[0].system)


def _settings(
    model: str, task: str, gen_length: int | None, block_length: int | None, steps: int | None
) -> GenerationSettings:
    """The paper's settings for a task, or the embedded model's, with what was asked for in place of them."""
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
    prompt: str | None,
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
    queries: Sequence[Query], responder: Responder, output: Path, batch_size: int
) -> list[Answered] | None:
    from medv_lab.evaluation.runner import answer_together

    found = answer_together(queries, responder, output, batch_size=batch_size)
    if found is not None:
        typer.echo(f"{len(found)} answers of {responder.name} in {output}")
    return found


def _open_ended(
    data: str, images: Path | None, pictures: int, limit: int | None, with_pictures: bool, dry_run: bool
):
    """Queries, what makes cases of their answers, and the judge that knows the facts (of phantoms)."""
    from medv_lab.evaluation import benchmarks
    from medv_lab.phantoms import conversation

    if data == PHANTOMS:
        asked = conversation.make_conversation(pictures=pictures)[:limit]
        _print_make_up(Counter(one.kind for one in asked), Counter(one.scene.domain for one in asked))
        queries = conversation.conversation_queries(asked, with_pictures)
        facts = conversation.fact_judge(asked)
        return queries, lambda texts: conversation.conversation_cases(asked, texts), facts
    from medv_lab.data.chatbot import read_chatbot

    reading = read_chatbot(data, images or Path(data) / "images", need_images=with_pictures and not dry_run)
    for one in reading.broken:
        typer.echo(f"broken: {one}", err=True)
    asked = reading.questions[:limit]
    if not asked:
        raise ValueError(
            f"{data} has no usable question; its {len(reading.broken)} broken rows are listed above"
        )
    _print_make_up(Counter(one.kind for one in asked), Counter(one.tags["domain"] for one in asked))
    queries = benchmarks.to_queries(asked, with_pictures)
    return queries, lambda texts: benchmarks.chat_cases(asked, texts), None


def _judge(name: str, facts: Judge | None, output: Path, url, swap: bool, prices, cap) -> Judge | None:
    from medv_lab.evaluation.endpoint import Endpoint, Prices
    from medv_lab.evaluation.endpoint_judge import EndpointJudge
    from medv_lab.evaluation.judges import OverlapJudge

    if name in ("none", "overlap", "facts"):
        if swap or url or prices or cap:
            raise ValueError(
                f"the judge is {name!r}, which calls nobody; --swap, --judge-url, --prices, --cap need one"
            )
        if name == "facts" and facts is None:
            raise ValueError(
                "the judge 'facts' knows phantoms only; give 'overlap' or the name of an endpoint's model"
            )
        return {"none": None, "overlap": OverlapJudge(), "facts": facts}[name]
    return EndpointJudge(
        Endpoint(name, url), output, swap=swap, prices=None if prices is None else Prices(*prices), cap=cap
    )


def _print_counts(counts: pd.DataFrame) -> None:
    """Counts per split and type beside those that the paper publishes."""
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


def _print_make_up(kinds: Counter, domains: Counter) -> None:
    typer.echo(f"{kinds.total()} questions")
    for counted in (kinds, domains):
        typer.echo("  " + ", ".join(f"{name} {count}" for name, count in counted.items()))


def _print_answering(queries: Sequence[Query], settings: GenerationSettings, answers: Path | None) -> None:
    from medv_lab.evaluation.endpoint import estimate_tokens

    if answers is not None:
        typer.echo(f"answers: {len(queries)} from {answers.name}, no call")
        return
    tokens = sum(estimate_tokens([{"content": query.text}]) for query in queries)
    typer.echo(
        f"answers: {len(queries)} calls of the model, about {tokens:,} tokens of questions without pictures, at most "
        f"{len(queries) * settings.gen_length:,} tokens of answers (L = {settings.gen_length}) and "
        f"{len(queries) * settings.steps:,} forward passes (Z = {settings.steps}, a diffusion model)"
    )


def _print_plan(judged_by, make_cases, queries, settings: GenerationSettings, answers: Path | None) -> None:
    """What judging would take; answers that are not there yet count as long as they may get."""
    from medv_lab.evaluation.endpoint import CHARACTERS_PER_TOKEN
    from medv_lab.evaluation.endpoint_judge import EndpointJudge
    from medv_lab.evaluation.responders import FileResponder

    if not isinstance(judged_by, EndpointJudge):
        typer.echo(f"judging: no call ({judged_by.name if judged_by else 'not judged'})")
        return
    if answers is None:
        texts = [ASSUMED_ANSWER * CHARACTERS_PER_TOKEN * settings.gen_length] * len(queries)
    else:
        texts = [reply.text for reply in FileResponder(answers, answers.stem).answer(queries)]
    cases: list[Case] = make_cases(texts)
    _print_spending(f"judging by {judged_by.name}", judged_by.plan(cases))


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


def _print_effort(answers: Sequence[Answered], is_measured: bool) -> None:
    """Length and, of answers made here, time and forward passes."""
    from medv_lab.evaluation.benchmarks import summarise_effort

    found = summarise_effort(answers)
    shown = found if is_measured else {"words_per_question": found["words_per_question"]}
    typer.echo(", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in shown.items()))


def _save(table: pd.DataFrame, output: Path, system: str) -> None:
    path = output / f"scores-{system.split()[-1]}.csv"
    table.to_csv(path, index=False, float_format="%.4f", lineterminator="\n")
    typer.echo(f"scores in {path}")

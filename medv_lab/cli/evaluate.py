"""The commands `medv evaluate`: phantoms, real data sets and the chatbot benchmark, answered, scored and judged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medv_lab.cli.console import main_process_only, print_table
from medv_lab.cli.model_options import PHANTOMS, JudgeOptions, ModelOptions
from medv_lab.cli.options import Fields, GivenSettings, add_commands
from medv_lab.cli.tabulate import tables
from medv_lab.config import PRESETS, GenerationSettings
from medv_lab.evaluation.model_choice import ModelChoice

if TYPE_CHECKING:
    import pandas as pd

    from medv_lab.evaluation.endpoint_judge import EndpointJudge, Spending
    from medv_lab.evaluation.judges import FactJudge, OverlapJudge
    from medv_lab.evaluation.responders import Responder
    from medv_lab.records import Prediction, Question

EMBEDDED_WARNING = "The embedded model knows phantoms only; what it says about a real picture means nothing."


@dataclass(frozen=True)
class Answering:
    """The questions that are answered, by whom, and the folder of the results.

    Attributes:
        answers: score the answers of a file instead of a model's: per line one JSON object with the id of a question,
            as the questions' file has it, and a text, {"question_id": "7", "text": "Yes"}; other keys are not read.
        limit: only the first so many questions.
        batch_size: questions answered at a time.
        output: results folder; a rerun does only what is missing in it.
        dry_run: say what there is to do, and do nothing.

    Raises:
        ValueError: for a limit below 1.
    """

    answers: Path | None = None
    limit: int | None = None
    batch_size: int = 8
    output: Path | None = None
    dry_run: bool = False

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"--limit is {self.limit}; give 1 or more")

    @property
    def need_pictures(self) -> bool:
        """Return whether a model will look at the pictures."""
        return self.answers is None and not self.dry_run


@main_process_only()
def phantoms(
    model: ModelOptions,
    split: Annotated[str, typer.Option(help="validation, test or compositional")] = "test",
    rounds: Annotated[int, typer.Option(help="balanced rounds; one asks about 130 questions")] = 6,
    pictures: Annotated[str, typer.Option(help="right, shuffled (another question's) or none")] = "right",
    answering: Annotated[Answering, Fields(only=("batch_size", "output"))] = Answering(batch_size=32),
) -> None:
    """Score a model on phantoms: accuracy and token recall in percent, with 95 % intervals."""
    from medv_lab.evaluation.benchmarks import summarise_phantoms
    from medv_lab.evaluation.loading import load_responder
    from medv_lab.phantoms.benchmark import make_questions
    from medv_lab.runtime import medv_home

    questions = make_questions(split, rounds, pictures)
    output = answering.output or medv_home() / "results" / f"phantoms-{split}-{pictures}"
    responder = load_responder(ModelChoice(**asdict(model)), PRESETS["embedded-vqa"])
    asked = {"split": split, "rounds": rounds, "pictures": pictures}
    found = _answer(questions, responder, output, answering.batch_size, {"asked": asked})
    if found is None:
        return
    for by in ("family", "domain"):
        table = summarise_phantoms(questions, found, by)
        title = f"{model.model}, {split} split, pictures {pictures}: percent (95 % interval)"
        _print_scores(table.rename(columns={"group": by}), title, ("kind", by, "questions"))
    _save(summarise_phantoms(questions, found), output, responder.run)


@main_process_only()
def descriptions(
    choice: ModelChoice,
    given: GivenSettings,
    split: Annotated[str, typer.Option(help="validation, test or compositional")] = "test",
    number: Annotated[int, typer.Option(help="pictures that are described")] = 500,
    length: Annotated[
        str, typer.Option(help="of the reports asked for: sentence, brief or detailed")
    ] = "detailed",
    pictures: Annotated[str, typer.Option(help="right, or shuffled (another one of the domain)")] = "right",
    answering: Annotated[Answering, Fields(only=("answers", "batch_size", "output"))] = Answering(
        batch_size=32
    ),
) -> None:
    """Score descriptions of phantoms and, below, of controls: facts, form, repetition, with 95 % intervals."""
    from medv_lab.evaluation.benchmarks import summarise_descriptions
    from medv_lab.phantoms.benchmark import make_descriptions
    from medv_lab.runtime import medv_home

    questions = make_descriptions(split, number, length, pictures)
    output = answering.output or medv_home() / "results" / f"descriptions-{split}-{length}-{pictures}"
    responder = _load_responder(choice, given.over(PRESETS["embedded-description"]), answering.answers)
    asked = {"split": split, "descriptions": number, "length": length, "pictures": pictures}
    found = _answer(questions, responder, output, answering.batch_size, {"asked": asked})
    if found is None:
        return
    table = summarise_descriptions(questions, found)
    title = f"{split} split, {length}, pictures {pictures}: percent, words and passes (95 % interval)"
    _print_scores(table, title, ("system", "measure", "descriptions"))
    _save(table, output, responder.run)


@main_process_only()
def vqa(
    choice: ModelChoice,
    given: GivenSettings,
    answering: Answering,
    data: Annotated[Path, typer.Option(help="folder of VQA-RAD, SLAKE or PathVQA")],
    dataset: Annotated[str, typer.Option(help="auto, vqa-rad, slake or pathvqa")] = "auto",
    split: Annotated[str, typer.Option(help="train, validation or test")] = "test",
    language: Annotated[str, typer.Option(help="en or zh")] = "en",
) -> None:
    """Answer a VQA data set, or score answers to it: LLaVA-Med's metrics in percent, with 95 % intervals."""
    from medv_lab.data.vqa import count_questions, read_vqa, tell_dataset
    from medv_lab.evaluation.benchmarks import answer_candidates, summarise_vqa
    from medv_lab.runtime import medv_home

    name = tell_dataset(data) if dataset == "auto" else dataset
    output = answering.output or medv_home() / "results" / f"{name}-{split}"
    reading = read_vqa(name, data, need_images=answering.need_pictures, pictures=output / "pictures")
    questions = [one for one in reading.questions if one.tags["language"] == language]
    asked = [one for one in questions if one.split == split][: answering.limit]
    _print_counts(count_questions(questions))
    for one in reading.broken:
        typer.echo(f"broken: {one}", err=True)
    if not asked:
        raise ValueError(f"{name} has no questions of split {split!r} in {language!r} here")
    settings = given.over(PRESETS["embedded-vqa" if choice.model == "embedded" else "paper-vqa"])
    if answering.answers is not None:
        asked = [replace(one, image=None) for one in asked]
    if answering.dry_run:
        _print_answering(asked, settings, answering.answers)
        return
    responder = _load_responder(choice, settings, answering.answers)
    found = _answer(asked, responder, output, answering.batch_size)
    if found is None:
        return
    table = summarise_vqa(asked, found, answer_candidates(questions))
    title = f"{responder.name} on {name}, {split} split: percent (95 % interval)"
    _print_scores(table, title, ("variant", "metric", "questions"))
    _print_effort(found, is_measured=answering.answers is None)
    _save(table, output, responder.run)


@main_process_only()
def chat(
    choice: ModelChoice,
    given: GivenSettings,
    answering: Answering,
    judging: JudgeOptions,
    data: Annotated[str, typer.Option(help="folder of the chatbot benchmark, or phantoms")] = PHANTOMS,
    images: Annotated[
        Path | None, typer.Option(help="folder of its pictures; by default DATA/images")
    ] = None,
    pictures: Annotated[int, typer.Option(help="phantoms: number of pictures")] = 50,
) -> None:
    """Answer the open-ended benchmark, real or of phantoms, and have the answers judged."""
    from medv_lab.evaluation.endpoint_judge import EndpointJudge
    from medv_lab.evaluation.judges import position_bias, summarise_verdicts
    from medv_lab.runtime import medv_home

    output = answering.output or medv_home() / "results" / f"chat-{Path(data).name}"
    preset = "embedded-description" if choice.model == "embedded" else "paper-open-ended"
    settings = given.over(PRESETS[preset])
    asked = _open_ended(data, images, pictures, answering)
    judge = judging.make(data, output)
    if answering.dry_run:
        _print_answering(asked, settings, answering.answers)
        _print_plan(judge, asked, settings, answering.answers)
        return
    responder = _load_responder(choice, settings, answering.answers)
    found = _answer(asked, responder, output, answering.batch_size)
    if found is None:
        return
    _print_effort(found, is_measured=answering.answers is None)
    if judge is None:
        typer.echo("not judged; --judge names a judge")
        return
    judgement = judge.judge(asked, found)
    table = summarise_verdicts(asked, judgement.verdicts).rename(columns={"relative": "score"})
    title = f"{responder.name}: score relative to the reference (95 % interval)"
    _print_scores(table, title, ("judge", "order", "group", "questions"))
    typer.echo(judgement.describe_unscored(len(asked)))
    for name in judgement.unscored:
        typer.echo(f"{'refused' if name in judgement.refused else 'no readable scores'}: {name}", err=True)
    if isinstance(judge, EndpointJudge):
        _print_spending("spent", judge.spending())
    if judging.swap:
        typer.echo(f"points of 10 gained by being shown first: {position_bias(judgement.verdicts)}")
    _save(table.assign(unscored=len(judgement.unscored)), output, responder.run)


def _load_responder(choice: ModelChoice, settings: GenerationSettings, answers: Path | None) -> Responder:
    from medv_lab.evaluation.loading import load_responder
    from medv_lab.evaluation.responders import FileResponder

    if answers is not None:
        return FileResponder(answers, answers.stem)
    if choice.model == "embedded":
        typer.echo(EMBEDDED_WARNING, err=True)
    return load_responder(choice, settings)


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
        if refused := sum(one.refusal is not None for one in found):
            typer.echo(f"{refused} of {len(found)} questions were refused; scores are over the rest")
        if noted := [one for one in found if one.notes]:
            first = f"{noted[0].question_id}: {noted[0].notes[0]}"
            typer.echo(f"{len(noted)} of {len(found)} answers have notes, the first of {first}", err=True)
    return found


def _open_ended(data: str, images: Path | None, pictures: int, answering: Answering) -> list[Question]:
    """Draw the questions about phantoms, or read those of the chatbot benchmark."""
    with_pictures = answering.answers is None
    if data == PHANTOMS:
        from medv_lab.phantoms.conversation import make_conversation

        asked = make_conversation(pictures=pictures, with_pictures=with_pictures)[: answering.limit]
    else:
        from medv_lab.data.chatbot import read_chatbot

        images = images or Path(data) / "images"
        reading = read_chatbot(data, images, need_images=answering.need_pictures)
        for one in reading.broken:
            typer.echo(f"broken: {one}", err=True)
        asked = list(reading.questions[: answering.limit])
        if not asked:
            raise ValueError(
                f"{data} has no usable question; its {len(reading.broken)} broken rows are listed above"
            )
        asked = asked if with_pictures else [replace(one, image=None) for one in asked]
    typer.echo(f"{len(asked)} questions")
    for counted in (Counter(one.kind for one in asked), Counter(one.tags["domain"] for one in asked)):
        typer.echo("  " + ", ".join(f"{name} {count}" for name, count in counted.items()))
    return asked


def _print_counts(counts: pd.DataFrame) -> None:
    """Print counts per split and type beside those that the paper publishes."""
    from medv_lab.paper.published import load_table

    published = load_table(8).replace({"split": {"val": "validation"}})
    published = published.set_index([published["dataset"].str.lower(), "split"])
    names = ("images", "question_answer_pairs", "closed_form", "open_form")
    rows = []
    for row in counts.itertuples():
        own = [getattr(row, name) for name in names]
        paper = [int(published.loc[(row.dataset, row.split), name]) for name in names]
        verdict = "equal" if own == paper else "differs: " + ", ".join(map(str, paper))
        rows.append((row.dataset, row.split, *own, verdict))
    print_table(rows, "data set", "split", "images", "questions", "closed", "open", "Table 8")


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
        f"{len(questions) * settings.most_passes:,} forward passes (a diffusion model)"
    )


def _print_plan(
    judged_by: OverlapJudge | FactJudge | EndpointJudge | None,
    asked: Sequence[Question],
    settings: GenerationSettings,
    answers: Path | None,
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
        text = "." * CHARACTERS_PER_TOKEN * settings.gen_length
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
    rows = [
        (*(getattr(row, name) for name in labels), f"{row.score:.2f}", f"{row.low:.2f} to {row.high:.2f}")
        for row in table.itertuples()
    ]
    print_table(rows, *labels, "score", "interval", title=title)


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


evaluate = typer.Typer(no_args_is_help=True, help="Score a model.")
add_commands(evaluate, phantoms, descriptions, vqa, chat, tables)

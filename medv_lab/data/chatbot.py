"""The biomedical visual chatbot benchmark of LLaVA-Med: 193 questions about 50 pictures.

Every question has the fixed answer of GPT-4 that a judge compares with, and the texts which that answer was
written from: the figure's caption and the sentences that mention it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from medv_lab.data.instructions import IMAGE_TOKEN
from medv_lab.data.rows import Fault, Reading, read_rows
from medv_lab.data.vqa_records import choice_of, collect, picture_in, text_of
from medv_lab.metrics.scoring import DOMAINS

QUESTIONS = "llava_med_eval_qa50_qa.jsonl"
KINDS = ("conversation", "detailed_description")


@dataclass(frozen=True)
class ChatbotQuestion:
    """One question.

    Attributes:
        id: unique; answers are paired by it.
        image: path of the picture.
        question: the text without the mark of the picture's place.
        answer: the fixed answer of GPT-4.
        kind: conversation or detailed_description.
        domain: the first of `metrics.DOMAINS` that is true, by which scores are reported.
        domains: all that are true.
        caption: of the figure.
        context: sentences that mention the figure; empty for some.
    """

    id: str
    image: Path
    question: str
    answer: str
    kind: str
    domain: str
    domains: tuple[str, ...]
    caption: str
    context: tuple[str, ...]


def read_chatbot(
    path: str | Path, images: str | Path, *, need_images: bool = True
) -> Reading[ChatbotQuestion]:
    """Read the benchmark.

    Args:
        path: `llava_med_eval_qa50_qa.jsonl`, or the folder that holds it.
        images: folder of the pictures.
        need_images: whether a picture that does not exist makes its row broken; judging needs texts alone.

    Returns:
        The questions, and the broken rows, of which a warning tells too.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    path = Path(path)
    rows = read_rows(path / QUESTIONS if path.is_dir() else path)
    return collect(rows, partial(_question, images=Path(images)), "question_id", need_images)


def _question(row: Mapping[str, Any], images: Path) -> ChatbotQuestion:
    flags = row.get("domain")
    domains = tuple(name for name in DOMAINS if isinstance(flags, Mapping) and flags.get(name) is True)
    if not domains:
        raise Fault("unknown domain", f"domain is {flags!r:.80}", f"one of {', '.join(DOMAINS)} must be true")
    text = text_of(row, "text").replace(IMAGE_TOKEN, "").strip()
    if not text:
        raise Fault("empty text", "the question is the picture's place alone", "write a question")
    return ChatbotQuestion(
        id=text_of(row, "question_id"),
        image=picture_in(images, text_of(row, "image")),
        question=text,
        answer=text_of(row, "gpt4_answer"),
        kind=choice_of(row, "type", KINDS),
        domain=domains[0],
        domains=domains,
        caption=text_of(row, "fig_caption"),
        context=_context(row.get("in_text_mention")),
    )


def _context(mentions: Any) -> tuple[str, ...]:
    """Sentences of {tokens: text} objects; the release has none for some figures."""
    if mentions is None:
        return ()
    if not isinstance(mentions, list) or not all(isinstance(one, Mapping) for one in mentions):
        raise Fault(
            "wrong type", f"in_text_mention is {mentions!r:.60}", "give a list of {tokens: text}, or null"
        )
    return tuple(text_of(one, "tokens") for one in mentions)

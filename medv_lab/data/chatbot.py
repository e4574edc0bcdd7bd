"""The biomedical visual chatbot benchmark of LLaVA-Med: 193 questions about 50 pictures.

A question's reference is the fixed answer of GPT-4 that a judge compares with; caption and context are the texts from
which that answer was written: the figure's caption and the sentences that mention it.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from medv_lab.data.instructions import IMAGE_TOKEN
from medv_lab.data.rows import Fault, Reading, choice_of, image_in, read_questions, read_rows, text_of
from medv_lab.records import Question

QUESTIONS = "llava_med_eval_qa50_qa.jsonl"
KINDS = ("conversation", "detailed_description")
DOMAINS = ("chest_xray", "mri", "histology", "gross", "ct_scan")


def read_chatbot(path: str | Path, images: str | Path, *, need_images: bool = True) -> Reading:
    """Read the benchmark.

    A question's kind is one of `KINDS`. Its tag "domain" is the first of `DOMAINS` that is true of it, by which
    LLaVA-Med reports scores; eight questions have a second one. Its context is empty where no sentence mentions the
    figure.

    Args:
        path: `llava_med_eval_qa50_qa.jsonl`, or the folder that holds it.
        images: folder of the pictures.
        need_images: if true, a picture that does not exist makes its row broken; judging needs texts alone.

    Returns:
        The questions, and the broken rows, of which a warning tells too.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    path = Path(path)
    rows = read_rows(path / QUESTIONS if path.is_dir() else path)
    return read_questions(rows, partial(_question, images=Path(images)), "question_id", need_images)


def _question(row: Mapping[str, Any], images: Path) -> Question:
    flags = row.get("domain")
    domains = [name for name in DOMAINS if isinstance(flags, Mapping) and flags.get(name) is True]
    if not domains:
        raise Fault("unknown domain", f"domain is {flags!r:.80}", f"one of {', '.join(DOMAINS)} must be true")
    text = text_of(row, "text").replace(IMAGE_TOKEN, "").strip()
    if not text:
        raise Fault("empty text", f"the question is {IMAGE_TOKEN} alone", "write a question")
    mentions = [] if row.get("in_text_mention") is None else row["in_text_mention"]
    if not isinstance(mentions, list) or not all(isinstance(one, Mapping) for one in mentions):
        remedy = "give a list of {tokens: text}, or null"
        raise Fault("wrong type", f"in_text_mention is {mentions!r:.60}", remedy)
    return Question(
        id=text_of(row, "question_id"),
        text=text,
        image=image_in(images, text_of(row, "image")),
        reference=text_of(row, "gpt4_answer"),
        kind=choice_of(row, "type", KINDS),
        tags={"domain": domains[0]},
        caption=text_of(row, "fig_caption"),
        context="\n".join(text_of(one, "tokens") for one in mentions),
    )

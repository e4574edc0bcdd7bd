"""Runs of the explorer and the HTML that shows them: numbers, history, difference, code and downloads."""

from __future__ import annotations

import base64
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from medv_lab.data.images import open_image
from medv_lab.explorer.controls import Recording
from medv_lab.metrics.repetition import measure_trace
from medv_lab.phantoms.facts import score_facts
from medv_lab.phantoms.scenes import Scene
from medv_lab.views.animation import save_gif
from medv_lab.views.caption import changed_settings, describe_lengths, describe_settings, make_caption
from medv_lab.views.page import unmasking_html

if TYPE_CHECKING:
    from medv_lab.generation import Answer
    from medv_lab.inputs.canvas import Canvas

TABLE_STYLE = (
    "<style>.medv-table :is(th, td) {padding: 1px 10px 1px 0; text-align: left; vertical-align: top}</style>"
)
LONGEST_IN_TABLE = 70  # characters of a question or an answer


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture to ask about.

    Attributes:
        name: as the gallery shows it.
        image: anything `open_image` takes.
        code: statements that make it, the last of them an assignment to `picture`.
        note: what it shows, and where it is from.
        scene: of a phantom.
    """

    name: str
    image: Any
    code: str
    note: str = ""
    scene: Scene | None = None


@dataclass(frozen=True, eq=False)
class Run:
    """One question, asked once.

    Attributes:
        number: counted from 1 in an explorer.
        side: "A" or "B", or the value of a sweep, "Z 8".
        picture, question: as `ask` was given them.
        answer: that `ask` returned.
        source: the picture as a data address, which players show.
        model_code: statement that loads the model.
        canvas: the answer as far as it was given, as `ask` took it.
        is_running: true while more passes are to come.
    """

    number: int
    side: str
    picture: Picture
    source: str
    question: str
    answer: Answer
    model_code: str
    canvas: Canvas | None = None
    is_running: bool = False

    @property
    def key(self) -> str:
        """Return number and side, "3B" or "3 Z 8"."""
        return f"{self.number}{self.side}" if len(self.side) == 1 else f"{self.number} {self.side}"

    @property
    def recording(self) -> Recording:
        """Return what was recorded besides the tokens."""
        trace = self.answer.trace
        return Recording(trace.attention is not None, trace.lens is not None)

    @property
    def caption(self) -> tuple[str, ...]:
        """Return the lines that go with everything that is exported of the run."""
        answer = self.answer
        return make_caption(self.question, self.picture.name, answer.settings, answer.manifest)

    def summary(self) -> str:
        """Return picture and settings in a line, as HTML."""
        settings, given = self.answer.settings, int(self.answer.trace.is_given.sum())
        text = f"{self.picture.name}: {describe_lengths(settings)}, {describe_settings(settings)}"
        return escape(f"{text}, {given} tokens given" if given else text)


def measure_run(run: Run) -> dict[str, str]:
    """Return the numbers of a run as the explorer shows them; repetition as in `metrics.repetition`."""
    trace, repetition = run.answer.trace, measure_trace(run.answer.trace)
    words = len(run.answer.text.split())
    mean = f"{trace.confidence.mean():.3f}" if len(trace.confidence) else "none"
    numbers = {
        "state": state_of(run),
        "forward passes (NFE)": str(trace.forward_evaluations),
        "tokens per pass": f"{trace.tokens_per_forward:.2f}" if trace.forward_evaluations else "none",
        "seconds": f"{run.answer.seconds:.2f}",
        "words": str(words),
        "mean confidence": mean,
        "remasked tokens": str(len(trace.remasked_step)),
        "adjacent duplicates": f"{repetition.adjacent_duplicates:.3f}",
        "rep-4": f"{repetition.rep_4:.3f}",
        "distinct-1": f"{repetition.distinct_1:.3f}",
        "in looped spans": f"{repetition.looped:.3f}",
    }
    if run.picture.scene is not None and run.question.lower().startswith("describe"):
        score = score_facts(run.answer.text, run.picture.scene)
        numbers["painted facts said (recall)"] = f"{score.recall:.2f}"
        numbers["claims that are true (precision)"] = f"{score.precision:.2f}"
    if run.answer.notes:
        numbers["notes"] = " ".join(run.answer.notes)
    return numbers


def state_of(run: Run) -> str:
    """Return how far a run came, in a word or two."""
    if run.is_running:
        return "running"
    answer = run.answer
    return "complete" if answer.is_complete else "cancelled" if answer.is_cancelled else "masks left"


def metrics_html(measured: Mapping[str, Mapping[str, str]]) -> str:
    """Return a table: one row per number, one column per run, from the numbers of each side."""
    numbers = pd.DataFrame(list(measured.values()), index=list(measured))
    return _table(numbers.T.fillna(""), header=len(measured) > 1)


def history_html(runs: Sequence[Run]) -> str:
    """Return a table of runs, the latest first."""
    if not runs:
        return "No run yet."
    rows = [
        {
            "run": run.key,
            "picture": run.picture.name,
            "question": _cut(run.question),
            "L / B / Z": " / ".join(str(getattr(run.answer.settings, name)) for name in "LBZ"),
            "other settings": describe_settings(run.answer.settings),
            "NFE": str(run.answer.trace.forward_evaluations),
            "seconds": f"{run.answer.seconds:.1f}",
            "answer": _cut(run.answer.text) + ("" if run.answer.is_complete else f" ({state_of(run)})"),
        }
        for run in reversed(runs)
    ]
    return _table(pd.DataFrame(rows), index=False)


def compare_texts(one: str, other: str) -> list[tuple[str, str]]:
    """Compare texts word by word: ("same" | "removed" | "added", text), which lead from one to the other."""
    words = [re.findall(r"\S+\s*", text) for text in (one, other)]
    parts: list[tuple[str, str]] = []
    matcher = SequenceMatcher(None, *([word.strip() for word in side] for side in words), autojunk=False)
    for kind, first, last, start, end in matcher.get_opcodes():
        if kind in ("delete", "replace"):
            parts.append(("removed", "".join(words[0][first:last])))
        if kind != "delete":
            parts.append(("same" if kind == "equal" else "added", "".join(words[1][start:end])))
    return parts


def difference_html(one: str, other: str) -> str:
    """Return the same as HTML: words of the first alone are struck out, those of the other alone underlined."""
    styles = {
        "removed": ("del", "background:#f6d5c3;color:#7a2d00;text-decoration:line-through"),
        "added": ("ins", "background:#cfe6f5;color:#003f6e;text-decoration:underline"),
    }
    shown = []
    for kind, text in compare_texts(one, other):
        tag, style = styles.get(kind, ("span", ""))
        shown.append(f'<{tag} style="{style}">{escape(text)}</{tag}>')
    return f'<div style="white-space:pre-wrap;line-height:1.5">{" ".join(shown)}</div>'


def reproducing_code(run: Run) -> str:
    """Return the code of a notebook cell that asks the same again."""
    settings = ", ".join(f"{name}={value!r}" for name, value in changed_settings(run.answer.settings).items())
    canvas = "" if run.canvas is None else f", canvas={run.canvas!r}"
    recorded = "".join(f", {name}={value!r}" for name, value in run.recording.options.items())
    return (
        "import medv_lab\n\n"
        f"{run.model_code}\n"
        f"{run.picture.code}\n"
        f"settings = medv_lab.GenerationSettings({settings})\n"
        f"answer = medv_lab.ask(model, processor, picture, {run.question!r}, settings{canvas}{recorded})\n"
        "print(answer.text)"
    )


def exported_files(run: Run) -> dict[str, bytes]:
    """Return a run's trace, page, animation and code by the ending of their names; each says what the caption says."""
    trace, caption = run.answer.trace, run.caption
    told = replace(trace, manifest={**trace.manifest, "caption": list(caption)})
    with tempfile.TemporaryDirectory() as folder:
        saved = told.save(Path(folder) / "trace.npz").read_bytes()
        picture = open_image(run.picture.image)
        animation = save_gif(trace, Path(folder) / "x.gif", caption, picture).read_bytes()
    comments = "".join(f"# {' '.join(line.split())}\n" for line in caption)
    return {
        "npz": saved,
        "html": unmasking_html(trace, run.picture.image, caption).html.encode(),
        "gif": animation,
        "py": f"{comments}{reproducing_code(run)}\n".encode(),
    }


def downloads_html(run: Run) -> str:
    """Return links to the files of a run, which hold the files themselves, and the code that asks again."""
    stem = re.sub(r"\W+", "-", f"medv-lab-run-{run.key}")
    names = {"npz": "trace", "html": "page", "gif": "animation", "py": "code"}
    kinds = {
        "npz": "application/octet-stream",
        "html": "text/html",
        "gif": "image/gif",
        "py": "text/x-python",
    }
    links = [
        _link(f"{stem}.{end}", content, kinds[end], f"{names[end]} (.{end})")
        for end, content in exported_files(run).items()
    ]
    return (
        f"<p>Run {run.key}: {' · '.join(links)}</p>"
        f'<pre style="white-space:pre-wrap;user-select:all">{escape(reproducing_code(run))}</pre>'
    )


def _link(name: str, content: bytes, kind: str, text: str) -> str:
    data = base64.b64encode(content).decode("ascii")
    return (
        f'<a download="{name}" href="data:{kind};base64,{data}" style="text-decoration:underline">{text}</a>'
    )


def _table(frame: pd.DataFrame, **options: bool) -> str:
    with pd.option_context("display.max_colwidth", None):
        return TABLE_STYLE + frame.to_html(border=0, classes="medv-table", **options)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_IN_TABLE else f"{text[: LONGEST_IN_TABLE - 1]}…"

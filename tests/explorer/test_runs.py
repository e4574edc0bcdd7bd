"""What is shown of a run: its numbers, the difference of two, and code that asks the same again."""

import base64
import io
import re
from dataclasses import replace
from html import unescape
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from medv_lab.config import GenerationSettings
from medv_lab.diffusion.attention_maps import PatchAttention, PatchGrid
from medv_lab.diffusion.trace import SampleTrace
from medv_lab.explorer import runs
from medv_lab.explorer.runs import Picture, Run
from medv_lab.phantoms.facts import score_facts
from medv_lab.phantoms.scenes import make_scene
from medv_lab.views.animation import save_gif
from tests.views.test_trace_plots import make_trace

PICTURE = Picture("a & b", np.zeros((8, 8), np.uint8), 'picture = "x.png"', "a note")
SETTINGS = GenerationSettings(8, 4, 8, temperature=0.5)


def make_run(**changes) -> Run:
    trace = make_trace()
    attention = PatchAttention(
        (0,), np.zeros((len(trace.step), 1, 1), np.float16), (PatchGrid(0, 0, 1, 1, 1, (0, 0, 1, 1)),)
    )
    trace = replace(trace, attention=attention)
    answer = SimpleNamespace(
        text=trace.text, trace=trace, seconds=1.25, is_complete=True, settings=SETTINGS, manifest={}, notes=()
    )
    fields = {
        "number": 3,
        "side": "B",
        "picture": PICTURE,
        "question": "Is it <b>?",
        "answer": answer,
        "model_code": "model, processor = medv_lab.load('embedded')",
        "source": "data:,",
    }
    return Run(**fields | changes)


def cells(html: str) -> list[list[str]]:
    rows = re.findall(r"<tr.*?>(.*?)</tr>", html, re.DOTALL)
    return [[unescape(text) for text in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row)] for row in rows]


def test_numbers_are_those_of_the_trace():
    run = make_run()
    numbers = runs.measure_run(run)
    trace = run.answer.trace
    assert numbers["forward passes (NFE)"] == str(trace.forward_evaluations) == "4"
    assert numbers["tokens per pass"] == f"{trace.tokens_per_forward:.2f}"
    assert (numbers["mean confidence"], numbers["seconds"], numbers["state"]) == ("0.500", "1.25", "complete")
    assert not [name for name in numbers if "fact" in name]
    assert cells(runs.metrics_html({"B": numbers})) == [[name, value] for name, value in numbers.items()]
    both = cells(runs.metrics_html({"A": numbers, "B": numbers}))
    assert both[0] == ["", "A", "B"]
    assert both[1:] == [[name, value, value] for name, value in numbers.items()]


def test_descriptions_of_phantoms_are_held_to_what_was_painted():
    scene = make_scene("test", 0)
    run = make_run(picture=replace(PICTURE, scene=scene), question="Describe the image.")
    score = score_facts(run.answer.text, scene)
    numbers = runs.measure_run(run)
    assert numbers["painted facts said (recall)"] == f"{score.recall:.2f}"
    assert numbers["claims that are true (precision)"] == f"{score.precision:.2f}"


def test_a_run_without_a_pass_has_numbers():
    empty = make_trace(
        **{
            name: getattr(make_trace(), name)[:0]
            for name in ("step", "block", "position", "token_id", "stops")
        },
        confidence=np.zeros(0),
        entropy=np.zeros(0),
        alternative_ids=np.zeros((0, 0), int),
        alternative_probs=np.zeros((0, 0)),
    )
    answer = SimpleNamespace(
        text="",
        trace=empty,
        seconds=0.0,
        is_complete=False,
        is_cancelled=True,
        settings=SETTINGS,
        notes=("Flat.",),
    )
    numbers = runs.measure_run(make_run(answer=answer))
    assert (numbers["state"], numbers["tokens per pass"], numbers["words"]) == ("cancelled", "none", "0")
    assert numbers["notes"] == "Flat."


def test_the_history_has_the_latest_first_and_keeps_text_as_text():
    first, last = make_run(number=1, side="A"), make_run(question="why " * 50)
    table = cells(runs.history_html([first, last]))
    assert [row[0] for row in table] == ["run", "3B", "1A"]
    assert table[2][1:6] == ["a & b", "Is it <b>?", "8 / 4 / 8", "temperature 0.5", "4"]
    assert len(table[1][2]) == runs.LONGEST_IN_TABLE
    assert "<b>?" not in runs.history_html([first])
    assert runs.history_html([]) == "No run yet."


def test_differences_are_told_word_by_word():
    parts = [("same", "a "), ("removed", "b "), ("added", "x "), ("same", "c")]
    assert runs.compare_texts("a b c", "a x c") == parts
    assert runs.compare_texts("", "a") == [("added", "a")]


@pytest.mark.parametrize("seed", range(5))
def test_a_difference_leads_from_one_text_to_the_other(seed):
    random = np.random.default_rng(seed)
    one, other = (" ".join(random.choice(list("abc"), 12)) for _ in range(2))
    parts = runs.compare_texts(one, other)
    for text, gone in ((one, "added"), (other, "removed")):
        assert "".join(part for kind, part in parts if kind != gone).split() == text.split()


def test_a_difference_keeps_text_as_text():
    html = runs.difference_html("a <b>", "a <i>")
    assert set(re.findall(r"<(\w+)", html)) == {"div", "span", "del", "ins"}
    assert unescape(re.sub(r"<[^>]*>", "", html)).split() == ["a", "<b>", "<i>"]


def test_downloads_hold_the_trace_the_page_an_animation_and_the_code(tmp_path):
    run = make_run()
    html = runs.downloads_html(run)
    links = dict(re.findall(r'download="([^"]+)" href="data:[^;]+;base64,([^"]+)"', html))
    files = {name: base64.b64decode(content) for name, content in links.items()}
    assert set(files) == {f"medv-lab-run-3B.{kind}" for kind in ("npz", "html", "gif", "py")}
    path = tmp_path / "trace.npz"
    path.write_bytes(files["medv-lab-run-3B.npz"])
    assert SampleTrace.load(path).replay().tolist() == run.answer.trace.replay().tolist()
    assert files["medv-lab-run-3B.html"].startswith(b"<!doctype html>")
    assert runs.reproducing_code(run) in files["medv-lab-run-3B.py"].decode()
    with Image.open(io.BytesIO(files["medv-lab-run-3B.gif"])) as image:
        assert image.n_frames == 5
    assert 'download="medv-lab-run-3-Z-8.gif"' in runs.downloads_html(replace(run, side="Z 8"))


def test_every_export_says_what_was_asked_of_which_model_and_that_it_is_no_medical_device(tmp_path):
    manifest = {"model": {"name": "tiny"}}
    run = make_run(question="Why\nthis?")
    run.answer.manifest = manifest
    assert run.caption == (
        "Question: Why\nthis?",
        "Picture: a & b",
        "Model: tiny",
        "Settings: L 8, B 4, Z 8, temperature 0.5",
        "Not a medical device.",
    )
    files = runs.exported_files(run)
    (tmp_path / "x.npz").write_bytes(files["npz"])
    assert SampleTrace.load(tmp_path / "x.npz").manifest["caption"] == list(run.caption)
    assert b"Picture: a \\u0026 b" in files["html"] and b"Not a medical device." in files["html"]
    assert files["py"].decode().startswith("# Question: Why this?\n# Picture: a & b\n# Model: tiny\n")
    picture = Image.fromarray(run.picture.image)
    gifs = [
        save_gif(run.answer.trace, tmp_path / "x.gif", caption, picture).read_bytes()
        for caption in ((), run.caption)
    ]
    assert files["gif"] == gifs[1] != gifs[0]


def test_the_code_asks_the_same_again(monkeypatch):
    asked = {}
    fake = SimpleNamespace(
        load=lambda name: (f"model {name}", "processor"),
        GenerationSettings=GenerationSettings,
        ask=lambda *arguments, **more: (
            asked.update(arguments=arguments, more=more) or SimpleNamespace(text="!")
        ),
    )
    monkeypatch.setitem(__import__("sys").modules, "medv_lab", fake)
    run = make_run()
    exec(runs.reproducing_code(run), {})
    assert asked["arguments"] == ("model embedded", "processor", "x.png", run.question, run.answer.settings)
    assert asked["more"] == {"record_attention": True}

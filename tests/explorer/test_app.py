"""The explorer worked from code: runs, cancelling, errors, comparison, uploads; nothing is left behind."""

import base64
import gc
import io
import threading
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from ipywidgets.widgets.widget import _instances
from PIL import Image

import medv_lab
from medv_lab.config import GenerationSettings
from medv_lab.data.images import sample_images
from medv_lab.explorer import app as module
from medv_lab.explorer import asking, results
from medv_lab.explorer.app import Explorer, explore
from medv_lab.explorer.asking import OpenModel
from medv_lab.explorer.runs import reproducing_code
from medv_lab.explorer.sides import BOTH, ONE
from medv_lab.generation import ask
from medv_lab.inputs.canvas import read_canvas
from tests.model.tiny import tiny_model, tiny_processor

PATIENCE = 60
MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def tiny():
    return tiny_model(initializer_range=0.4), tiny_processor()


@pytest.fixture
def opened(tiny):
    explorer = Explorer(OpenModel(partial(ask, *tiny), "model, processor = None, None", "tiny"))
    set_lengths(explorer, "A", 8, 4, 8)
    set_lengths(explorer, "B", 8, 8, 2)
    yield explorer
    explorer.close()


def set_lengths(explorer: Explorer, side: str, length: int, block: int, steps: int) -> None:
    panel = explorer.panels[side]
    panel.gen_length.value, panel.block_length.value, panel.steps.value = length, block, steps


def finish(explorer: Explorer) -> None:
    explorer.run()
    assert explorer.wait(PATIENCE)


def upload(explorer: Explorer, name: str, content: bytes) -> None:
    explorer.pictures.upload.value = (
        {
            "name": name,
            "type": "",
            "size": len(content),
            "content": content,
            "last_modified": datetime.now(UTC),
        },
    )


def png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30), np.uint8)).save(file, format="PNG")
    return file.getvalue()


def test_a_run_is_what_asking_gives(opened, tiny):
    opened.question.value = "What organ is shown?"
    finish(opened)
    (run,) = opened.results.runs
    assert opened.message.value == ""
    assert (run.key, run.answer.settings, run.question) == (
        "1A",
        opened.panels["A"].settings(),
        "What organ is shown?",
    )
    alone = ask(*tiny, run.picture.image, run.question, run.answer.settings, record_attention=True)
    assert run.answer.trace.token_id.tolist() == alone.trace.token_id.tolist()
    data = opened.results.player("A").data
    assert data["token"] == alone.trace.token_id.tolist()
    assert data["picture"].startswith("data:image/png") and data["looks"]["rows"] == 4
    assert len(base64.b64decode(data["over_passes"]["final_probability"])) == 8 * 8
    assert opened.progress.value == opened.progress.max == 8
    assert "8 passes" in opened.status.value
    assert opened.cancel_button.disabled and not opened.run_button.disabled


def test_the_canvas_fills_while_the_model_works(opened, monkeypatch):
    monkeypatch.setattr(asking, "REFRESH", 0.0)
    seen = []
    player = opened.results.player("A")
    player.observe(lambda change: seen.append((len(change["new"]["token"]), change["new"]["run"])), "data")
    finish(opened)
    assert seen[:8] == [(count, "1A") for count in range(1, 9)]


def test_while_it_runs_caption_numbers_and_status_are_those_of_the_run(opened, monkeypatch):
    monkeypatch.setattr(asking, "REFRESH", 0.0)
    finish(opened)
    set_lengths(opened, "A", 8, 8, 4)
    seen = []

    def look(change):
        shown = opened.results
        seen.append((shown._titles["A"].value, shown.metrics.value, opened.status.value))

    opened.progress.observe(look, "value")
    finish(opened)
    opened.progress.unobserve_all()
    begun, *going = seen
    assert "no pass yet; below is still run 1A" in begun[0] and begun[1] == "No pass yet."
    for number, (title, numbers, status) in enumerate(going, 1):
        assert "run 2A is running" in title and "L 8, B 8, Z 4" in title
        assert "<td>running</td>" in numbers and f"<td>{number}</td>" in numbers
        assert status == f"A: pass {number} of at most 4 (NFE)"
    assert len(going) == 4
    assert "run 2A," in opened.results._titles["A"].value
    assert "<td>complete</td>" in opened.results.metrics.value


def test_enter_in_the_question_asks_it(opened):
    opened._frame.asked = ["What organ is shown?", 1]
    assert opened.wait(PATIENCE)
    (run,) = opened.results.runs
    assert run.question == opened.question.value == "What organ is shown?"


def test_a_sweep_asks_once_per_value_and_shows_all_answers(opened):
    opened.sweeping.values.value = "2, 4, 8"
    opened.sweep()
    assert opened.wait(PATIENCE)
    assert [run.key for run in opened.results.runs] == ["1 Z 2", "1 Z 4", "1 Z 8"]
    assert [run.answer.settings.Z for run in opened.results.runs] == [2, 4, 8]
    assert opened.results.multiple.value.count("<section") == 3
    assert "3 answers, 14 passes (NFE)" in opened.status.value
    assert "<th>Z 4</th>" in opened.results.metrics.value
    finish(opened)
    assert opened.results.multiple.value == ""


def test_a_sweep_of_impossible_values_is_one_message(opened):
    opened.sweeping.values.value = "3"
    opened.sweep()
    assert opened.wait(PATIENCE)
    assert "not divisible" in opened.message.value and not opened.results.runs


def test_gaps_of_a_text_are_filled_and_the_rest_stays(opened, tiny):
    opened.filling.field.value = "A ____ x"
    opened.filling.button.click()
    assert opened.wait(PATIENCE) and opened.message.value == ""
    (run,) = opened.results.runs
    given = run.answer.trace.is_given
    start = read_canvas("A ____ x", tiny[1].tokenizer)
    assert given[: len(start)].tolist() == [token != tiny[1].special.mask for token in start]
    assert run.answer.trace.replay()[given].tolist() == run.answer.trace.given[given].tolist()
    assert f"{given.sum()} tokens given" in opened.results._titles["A"].value
    assert "canvas='A ____ x'" in reproducing_code(run)


def test_tokens_that_were_kept_by_hand_stay_and_the_others_are_written_anew(opened, tiny):
    opened.mode.value = BOTH
    opened.panels["A"].temperature.value = 0.5
    opened.question.value = "What organ is shown?"
    finish(opened)
    first, other = opened.results.runs
    opened.question.value, opened.panels["A"].temperature.value = "Something else?", 0.0
    canvas = first.answer.trace.replay().tolist()
    canvas[2:6] = [tiny[1].special.mask] * 4
    opened.results.player("A").edited = [first.key, canvas, 1]
    assert opened.wait(PATIENCE) and opened.message.value == ""
    run = opened.results.runs[-1]
    assert (run.key, run.question, run.picture) == ("2A", first.question, first.picture)
    assert run.answer.settings == first.answer.settings
    kept = [0, 1, 6, 7]
    assert run.answer.trace.replay()[kept].tolist() == [canvas[position] for position in kept]
    assert run.answer.trace.position.tolist() and set(run.answer.trace.position.tolist()) <= {2, 3, 4, 5}
    assert opened.results.player("B").data["run"] == other.key  # stays to be compared with
    assert "<th>A</th>" in opened.results.metrics.value and "From A to B" in opened.results.difference.value
    opened.results.player("A").edited = [first.key, canvas, 2]  # no longer shown there
    assert len(opened.results.runs) == 3


def test_a_run_of_another_model_does_not_go_on(opened):
    finish(opened)
    (run,) = opened.results.runs
    opened._model = replace(opened._model, code="another")
    opened.go_on("A", run, run.answer.trace.replay())
    assert opened.wait(PATIENCE)
    assert "run 1A is of another model" in opened.message.value and len(opened.results.runs) == 1


def test_another_model_is_asked_once_it_is_loaded(tiny):
    asked = []

    def answering(name):
        def begin(*arguments, **more):
            asked.append(name)
            return ask(*tiny, *arguments, **more)

        return OpenModel(begin, f"load({name!r})", name)

    def load(name):
        if name == "none":
            raise ValueError("there is no such folder")
        return answering(name)

    explorer = Explorer(answering("first"), load=load)
    set_lengths(explorer, "A", 8, 8, 8)
    finish(explorer)
    for name in ("second", "none"):
        explorer.naming.field.value = name
        explorer.naming.button.click()
        assert explorer.wait(PATIENCE)
        finish(explorer) if name == "second" else None
    assert asked == ["first", "second"]
    assert "second" in explorer.title.value and "there is no such folder" in explorer.message.value
    assert [run.model_code for run in explorer.results.runs] == ["load('first')", "load('second')"]
    explorer.close()


def test_cancelling_keeps_what_there_is_and_the_next_run_is_whole(opened, monkeypatch):
    monkeypatch.setattr(asking, "REFRESH", 0.0)
    player = opened.results.player("A")
    player.observe(lambda change: len(change["new"]["token"]) == 3 and opened.cancel(), "data")
    finish(opened)
    player.unobserve_all()
    (run,) = opened.results.runs
    assert not run.answer.is_complete
    assert run.answer.trace.forward_evaluations == 3
    assert opened.status.value.startswith("cancelled: 3 passes")
    finish(opened)
    assert opened.results.runs[-1].answer.is_complete


def test_two_settings_are_compared(opened):
    finish(opened)
    opened.mode.value = BOTH
    finish(opened)
    one, other = list(opened.results.runs)[-2:]
    assert (one.key, other.key) == ("2A", "2B")
    assert (one.answer.settings.B, other.answer.settings.B) == (4, 8)
    assert opened.status.value.startswith("done: A 8 + B 2 = 10 passes (NFE), ")
    assert opened.results.player("B").data["run"] == "2B"
    assert "From A to B" in opened.results.difference.value
    assert opened.results.metrics.value.count("<td>") > 10
    opened.mode.value = ONE
    finish(opened)
    assert opened.results.difference.value == ""


def test_an_earlier_run_can_be_opened_again(opened):
    finish(opened)
    first = opened.results.runs[0]
    set_lengths(opened, "A", 16, 4, 8)
    finish(opened)
    opened.results.reopen.value = first
    assert opened.results.player("A").data["run"] == first.key
    assert opened.results.player("A").data["length"] == 8
    opened.results.prepare_downloads()
    assert "medv-lab-run-1A.npz" in opened.results.downloads.value


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda e: setattr(e.question, "value", " "), "the question is empty"),
        (lambda e: setattr(e.question, "value", "why " * 600), "too long"),
        (lambda e: setattr(e.panels["A"].suppressed, "value", "all"), "give &#x27;reference&#x27;"),
    ],
)
def test_what_goes_wrong_is_one_readable_message_and_the_next_run_works(opened, spoil, message):
    question = opened.question.value
    spoil(opened)
    finish(opened)
    assert message in opened.message.value and opened.message.value.count('role="alert"') == 1
    assert opened.status.value == "failed"
    assert not opened.results.runs and not opened.run_button.disabled
    opened.question.value, opened.panels["A"].suppressed.value = question, "reference"
    finish(opened)
    assert opened.message.value == "" and len(opened.results.runs) == 1


@pytest.mark.parametrize("error", [RuntimeError, SystemExit, MemoryError])
def test_whatever_is_raised_is_shown_and_its_markup_stays_text(error):
    def fail(*arguments, **more):
        raise error("no <script>alert(1)</script>")

    explorer = Explorer(OpenModel(fail, ""))
    for _ in range(2):
        finish(explorer)
        assert f"{error.__name__}: no &lt;script&gt;" in explorer.message.value
    explorer.close()


def test_explorers_take_turns_and_a_waiting_run_can_be_cancelled(tiny):
    asked = []

    def watched(name):
        def begin(*arguments, **more):
            asked.append(name)
            return ask(*tiny, *arguments, **more)

        return Explorer(OpenModel(begin, ""))

    first, second, third = map(watched, "123")
    set_lengths(first, "A", 256, 1, 256)
    for explorer in (first, second, third):
        explorer.run()
    third.cancel()
    assert third.wait(PATIENCE) and third.status.value == "cancelled"
    assert not second.wait(0.05)
    first.cancel()
    assert first.wait(PATIENCE) and second.wait(PATIENCE)
    assert asked == ["1", "2"]
    assert first.status.value.startswith("cancelled") and second.status.value.startswith("done")
    for explorer in (first, second, third):
        explorer.close()


def test_pictures_of_all_kinds_are_taken(opened):
    dicom = sample_images()["spine ct"].read_bytes()
    for name, content in (("a.png", png()), ("b.dcm", dicom)):
        upload(opened, name, content)
        assert (opened.pictures.picture.name, opened.pictures.gallery.chosen) == (name, -1)
        finish(opened)
        assert opened.results.runs[-1].picture.image == content
    upload(opened, "c.png", b"no picture")
    assert (
        "c.png" in opened.pictures.message.value and "not a readable picture" in opened.pictures.message.value
    )
    assert opened.pictures.picture.name == "b.dcm"
    opened.pictures.gallery.chosen = 3
    assert opened.pictures.picture.scene.domain in opened.pictures.note.value
    assert opened.pictures.message.value == ""


def test_examples_fill_the_question(opened):
    opened.examples.value = module.EXAMPLES[2]
    assert (opened.question.value, opened.examples.index) == (module.EXAMPLES[2], 0)


def test_running_twice_at_once_is_running_once(opened):
    opened.run()
    opened.run()
    assert opened.wait(PATIENCE)
    assert len(opened.results.runs) == 1


def test_fifty_runs_leave_threads_and_memory_as_they_were(opened):
    opened.question.value = "What?"
    process = psutil.Process()
    for _ in range(15):  # caches of every kind fill up, and the history
        finish(opened)
    gc.collect()
    threads, memory, widgets = threading.active_count(), process.memory_info().rss, len(_instances)
    for _ in range(50):
        finish(opened)
    gc.collect()
    grown = process.memory_info().rss - memory
    assert threading.active_count() <= threads  # those of earlier tests may end
    assert len(_instances) == widgets
    assert len(opened.results.runs) == results.KEPT_RUNS
    assert grown < 20 * MEGABYTE, f"{grown / MEGABYTE:.1f} MB more after 50 runs"


def test_closing_ends_the_run_and_takes_all_widgets_away(tiny):
    before = set(_instances)
    explorer = Explorer(OpenModel(partial(ask, *tiny), ""))
    set_lengths(explorer, "A", 256, 1, 256)
    explorer.run()
    explorer.close()
    assert set(_instances) <= before


def test_the_same_cell_has_one_explorer(monkeypatch, tiny):
    tiny[0].medv_source = SimpleNamespace(name="tiny")
    cells = iter(["one", "one", "two", None])
    shell = SimpleNamespace(get_parent=lambda: {"metadata": {"cellId": next(cells)}})
    monkeypatch.setattr(module, "get_ipython", lambda: shell)
    opened = []
    for _ in range(4):
        opened.append(medv_lab.explore(*tiny))
    assert [explorer.comm is None for explorer in opened] == [True, False, False, False]
    for explorer in opened[1:]:
        explorer.close()


def test_a_strategy_of_the_user_s_own_is_what_it_begins_with(tiny, right_first):
    tiny[0].medv_source = SimpleNamespace(name="tiny")
    settings = GenerationSettings(8, 8, 8, remasking=right_first(2.0), cfg_scale=0.5)
    explorer = medv_lab.explore(*tiny, settings=settings)
    assert explorer.panels["A"].remasking.names.value == "right_first"
    assert explorer.panels["B"].settings() == settings
    finish(explorer)
    (run,) = explorer.results.runs
    assert run.answer.settings == settings
    assert run.answer.trace.position.tolist() == [7, 6, 5, 4, 3, 2, 1, 0]
    assert "right_first (weight 2.0" in explorer.results.history.value
    explorer.close()


def test_a_model_without_its_processor_is_refused(tiny):
    for arguments in (tiny[:1], ("embedded", tiny[1])):
        with pytest.raises(ValueError, match="give the name of a model alone"):
            explore(*arguments)


def test_the_kernel_is_free_while_a_run_goes_on(opened):
    set_lengths(opened, "A", 256, 256, 256)
    opened.run()
    ticks = 0
    while ticks < 6 and not opened.wait(0.005):
        ticks += 1
    opened.cancel()
    assert opened.wait(PATIENCE)
    assert ticks == 6

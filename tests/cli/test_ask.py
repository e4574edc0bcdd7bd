"""One question, and what the machine has."""

from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image

from medv_lab.config import PRESETS
from medv_lab.diffusion.trace import SampleTrace
from tests.cli.console import fails_in_one_line, invoke, succeeds
from tests.data.released import draw
from tests.model.tiny import save_tiny

SHORT = ("--gen-length", "8", "--block-length", "8", "--steps", "4", "--device", "cpu")


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny(folder / "model", initializer_range=0.4)
    return "ask", draw(folder / "x.png"), "What is shown?", "--model", folder / "model"


def test_an_answer_is_printed_and_its_trace_saved(asked, tmp_path):
    chosen = ("--remasking", "threshold:threshold=0.5", "--guard", "spread:spacing=2", "--stop", "")
    output = succeeds(*asked, *SHORT, *chosen, "--trace", tmp_path / "trace.npz")
    trace = SampleTrace.load(tmp_path / "trace.npz")
    assert trace.text.strip() in output
    settings = trace.manifest["settings"]
    assert settings["remasking"] == {"name": "threshold", "threshold": 0.5}
    assert settings["guard"] == {"name": "spread", "spacing": 2}
    assert (settings["gen_length"], settings["steps"]) == (8, 4)


def test_a_page_and_an_animation_say_what_was_asked_of_which_model(asked, tmp_path):
    page, animation = tmp_path / "pages" / "x.html", tmp_path / "x.gif"
    succeeds(*asked, *SHORT, "--html", page, "--gif", animation)
    html = page.read_text()
    for part in ("Question: What is shown?", "Picture: x.png", "L 8, B 8, Z 4", "Not a medical device."):
        assert part in html
    with Image.open(animation) as image:
        assert image.n_frames == 5


def test_a_preset_has_the_settings_that_are_not_given(asked, tmp_path):
    succeeds(
        *asked, "--device", "cpu", "--preset", "embedded-vqa", "--steps", "4", "--trace", tmp_path / "x.npz"
    )
    settings = SampleTrace.load(tmp_path / "x.npz").manifest["settings"]
    assert (settings["gen_length"], settings["steps"]) == (PRESETS["embedded-vqa"].L, 4)


@pytest.mark.parametrize(("more", "length"), [((), None), (("--gen-length", "40", "--steps", "8"), 40)])
def test_a_canvas_is_filled(asked, tmp_path, more, length):
    _, picture, question, *model = asked
    canvas = "There is ____ in the left lung."
    filled = ("fill", picture, question, canvas, *model, "--device", "cpu", "--trace", tmp_path / "x.npz")
    output = succeeds(*filled, *more)
    trace = SampleTrace.load(tmp_path / "x.npz")
    assert "There is" in output and "in the left lung." in output
    shortest = int(np.flatnonzero(trace.is_given)[-1]) + 1
    assert trace.gen_length == (length or shortest)
    assert (~trace.is_given[:shortest]).sum() == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--gen-length", "64", "--block-length", "24"), "not divisible"),
        (("--device", "tpu"), "tpu"),
        (("--device", "[x]"), "[x]"),  # no markup
    ],
)
def test_what_is_impossible_is_one_line(arguments, message):
    assert message in fails_in_one_line("ask", "x.png", "What?", *arguments)


def test_a_fault_of_ours_is_one_line_and_its_traceback_is_a_variable_away(monkeypatch):
    def fault():
        raise KeyError("a fault")

    monkeypatch.setattr("medv_lab.model.checkpoint_files.doctor", fault)
    found = invoke("doctor")
    assert found.exit_code == 1 and "MEDV_TRACEBACK=1" in found.stderr
    monkeypatch.setenv("MEDV_TRACEBACK", "1")
    assert isinstance(invoke("doctor").exception, KeyError)


def test_the_doctor_names_every_known_checkpoint():
    assert "LLaDA" in succeeds("doctor")


def test_a_rehearsal_folder_is_written_and_answers_in_few_bits(asked, tmp_path):
    written = succeeds("rehearse", "--size", "tiny", "--out", tmp_path / "tiny")
    assert "model-00001-of-" in written
    picture, question = asked[1:3]
    few = () if find_spec("torchao") is None else ("--quantization", "int8")
    assert succeeds("ask", picture, question, "--model", tmp_path / "tiny", *SHORT, *few).split()
    assert "not empty" in fails_in_one_line("rehearse", "--size", "small", "--out", tmp_path / "tiny")


@pytest.mark.parametrize("option", ["--trace", "--html", "--gif"])
@pytest.mark.parametrize("place", [".", "/dev/full", "file/x", "/proc/nowhere/x"])
def test_a_place_that_cannot_be_written_is_said_before_anything_is_asked(
    tmp_path, monkeypatch, option, place
):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("medv_lab.model.checkpoints.load", None)  # whoever loads a model fails
    line = fails_in_one_line("ask", draw(tmp_path / "a.png"), "What?", option, tmp_path / place)
    assert "cannot be written" in line or "folder" in line

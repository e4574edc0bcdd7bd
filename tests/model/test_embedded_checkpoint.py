"""The shipped checkpoint: small, whole, deterministic, the same in a batch as alone, and every trace replays."""

import json

import pytest

import medv_lab
from medv_lab.config import PRESETS
from medv_lab.data.images import sample_images
from medv_lab.model.checkpoint_files import embedded_folder
from medv_lab.phantoms.facts import parse_report, score_facts
from medv_lab.phantoms.rendering import render
from medv_lab.phantoms.scenes import make_scene

MOST_BYTES = 12_000_000
QUESTIONS = (
    "What type of image is this?",
    "Is this image normal?",
    "On which side is the abnormality?",
    "What abnormality is present?",
    "Is there a tumour?",
    "In which zone is the abnormality?",
    "Give a short caption.",
    "How extensive is the abnormality?",
)


@pytest.fixture(scope="module")
def loaded():
    return medv_lab.load("embedded", device="cpu")


@pytest.fixture(scope="module")
def pictures():
    return [render(make_scene("test", index)) for index in range(len(QUESTIONS))]


def test_it_is_small_and_says_what_made_it():
    folder = embedded_folder()
    assert sum(file.stat().st_size for file in folder.iterdir()) < MOST_BYTES
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["dirty"] is False
    assert manifest["settings"]["vision_steps"] > 0
    assert (folder / "README.md").read_text().startswith("---")


def test_a_batch_of_eight_gives_what_eight_single_runs_give(loaded, pictures):
    settings = PRESETS["embedded-vqa"]
    together = medv_lab.ask_many(*loaded, pictures, QUESTIONS, settings, batch_size=8)
    alone = [
        medv_lab.ask(*loaded, picture, question, settings)
        for picture, question in zip(pictures, QUESTIONS, strict=True)
    ]
    assert [answer.text for answer in together] == [answer.text for answer in alone]
    assert all(answer.text for answer in together)


def test_a_saved_trace_replays_to_the_same_text(loaded, pictures, tmp_path):
    answer = medv_lab.ask(*loaded, pictures[0], "Describe the image.", PRESETS["embedded-description"])
    trace = medv_lab.SampleTrace.load(answer.trace.save(tmp_path / "trace.npz"))
    assert trace.text == answer.text
    assert trace.text_at(trace.forward_evaluations - 1) == answer.text
    assert len(answer.text.split()) > 20


def test_descriptions_are_true_reports(loaded, pictures):
    settings = PRESETS["embedded-description"]
    answers = medv_lab.ask_many(*loaded, pictures, ["Describe the image."] * 8, settings)
    scores = [score_facts(a.text, make_scene("test", i)).f1 for i, a in enumerate(answers)]
    wrong = [
        score_facts(a.text, make_scene("test", i + 5)).f1 for i, a in enumerate(answers)
    ]  # of the domain
    assert sum(scores) / 8 > 0.9 > 0.6 > sum(wrong) / 8
    assert sum(parse_report(a.text).well_formed for a in answers) / 8 > 0.95


def test_it_answers_about_a_real_dicom_radiograph(loaded):
    answer = medv_lab.ask(
        *loaded, sample_images()["chest x-ray"], "Is this image normal?", PRESETS["embedded-vqa"]
    )
    assert answer.text
    assert answer.manifest["model"]["name"] == "embedded"

"""The visual chatbot benchmark: a made file always, the real one where it is."""

from collections import Counter

import pytest

from medv_lab.data.chatbot import read_chatbot
from tests.data.released import chatbot_row, make_chatbot, real_folders


@pytest.mark.parametrize(
    "real", [None, *real_folders("llava_med_eval")], ids=lambda f: "real" if f else "made"
)
def test_the_benchmark_is_whole(tmp_path, real):
    folder = real or make_chatbot(tmp_path)
    reading = read_chatbot(folder, folder / "images", need_images=real is None)
    assert reading.broken == ()
    questions = reading.questions
    kinds = Counter(one.kind for one in questions)
    domains = Counter(one.tags["domain"] for one in questions)
    if real:
        assert len({one.image for one in questions}) == 50
        assert kinds == {"conversation": 143, "detailed_description": 50}
        assert domains == {"chest_xray": 37, "mri": 38, "histology": 44, "gross": 34, "ct_scan": 40}
    else:
        assert kinds == {"conversation": 1, "detailed_description": 1}
        assert domains == {"histology": 2}
    for one in questions:
        assert "<image>" not in one.text
        assert one.text and one.reference and one.caption


def test_all_texts_are_kept(tmp_path):
    more = [{"tokens": "One."}, {"tokens": "Two."}]
    rows = [chatbot_row(0), chatbot_row(1, in_text_mention=None), chatbot_row(2, in_text_mention=more)]
    first, second, third = read_chatbot(make_chatbot(tmp_path, rows), tmp_path / "images").questions
    assert (first.id, first.text) == ("0", "What is the organ?")
    assert first.reference == "The organ is the eye."
    assert first.tags == {"domain": "histology"}  # the first in the order of DOMAINS; gross is true too
    assert first.context == "Cells were not found ( Fig. 3 ) ."
    assert (second.context, third.context) == ("", "One.\nTwo.")


BROKEN = [
    (chatbot_row(1, domain={"mri": False}), "unknown domain"),
    (chatbot_row(1, domain="mri"), "unknown domain"),
    (chatbot_row(1, type="chat"), "unknown type"),
    (chatbot_row(1, text="<image>"), "empty text"),
    (chatbot_row(1, gpt4_answer=""), "empty gpt4_answer"),
    (chatbot_row(1, in_text_mention="none"), "wrong type"),
    (chatbot_row(1, image="b.jpg"), "missing image"),
    (chatbot_row(0), "duplicate id"),
    ([], "not an object"),
]


@pytest.mark.parametrize(("row", "kind"), BROKEN)
def test_broken_rows_are_reported(tmp_path, row, kind):
    folder = make_chatbot(tmp_path, [chatbot_row(0), row, chatbot_row(2)])
    with pytest.warns(UserWarning, match=kind):
        reading = read_chatbot(folder, tmp_path / "images")
    assert [one.id for one in reading.questions] == ["0", "2"]
    assert [(one.row, one.kind) for one in reading.broken] == [(2, kind)]

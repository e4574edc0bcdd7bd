"""An export says what was asked, of which model, with which settings, and what it is not."""

from medv_lab.config import GenerationSettings, Threshold
from medv_lab.views import caption

SETTINGS = GenerationSettings(48, 24, 12, remasking=Threshold(0.5), cfg_scale=0.5, stop=(), seed=4)


def test_changed_settings_make_the_same_settings():
    changed = caption.changed_settings(SETTINGS)
    assert GenerationSettings(**changed) == SETTINGS
    assert set(changed) == {
        "gen_length",
        "block_length",
        "steps",
        "remasking",
        "cfg_scale",
        "stop",
        "seed",
    }
    assert list(caption.changed_settings(GenerationSettings())) == ["gen_length", "block_length", "steps"]


def test_settings_are_told_without_the_defaults():
    assert caption.describe_settings(GenerationSettings(8, 8, 8)) == "defaults"
    assert (
        caption.describe_settings(SETTINGS)
        == "remasking threshold (threshold 0.5), cfg_scale 0.5, stop (), seed 4"
    )


def test_a_caption_has_question_picture_model_settings_and_the_notice():
    manifest = {"model": {"name": "tiny", "sha256": "0123456789abcdef"}}
    lines = caption.make_caption("Why?", "x.png", GenerationSettings(8, 4, 2), manifest)
    assert lines == (
        "Question: Why?",
        "Picture: x.png",
        "Model: tiny (0123456789ab)",
        "Settings: L 8, B 4, Z 2, defaults",
        "Not a medical device.",
    )
    assert "Model: unknown" in caption.make_caption("", "", SETTINGS, {})

"""A sweep proposes values that are valid, refuses others, and shows every token of every answer."""

import re
from dataclasses import replace
from html import unescape

import pytest

from medv_lab.config import GenerationSettings
from medv_lab.explorer import choices, sweeps
from tests.explorer.test_runs import make_run


@pytest.mark.parametrize("length", choices.LENGTHS)
def test_proposed_steps_are_valid_and_go_up_to_one_token_per_pass(length):
    for block in choices.block_lengths(length):
        settings = GenerationSettings(length, block, length)
        panel = sweeps.SweepPanel(lambda: None)
        panel.propose(settings)
        swept = panel.settings(settings)
        steps = [one.Z for one in swept.values()]
        assert steps == sorted(set(steps)) and steps[-1] == length
        assert list(swept) == [f"Z {count}" for count in steps]


def test_seeds_are_swept_and_everything_else_stays():
    panel, start = sweeps.SweepPanel(lambda: None), GenerationSettings(8, 8, 4, temperature=0.5)
    panel.setting.value = "seed"
    assert panel.settings(start) == {f"seed {seed}": replace(start, seed=seed) for seed in range(4)}
    panel.setting.value = "steps"
    panel.propose(start)
    assert panel.values.value == "1, 2, 4, 8"


def test_passes_are_swept_where_a_strategy_reads_no_z():
    panel = sweeps.SweepPanel(lambda: None)
    start = GenerationSettings(8, 8, 8, remasking="threshold")
    panel.propose(start)
    swept = panel.settings(start)
    assert [one.max_passes for one in swept.values()] == [
        8 // part if part > 1 else None for part in (8, 4, 2, 1)
    ]
    with pytest.raises(ValueError, match="sweep the seed"):
        panel.settings(GenerationSettings(8, 8, 8, remasking="daedal"))


@pytest.mark.parametrize("text", ["", "1 2", "-1", "1.5", "x", ", ".join("1" * 13)])
def test_other_values_are_refused(text):
    panel = sweeps.SweepPanel(lambda: None)
    panel.values.value = text
    with pytest.raises(ValueError, match="whole numbers"):
        panel.settings(GenerationSettings())


def test_the_small_multiple_has_every_answer_with_its_tokens_in_order():
    runs = [replace(make_run(), side=f"Z {steps}") for steps in (2, 4)]
    html = sweeps.small_multiple_html([runs[0], replace(runs[1], is_running=True)])
    one, other = re.findall(r"<section.*?</section>", html, re.DOTALL)
    assert "Z 2 · 4 passes · 1.2 s</b>" in one and "Z 4 · 4 passes · 1.2 s · running</b>" in other
    tokens = re.findall(r"<span[^>]*>([^<]*)</span>", one)
    trace = runs[0].answer.trace
    assert [unescape(token) for token in tokens] == ["b", "c", "a", "░", "a", "░"]
    assert len(tokens) == trace.gen_length
    assert "2 answers, 1 of them distinct." in html and "A seed changes" not in html
    same = [replace(make_run(), side=f"seed {seed}") for seed in (0, 1)]
    assert "A seed changes something only" in sweeps.small_multiple_html(same)
    assert "A seed changes" not in sweeps.small_multiple_html(same[:1])


def test_tokens_stay_text():
    run = make_run()
    trace = replace(run.answer.trace, pieces={5: b"<b>", 6: b" b", 7: b" c"})
    run.answer.trace = trace
    assert "<b>" not in sweeps.small_multiple_html([run]).replace("<b>B ·", "")

"""Traces: what was committed when, to and from a file, and back to text."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from medv_lab.diffusion.trace import MASK_GLYPH, SampleTrace, TraceError
from tests.diffusion.toy import MASK, SETTINGS, STOP, Toy, final, prompts, run, trace_of


@pytest.fixture(scope="module")
def records():
    return run(Toy(), prompts(1)[0])


@pytest.mark.parametrize("mask_bias", [-8.0, 3.0], ids=["", "masks predicted"])
def test_replay_equals_the_canvas_after_every_pass(tmp_path, mask_bias):
    ids, mask = prompts()
    records = run(Toy(mask_bias), ids, mask, replace(SETTINGS, steps=8), stops=[[STOP]])
    for row in range(len(ids)):
        trace = SampleTrace.load(trace_of(records, row).save(tmp_path / f"{row}.npz"))
        own = [record for record in records if record.active[row]]
        for step, record in enumerate(own):
            assert trace.replay(step).tolist() == record.canvas[row].tolist()
            words = [f" w{token}é" for token in final(record, row) if token != MASK]
            assert trace.text_at(step) == "".join(words).strip()
        assert trace.replay().tolist() == records[-1].canvas[row].tolist()
        assert trace.text == trace_of(records, row).text == trace.text_at(len(own) - 1)
        assert trace.text_at(-1, MASK_GLYPH) == MASK_GLYPH * SETTINGS.gen_length


def test_a_saved_trace_is_read_back_whole(tmp_path, records):
    trace = trace_of(records)
    loaded = SampleTrace.load(trace.save(tmp_path / "folder" / "trace.npz"))
    for name, value in vars(trace).items():
        read = getattr(loaded, name)
        assert np.array_equal(read, value) if isinstance(value, np.ndarray) else read == value, name
        assert getattr(read, "dtype", None) == getattr(value, "dtype", None)
    assert repr(loaded) == repr(trace)


def test_the_table_has_one_row_per_commit(records):
    frame = trace_of(records).to_frame()
    assert len(frame) == SETTINGS.gen_length
    assert frame.position.tolist() == [int(place) for record in records for place in record.positions]
    assert frame.step_in_block.tolist() == [record.step for record in records]
    assert frame.block.tolist() == [record.block for record in records]
    assert frame.piece.tolist() == [f" w{token}é" for token in frame.token_id]
    assert frame.confidence.between(0, 1).all()
    assert (frame.entropy > 0).all()


def test_alternatives_are_sorted_probabilities_that_hold_the_choice(records):
    trace = trace_of(records)
    assert (np.diff(trace.alternative_probs, axis=1) <= 0).all()
    assert trace.alternative_ids[:, 0].tolist() == trace.token_id.tolist()
    np.testing.assert_allclose(trace.alternative_probs[:, 0], trace.confidence, rtol=1e-6)
    assert trace.alternative_ids.shape == (SETTINGS.gen_length, SETTINGS.alternatives)


def test_a_run_ended_before_its_first_pass_is_an_empty_trace(tmp_path):
    empty = SampleTrace.load(trace_of([]).save(tmp_path / "empty.npz"))
    assert empty.text == ""
    assert empty.forward_evaluations == len(empty.to_frame()) == 0
    assert (empty.replay() == MASK).all()


def test_a_character_spread_over_two_tokens_is_put_together():
    trace = trace_of(run(Toy(), prompts(1)[0]))
    first, second = "é".encode()
    halves = {token: bytes([first]) for token in trace.pieces}
    ids = trace.replay()
    halves[int(ids[1])] = bytes([second])
    pair = replace(trace, pieces=halves, stops=np.full_like(trace.stops, 2))
    assert ids[0] != ids[1]
    assert pair.text == "é"
    assert pair.piece(ids[0]) == "\ufffd"


def test_the_final_commits_are_what_the_replay_shows(records):
    once = trace_of(records)
    position = np.where(once.position > 8, -1, once.position % 5)  # some in the prompt, most filled again
    trace = replace(once, position=position, token_id=np.where(once.step % 4 == 3, MASK, once.token_id))
    final, canvas = trace.final_commits(), trace.replay()
    is_filled = final >= 0
    assert is_filled.tolist() == (canvas != MASK).tolist()
    assert 0 < is_filled.sum() < 5 < (position >= 0).sum()
    assert trace.position[final[is_filled]].tolist() == np.nonzero(is_filled)[0].tolist()
    assert trace.token_id[final[is_filled]].tolist() == canvas[is_filled].tolist()


def test_steps_outside_a_trace_are_refused(records):
    for step in (12, -2):
        with pytest.raises(ValueError, match=r"passes 0\.\.11"):
            trace_of(records).replay(step)


def test_files_that_are_no_trace_give_one_clear_error(tmp_path, records):
    whole = trace_of(records).save(tmp_path / "whole.npz").read_bytes()
    files = {"cut": whole[:200], "cut_at_the_end": whole[:-30], "text": b"hello", "empty": b""}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    np.savez(tmp_path / "foreign.npz", x=np.arange(3))
    np.savez(tmp_path / "pickled.npz", meta=np.array([{}], dtype=object))
    for name in (*files, "foreign.npz", "pickled.npz", "absent.npz"):
        with pytest.raises(TraceError, match=name):
            SampleTrace.load(tmp_path / name)


def test_a_changed_byte_is_noticed_or_changes_nothing(tmp_path, records):
    trace = trace_of(records)
    whole = trace.save(tmp_path / "whole.npz").read_bytes()
    noticed = 0
    for at in range(0, len(whole), 11):
        damaged = tmp_path / "damaged.npz"
        damaged.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            loaded = SampleTrace.load(damaged)
        except TraceError:
            noticed += 1
        else:
            assert np.array_equal(loaded.replay(), trace.replay())
            assert loaded.text == trace.text
    assert noticed > len(whole) / 11 / 2


def test_arrays_that_do_not_fit_together_are_refused(records):
    trace = trace_of(records)
    for change, says in (
        ({"step": trace.step[:3]}, "unequal lengths"),
        ({"alternative_ids": trace.alternative_ids[:, :2]}, "unequal lengths"),
        ({"position": trace.position + 99}, "below 12 is allowed"),
        ({"stops": trace.stops[:4]}, "below 4 is allowed"),
        ({"remasked_step": np.array([12]), "remasked_position": np.array([0])}, "below 12 is allowed"),
        ({"remasked_step": np.array([1])}, "unequal lengths"),
        ({"confidence": trace.token_id}, "wrong kind"),
        ({"given": trace.token_id[:5]}, "unequal lengths"),
        ({"draft_token": trace.draft_token[:1]}, "unequal lengths"),
        ({"draft_position": trace.draft_position + 99}, "below 12 is allowed"),
        ({"first_stop": "12"}, "whole number"),
        ({"gen_length": "12"}, "whole number"),
        ({"manifest": []}, "mapping"),
    ):
        with pytest.raises(TraceError, match=says):
            replace(trace, **change)


@pytest.mark.parametrize(
    ("name", "value"),
    [("gen_length", 10**10), ("gen_length", -1), ("mask_token_id", 10**30), ("block_length", True)],
)
def test_lengths_that_no_run_has_are_refused(records, name, value):
    with pytest.raises(TraceError, match=f"{name} of a trace"):
        replace(trace_of(records), **{name: value})


def test_traces_without_end_are_refused_before_they_are_unpacked(tmp_path, records):
    path = trace_of(records).save(tmp_path / "trace.npz")
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    meta = str(arrays["meta"])
    for name, changes in {
        "expanding": {"entropy": np.zeros(100_000_000, np.float32)},
        "deep": {"meta": np.array("[" * 100_000)},
        "long": {"stops": np.zeros(2_000_000, np.int8), "step": arrays["step"] * 0},
        "wide": {"meta": np.array(meta.replace('"manifest"', f'"{"x" * 5_000_000}": 1, "manifest"'))},
    }.items():
        path = tmp_path / f"{name}.npz"
        np.savez_compressed(path, **arrays | changes)
        assert path.stat().st_size < 1_000_000
        with pytest.raises(TraceError, match=name):
            SampleTrace.load(path)


def test_which_commit_was_remasked_is_found_in_any_order_of_the_remaskings():
    rng = np.random.default_rng(0)
    commits, passes, length = 300, 40, 12
    step = np.sort(rng.integers(0, passes, commits))
    position = rng.integers(-2, length, commits)
    remasked = rng.integers(0, passes, 50), rng.integers(0, length, 50)
    trace = SampleTrace(
        step=step,
        block=step * 0,
        position=position,
        token_id=step,
        confidence=step * 1.0,
        entropy=step * 1.0,
        alternative_ids=np.zeros((commits, 0), int),
        alternative_probs=np.zeros((commits, 0)),
        stops=np.full(passes, length),
        gen_length=length,
        block_length=length,
        mask_token_id=99,
        pieces={},
        remasked_step=remasked[0],
        remasked_position=remasked[1],
    )
    expected = np.full(commits, -1)
    for at, where in zip(*remasked, strict=True):
        expected[np.flatnonzero((position == where) & (step < at))[-1:]] = at
    assert np.array_equal(trace.remasked_in, expected)


def test_a_trace_is_read_without_torch(tmp_path, records):
    path = trace_of(records).save(tmp_path / "trace.npz")
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from medv_lab.diffusion.trace import SampleTrace\n"
        "trace = SampleTrace.load(sys.argv[1])\n"
        "print(ascii(trace.text), len(trace.to_frame()))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{trace_of(records).text!a} {SETTINGS.gen_length}"


def test_files_of_older_formats_are_read_and_unknown_ones_refused_by_name(tmp_path, records):
    trace = trace_of(records)
    path = trace.save(tmp_path / "trace.npz")
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    meta = str(arrays["meta"])
    older = {name: arrays[name] for name in arrays if not name.startswith(("draft", "given", "born"))}
    first_stop = f', "first_stop": {SETTINGS.gen_length}'
    assert first_stop in meta
    for number, more in (("2", {}), ("3", {"born": arrays["born"]})):
        old = np.array(meta.replace("trace 4", f"trace {number}").replace(first_stop, ""))
        np.savez(path, **older | more | {"meta": old})
        loaded = SampleTrace.load(path)
        assert loaded.text == trace.text
        assert loaded.draft_at(3).tolist() == loaded.replay(3).tolist() == trace.replay(3).tolist()
        assert not loaded.is_given.any()
    without = {name: value for name, value in arrays.items() if name != "revoked_step"}
    np.savez(path, **without)
    with pytest.raises(TraceError, match="revoked_step"):
        SampleTrace.load(path)
    np.savez(path, **arrays | {"meta": np.array(meta.replace("trace 4", "trace 1"))})
    with pytest.raises(TraceError, match="no trace of the format"):
        SampleTrace.load(path)


def test_a_remasked_token_is_gone_until_its_position_is_filled_again(records):
    trace = trace_of(records)
    place = int(trace.position[0])
    again = trace.position.copy()
    again[-1] = place
    trace = replace(
        trace, position=again, remasked_step=np.array([4]), remasked_position=np.array([place], np.int32)
    )
    assert [int(trace.replay(step)[place] == MASK) for step in (0, 3, 4, 10, 11)] == [0, 0, 1, 1, 0]
    assert trace.remasked_in.tolist() == [4, *[-1] * 11]
    assert trace.to_frame().remasked_in.tolist() == trace.remasked_in.tolist()
    assert trace.tokens_per_forward == 11 / 12

"""Streams of rows: both layouts alike, damage named where it is, one row in memory."""

import json
import tracemalloc

import pytest

from medv_lab.data.rows import Damage, choice_of, read_rows, text_of

ROWS = [{"a": 1}, {"b": [2.5, None, "ß"]}, {"c": {"d": True}}]


def as_list(rows) -> str:
    return json.dumps(rows, indent=1)


def as_lines(rows) -> str:
    return "\n".join(json.dumps(row) for row in rows)


@pytest.mark.parametrize("layout", [as_list, as_lines])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("space", ["", "\n \n"])
def test_both_layouts_give_the_same_rows(tmp_path, layout, mark, space):
    path = tmp_path / "named.anything"
    path.write_text(mark + space + layout(ROWS), encoding="utf-8")
    assert [value for _, value in read_rows(path)] == ROWS
    lines_before = space.count("\n") if layout is as_lines else 0
    assert [number for number, _ in read_rows(path)] == [lines_before + k for k in (1, 2, 3)]


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_list_cut_anywhere_is_truncated(tmp_path, cut):
    path = tmp_path / "x.json"
    path.write_text(as_list(ROWS)[:-cut], encoding="utf-8")
    *whole, (number, last) = read_rows(path)
    assert [value for _, value in whole] == ROWS[: len(whole)]
    assert isinstance(last, Damage)
    assert (last.kind, last.row, number) == ("truncated JSON", len(whole) + 1, len(whole) + 1)


def test_a_list_is_not_read_behind_what_is_not_json(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('[{"a": 1}, {"b": oops}, {"c": 3}]')
    first, last = read_rows(path)
    assert first == (1, {"a": 1})
    assert (last[0], last[1].kind) == (2, "not JSON")
    assert str(last[1]).startswith("row 2: not JSON: the list cannot be read from here on")


def test_a_line_that_is_not_json_is_one_row(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"a": 1}\n{oops}\n\n{"b": "\xff"}\n{"c": 3}\n{"d": ')
    numbers = dict(read_rows(path))
    assert list(numbers) == [1, 2, 4, 5, 6]
    kinds = {number: value.kind for number, value in numbers.items() if isinstance(value, Damage)}
    assert kinds == {2: "not JSON", 4: "not JSON", 6: "truncated JSON"}
    assert numbers[5] == {"c": 3}


@pytest.mark.parametrize(
    ("content", "said"), [(b"", "empty"), (b"\x80\x04pickle", "Pickles are never opened")]
)
def test_other_files_are_refused(tmp_path, content, said):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=said):
        next(read_rows(path))
    with pytest.raises(FileNotFoundError, match="absent"):
        next(read_rows(tmp_path / "absent.json"))


@pytest.mark.parametrize("layout", [as_list, as_lines])
def test_memory_does_not_grow_with_the_file(tmp_path, layout):
    path = tmp_path / "large.json"
    path.write_text(layout([{"text": f"{k} " + "x" * 1000} for k in range(8000)]))
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_rows(path)) == 8000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert path.stat().st_size > 8_000_000
    assert peak < 1_500_000


def test_numbers_are_texts_and_truth_values_are_not():
    assert text_of({"a": 4}, "a") == "4"
    with pytest.raises(ValueError, match="wrong type"):
        text_of({"a": False}, "a")


def test_a_choice_is_compared_without_case_and_blanks():
    allowed = ("detailed_description", "yes no")
    assert choice_of({"a": "yes no "}, "a", allowed) == "yes no"  # the one that is written so says nothing
    with pytest.warns(UserWarning, match="a 'Yes  No' was read as 'yes no'"):
        assert choice_of({"a": "Yes  No"}, "a", allowed) == "yes no"
    with pytest.raises(ValueError, match="unknown a.*allowed are detailed_description"):
        choice_of({"a": "yes-no"}, "a", allowed)


def test_case_9_lines_end_at_line_feeds_only(tmp_path):
    text = "one\u2028two\u2029three\u0085four\x0cfive\x1csix\rseven"
    path = tmp_path / "x.jsonl"
    path.write_bytes(json.dumps({"a": text}, ensure_ascii=False).encode() + b"\n" + b'{"a": 2}')
    assert list(read_rows(path)) == [(1, {"a": text}), (2, {"a": 2})]

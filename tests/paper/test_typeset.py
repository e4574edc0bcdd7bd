"""Tables in print: best of each source marked, missing values shown, LaTeX whole."""

import pandas as pd

from medv_lab.paper.published import Column
from medv_lab.paper.typeset import MISSING_MARK, escape_latex, to_latex, to_markdown

COLUMNS = (
    Column("model", "model", "text"),
    Column("score", "score", better="high", digits=1),
    Column("time", "s", better="low", digits=2),
    Column("size", "size", "whole"),
)
DATA = pd.DataFrame(
    {
        "model": ["a_b", "c|d", "e", "f", "g"],
        "score": [10.0, 30.0, 90.0, 80.0, None],
        "time": [1.0, None, 5.0, 5.0, 7.0],
        "size": pd.array([1200, None, 3, 4, 5], dtype="Int64"),
        "score_low": [None, None, 85.0, 70.0, None],
        "score_high": [None, None, 95.0, 90.0, None],
        "source": ["published x.csv"] * 2 + ["measured y.csv"] * 3,
    }
)


def rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").replace(r"\|", "¦").split(" | ")] for line in lines[2:]]


def test_best_values_are_marked_within_each_source_and_ties_share_the_mark():
    table = rows(to_markdown(DATA, COLUMNS, "A caption."))
    scores = ["10.0", "**30.0**", "**90.0 [85.0, 95.0]**", "80.0 [70.0, 90.0]", MISSING_MARK]
    assert [row[2] for row in table] == scores
    assert [row[3] for row in table] == ["1.00", MISSING_MARK, "**5.00**", "**5.00**", "7.00"]
    assert [row[4] for row in table] == ["1,200", MISSING_MARK, "3", "4", "5"]


def test_every_row_names_its_source():
    text = to_markdown(DATA, COLUMNS, "A caption.")
    assert text.startswith("A caption.")
    assert [row[0] for row in rows(text)] == ["published (1)"] * 2 + ["measured (2)"] * 3
    assert "- 1: published x.csv" in text and "- 2: measured y.csv" in text


def test_latex_is_a_booktabs_table_with_equal_rows():
    text = to_latex(DATA, COLUMNS, "50 % of {a}")
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    lines = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert {line.count("&") for line in lines} == {len(COLUMNS)}
    assert len(lines) == len(DATA) + 1
    assert body.count(r"\midrule") == 2  # below the headers, and between published and measured
    assert r"\textbf{90.0 [85.0, 95.0]}" in body and r"a\_b" in body
    assert r"\caption{50 \% of \{a\}" in text


def test_latex_escapes_are_complete():
    assert escape_latex(r"a&b%c$d#e_f{g}~^\ –") == (
        r"a\&b\%c\$d\#e\_f\{g\}\textasciitilde{}\textasciicircum{}\textbackslash{} --"
    )

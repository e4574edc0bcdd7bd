"""Tables in print: best of each source marked, missing values shown, LaTeX whole."""

import re
from pathlib import Path

import pandas as pd

from medv_lab.paper.comparison import PAPER_TABLES
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
    scores = ["10.0", "**30.0**", "**90 [85, 95]**", "80 [70, 90]", MISSING_MARK]
    assert [row[2] for row in table] == scores
    assert [row[3] for row in table] == ["1.00", MISSING_MARK, "**5.00**", "**5.00**", "7.00"]
    assert [row[4] for row in table] == ["1,200", MISSING_MARK, "3", "4", "5"]


def test_every_row_names_its_source():
    text = to_markdown(DATA, COLUMNS, "A caption.")
    assert text.startswith("A caption.")
    assert [row[0] for row in rows(text)] == ["published (1)"] * 2 + ["measured (2)"] * 3
    assert "- 1: published x.csv" in text and "- 2: measured y.csv" in text


def test_latex_is_a_booktabs_table_with_equal_rows():
    text = to_latex(DATA, COLUMNS, "50 % of {a}", "own-table")
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    lines = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert {line.count("&") for line in lines} == {len(COLUMNS)}
    assert len(lines) == len(DATA) + 1
    assert body.count(r"\midrule") == 2  # below the headers, and between published and measured
    assert r"\textbf{90 [85, 95]}" in body and r"a\_b" in body
    assert r"\caption{50 \% of \{a\}" in text and r"\label{tab:own-table}" in text
    opened, closed = (re.findall(rf"\\{word}{{(\w+)}}", text) for word in ("begin", "end"))
    assert opened == closed[::-1] == ["table", "adjustbox", "tabular"]


def test_measured_digits_follow_the_interval_and_published_ones_the_paper():
    data = DATA.assign(score_low=[None, None, 89.9, 79.2, None], score_high=[None, None, 90.1, 80.9, None])
    scores = [row[2] for row in rows(to_markdown(data, COLUMNS, "A caption."))]
    assert scores[:1] + scores[2:4] == ["10.0", "**90.0 [89.9, 90.1]**", "80.0 [79.2, 80.9]"]


def test_the_tables_of_the_paper_have_labels_and_no_number_of_their_own():
    for exhibit in PAPER_TABLES:
        _, latex = exhibit.draw(exhibit.collect(Path("nowhere")), Path("nowhere"))
        assert re.search(r"\\label\{tab:[a-z-]+\}", latex) and not re.search(r"\\caption\{Table \d", latex)


def test_latex_escapes_are_complete():
    assert escape_latex(r"a&b%c$d#e_f{g}~^\ –") == (
        r"a\&b\%c\$d\#e\_f\{g\}\textasciitilde{}\textasciicircum{}\textbackslash{} --"
    )

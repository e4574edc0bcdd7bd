"""The published tables are the paper's, typed, and every column says what it is."""

import hashlib
from importlib.resources import files

import pandas as pd
import pytest

from medv_lab.paper.published import TABLE_COLUMNS, TABLES, load_table, published_value

# Of the files as they were transcribed from the paper and checked against it.
DIGESTS = {
    1: "f414f06322c5e95d3c1d49066cdcda427ca9097fdd0baf299eaee0413738b139",
    2: "fe98744891c68b87f6bfd26c1fc4645f56a346236968d5989c5484b607df922e",
    3: "ebc8cef47df93783e5ca4e3e863cebfa953b3c2161ba056c8f63ef3b9decd5d8",
    4: "6d4b695a21815047aeb059728a86b1f1e8b04765f437b64d7218d508ff307d5f",
    5: "9acc52814e7b55c26ec4854060cdf8fad7e4474a8a38efbb909d46c6d8ff54b4",
    6: "0069b1197cf674294dde5fa3d662621e3c414f1c7df3ce8e1b419d5a7f583c39",
    8: "e3a444bf39bbf0e7f9ef709c50aa8e2422db45e00a445b88b1cd8a6c978ec491",
}


@pytest.mark.parametrize("number", TABLES)
def test_no_published_number_was_touched(number):
    content = (files("medv_lab.paper") / "tables" / f"{TABLES[number]}.csv").read_bytes()
    assert hashlib.sha256(content).hexdigest() == DIGESTS[number]


@pytest.mark.parametrize("number", TABLES)
def test_every_table_is_typed_by_its_columns_and_says_where_each_comes_from(number):
    frame = load_table(number)
    assert len(frame) > 1
    assert f"Table {number} " in frame.attrs["provenance"]
    assert list(frame.attrs["origins"]) == list(frame)
    assert all(f"Table {number}, " in origin for origin in frame.attrs["origins"].values())
    for column in TABLE_COLUMNS[number]:
        assert pd.api.types.is_numeric_dtype(frame[column.name]) == column.is_number
        assert column.meaning or not column.is_number


def test_a_table_that_is_not_here_is_an_error():
    with pytest.raises(ValueError, match="no table 7"):
        load_table(7)


def test_unreported_numbers_are_missing():
    assert published_value(2, "LLaDA-MedV", "pathvqa_closed") == 95.15
    assert published_value(2, "PubMedCLIP", "pathvqa_open") is None


@pytest.mark.parametrize(
    ("row", "column"), [("LLaDA", "cxr"), ("LLaDA-MedV", "xray"), ("LLaDA-MedV", "model")]
)
def test_a_number_that_no_table_has_is_an_error(row, column):
    with pytest.raises(ValueError, match="no single number"):
        published_value(1, row, column)


def test_differences_that_the_paper_states_follow_from_its_table():
    ours = published_value(1, "LLaDA-MedV", "overall")
    assert ours - published_value(1, "LLaVA-Med", "overall") == pytest.approx(7.855)
    assert ours - published_value(1, "LLaDA-V", "overall") == pytest.approx(1.867)

"""The rules for notebooks, held without running them; nbval runs them and compares the checked cells."""

import copy
import re
import statistics
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
EXPECTED = (
    "00_start_here",
    "01_masked_diffusion",
    "02_load_a_model",
    "03_sampling_and_traces",
    "04_training_stages",
    "05_training_ablations",
    "06_steps_and_repetition",
    "07_faster_sampling",
    "08_seeing_the_unmasking",
    "09_explorer",
    "10_open_ended_conversation",
    "11_vqa_benchmarks",
    "12_paper_figures",
)
MAX_KILOBYTES = 500
MEDIAN_LINES, MAX_LINES = 6, 25
CHECKED = re.compile(r"^\s*# NBVAL_CHECK_OUTPUT", re.MULTILINE)
MACHINERY = re.compile(r"^\s*class (?!\w+\(Strategy\):)", re.MULTILINE)
NUMBER = re.compile(r"\d+(?:\.\d+)?")


def code_cells(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed_text(cell) -> str:
    """What a cell shows as text."""
    parts = [output.get("text", "") for output in cell.outputs]
    parts += [str(output.data.get("text/plain", "")) for output in cell.outputs if "data" in output]
    return "\n".join(parts)


def opening_problems(notebook) -> list[str]:
    """What is wrong with the first cells: title and question, versions and preset, settings."""
    found = []
    title, versions = notebook.cells[0], notebook.cells[1]
    if title.cell_type != "markdown" or not title.source.startswith("# ") or "?" not in title.source:
        found.append("the first cell is not a title with the question that the notebook answers")
    if versions.cell_type != "code" or "MEDV_PRESET" not in versions.source:
        found.append("the second cell does not read MEDV_PRESET")
    shown = printed_text(versions) if versions.cell_type == "code" else ""
    found += [
        f"the second cell does not print {word}"
        for word in ("preset", "device", "commit")
        if word not in shown
    ]
    tagged = [
        number for number, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", ())
    ]
    if tagged != [2]:
        found.append(f"cells {tagged} are tagged parameters; the third cell alone must be")
    return found


def cell_problems(notebook) -> list[str]:
    """What is wrong with the code cells: length, definitions, execution counts, stored outputs."""
    cells = code_cells(notebook)
    lines = [len(cell.source.splitlines()) for cell in cells]
    found = []
    if statistics.median(lines) > MEDIAN_LINES or max(lines) > MAX_LINES:
        found.append(f"code cells have a median of {statistics.median(lines)} and at most {max(lines)} lines")
    if any(MACHINERY.search(cell.source) for cell in cells):
        found.append("a cell defines a class that is not a strategy of the reader's own")
    if [cell.execution_count for cell in cells] != list(range(1, len(cells) + 1)):
        found.append("execution counts are not 1..n: run the notebook from top to bottom")
    if "widgets" in notebook.metadata:
        found.append(
            "it stores the state of widgets: run it with --ExecutePreprocessor.store_widget_state=False"
        )
    if any(output.output_type == "error" for cell in cells for output in cell.outputs):
        found.append("a cell ended in an error")
    checked = [cell for cell in cells if CHECKED.search(cell.source)]
    if len(checked) < 2:
        found.append(f"{len(checked)} cells are checked; at least 2 must be")
    if not all(printed_text(cell).strip() for cell in checked):
        found.append("a checked cell has no stored text")
    return found


def closing_problems(notebook) -> list[str]:
    """What is wrong with the last cell: it says what was seen, in numbers that cells printed."""
    last = notebook.cells[-1]
    if last.cell_type != "markdown" or not NUMBER.search(last.source):
        return ["the last cell does not say in numbers what was seen"]
    shown = set(NUMBER.findall("\n".join(map(printed_text, code_cells(notebook)))))
    return [
        f"{number} was printed by no cell" for number in NUMBER.findall(last.source) if number not in shown
    ]


def problems(notebook) -> list[str]:
    return opening_problems(notebook) + cell_problems(notebook) + closing_problems(notebook)


def test_the_promised_notebooks_are_there():
    assert {path.stem for path in NOTEBOOKS} >= set(EXPECTED)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_readme_lists_every_notebook(path: Path):
    assert f"](notebooks/{path.name})" in (FOLDER.parent / "README.md").read_text()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_follows_the_rules(path: Path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert path.stat().st_size <= MAX_KILOBYTES * 1024
    assert problems(notebook) == []


def change_title(notebook):
    notebook.cells[0].source = "# A title without a question"


def change_settings_tag(notebook):
    notebook.cells[2].metadata.pop("tags")


def change_versions(notebook):
    notebook.cells[1].outputs = []


def change_length(notebook):
    code_cells(notebook)[-1].source = "x = 1\n" * (MAX_LINES + 1)


def change_counts(notebook):
    code_cells(notebook)[3].execution_count = None


def change_class(notebook):
    code_cells(notebook)[3].source = "class Machinery:\n    pass"


def change_checked_output(notebook):
    next(cell for cell in code_cells(notebook) if CHECKED.search(cell.source)).outputs = []


def change_widgets(notebook):
    notebook.metadata.widgets = {}


def change_conclusion(notebook):
    notebook.cells[-1].source += " And 98765.4321 of them."


CHANGES = [change for name, change in sorted(globals().items()) if name.startswith("change_")]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_broken_rule_is_seen(change):
    notebook = copy.deepcopy(nbformat.read(FOLDER / "01_masked_diffusion.ipynb", as_version=4))
    change(notebook)
    assert problems(notebook)

"""The rules for notebooks, held without running them; nbval runs them and compares the checked cells."""

import ast
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
MARKER, CHECKED, SOLUTION = "NBVAL_CHECK_OUTPUT", "nbval-check-output", "solution"
MACHINERY = re.compile(r"^\s*class (?!\w+\(Strategy\):)", re.MULTILINE)
NUMBER = re.compile(r"\d+(?:\.\d+)?")
NAMED_NUMBER = re.compile(
    r"\b(?:Table|Figure|[Nn]otebook|[Ss]tage)s? \d+|\b[A-Za-z]\w*"
)  # Table 4, V1: names, not measured
EQUATION_OR_DIAGRAM = re.compile(r"\$\$.+?\$\$|plot_architecture\(", re.DOTALL)
EXERCISES = re.compile(r"^## Exercises$.*^1\. \*\*.*^2\. \*\*", re.MULTILINE | re.DOTALL)


def code_cells(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tags(cell) -> list[str]:
    return cell.metadata.get("tags", [])


def printed_text(cell) -> str:
    """What a cell shows as text."""
    parts = [output.get("text", "") for output in cell.outputs]
    parts += [str(output.data.get("text/plain", "")) for output in cell.outputs if "data" in output]
    return "\n".join(parts)


def opening_problems(notebook) -> list[str]:
    """What is wrong with the first cells: title and question, versions and preset, settings."""
    found = []
    title, install, versions = notebook.cells[:3]
    if title.cell_type != "markdown" or not title.source.startswith("# ") or "?" not in title.source:
        found.append("the first cell is not a title with the question that the notebook answers")
    if tags(install) != ["install"] or printed_text(install).strip():
        found.append("the second cell does not install, in silence, what is missing")
    if versions.cell_type != "code" or "MEDV_PRESET" not in versions.source:
        found.append("the third cell does not read MEDV_PRESET")
    shown = printed_text(versions).strip() if versions.cell_type == "code" else ""
    found += [
        f"the third cell does not print {word}"
        for word in ("preset", "device", "commit", "torch")
        if word not in shown
    ]
    if len(shown.splitlines()) > 1:
        found.append("the versions take more than one line")
    tagged = [number for number, cell in enumerate(notebook.cells) if "parameters" in tags(cell)]
    if tagged != [3]:
        found.append(f"cells {tagged} are tagged parameters; the fourth cell alone must be")
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
    if any(MARKER in cell.source for cell in notebook.cells):
        found.append(f"a cell holds {MARKER} in its source; tag the cell {CHECKED}")
    checked = [cell for cell in cells if CHECKED in tags(cell)]
    if len(checked) < 2:
        found.append(f"{len(checked)} cells are checked; at least 2 must be")
    if not all(printed_text(cell).strip() for cell in checked):
        found.append("a checked cell has no stored text")
    return found


def teaching_problems(notebook) -> list[str]:
    """What is wrong with what is told: an equation or a diagram, exercises, solutions that are folded."""
    found = []
    if not EQUATION_OR_DIAGRAM.search("\n".join(cell.source for cell in notebook.cells)):
        found.append("it has neither an equation nor a diagram")
    if not any(cell.cell_type == "markdown" and EXERCISES.search(cell.source) for cell in notebook.cells):
        found.append("it has no two exercises with titles")
    solutions = [cell for cell in code_cells(notebook) if SOLUTION in tags(cell)]
    if not solutions:
        found.append("no exercise has a solution")
    if not all(cell.metadata.get("jupyter", {}).get("source_hidden") for cell in solutions):
        found.append("a solution is not folded")
    return found


def typed_texts(source: str) -> list[str]:
    """The texts that a cell has typed in, without what f-strings compute and how they format it."""
    tree = ast.parse(source)
    formats = [node.format_spec for node in ast.walk(tree) if isinstance(node, ast.FormattedValue)]
    skipped = {id(part) for one in formats if one is not None for part in ast.walk(one)}
    texts = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in skipped]
    return [str(node.value) for node in texts if isinstance(node.value, str | float)]


def closing_problems(notebook) -> list[str]:
    """What is wrong with the last cell: it prints what was seen, with numbers that are computed and none typed in."""
    title, last = notebook.cells[-2:]
    if title.source != "## What we saw" or last.cell_type != "code":
        return ["the last cell is not code under the title 'What we saw'"]
    found = (
        [] if NUMBER.search(printed_text(last)) else ["the last cell does not say in numbers what was seen"]
    )
    typed = [
        number for text in typed_texts(last.source) for number in NUMBER.findall(NAMED_NUMBER.sub("", text))
    ]
    return found + [
        f"{number} is typed into the last cell, and may be false for another model" for number in typed
    ]


def problems(notebook) -> list[str]:
    return [
        *opening_problems(notebook),
        *cell_problems(notebook),
        *teaching_problems(notebook),
        *closing_problems(notebook),
    ]


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
    notebook.cells[3].metadata.pop("tags")


def change_install(notebook):
    del notebook.cells[1]


def change_versions(notebook):
    notebook.cells[2].outputs = []


def change_marker(notebook):
    code_cells(notebook)[4].source = f"# {MARKER}\n{code_cells(notebook)[4].source}"


def change_length(notebook):
    code_cells(notebook)[-1].source = "x = 1\n" * (MAX_LINES + 1)


def change_counts(notebook):
    code_cells(notebook)[3].execution_count = None


def change_class(notebook):
    code_cells(notebook)[3].source = "class Machinery:\n    pass"


def change_checked_output(notebook):
    next(cell for cell in code_cells(notebook) if CHECKED in tags(cell)).outputs = []


def change_widgets(notebook):
    notebook.metadata.widgets = {}


def change_folding(notebook):
    next(cell for cell in code_cells(notebook) if SOLUTION in tags(cell)).metadata.pop("jupyter")


def change_solutions(notebook):
    notebook.cells = [cell for cell in notebook.cells if SOLUTION not in tags(cell)]


def change_mathematics(notebook):
    for cell in notebook.cells:
        cell.source = cell.source.replace("$", "")


def change_conclusion(notebook):
    notebook.cells[-1].source += "\nprint('And 98765.4321 of them.')"


def change_conclusion_to_text(notebook):
    notebook.cells[-1] = nbformat.v4.new_markdown_cell("- The loss is 2.4.")


def change_conclusion_by_format(notebook):
    notebook.cells[-1].source += "\nprint(f'- The loss of {V:.1f} words is 2.4.')"


def change_conclusion_by_variable(notebook):
    notebook.cells[-1].source += "\nloss = 2.4\nprint(f'- The loss is {loss:.1f}.')"


CHANGES = [change for name, change in sorted(globals().items()) if name.startswith("change_")]


def test_names_with_numbers_and_formats_are_not_typed_numbers():
    source = 'print(f"Table 4 of V1, stage 2: {100 * x:.1f} %, {x + 1:+.2f}")'
    assert [NUMBER.findall(NAMED_NUMBER.sub("", text)) for text in typed_texts(source)] == [[], []]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_broken_rule_is_seen(change):
    notebook = copy.deepcopy(nbformat.read(FOLDER / "01_masked_diffusion.ipynb", as_version=4))
    change(notebook)
    assert problems(notebook)

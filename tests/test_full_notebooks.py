"""The notebooks' full preset, exercised without the weights: a small checkpoint in the published layout, at random.

Two notebooks by default, all of them with `pytest -m slow tests/test_full_notebooks.py`.
"""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from medv_lab.hardware.rehearsal import write_rehearsal

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
QUICK = ("02_load_a_model", "12_paper_figures")
PATIENCE = 900  # seconds a cell


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """A folder as published checkpoints are, in everything but the size of the networks."""
    folder = tmp_path_factory.mktemp("published") / "LLaDA-MedV"
    write_rehearsal("tiny", folder)
    return folder


def run(path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> list:
    """Execute a notebook with the full preset; its code cells."""
    monkeypatch.setenv("MEDV_PRESET", "full")
    monkeypatch.setenv("MEDV_MODEL", str(model))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(FOLDER.parent), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(FOLDER)}}
    NotebookClient(notebook, timeout=PATIENCE, kernel_name="python3", resources=resources).execute()
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def assert_is_full(cells: list) -> None:
    printed = "".join(output.get("text", "") for output in cells[1].outputs)  # behind the cell that installs
    assert "preset full" in printed


@pytest.mark.parametrize("name", QUICK)
def test_quick_notebooks_run_with_the_full_preset(name, checkpoint, monkeypatch):
    assert_is_full(run(FOLDER / f"{name}.ipynb", checkpoint, monkeypatch))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_notebook_runs_with_the_full_preset(path, checkpoint, monkeypatch):
    assert_is_full(run(path, checkpoint, monkeypatch))

"""A wheel holds all that the package needs: installed alone, elsewhere, it answers and draws."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from medv_lab.phantoms.rendering import render
from medv_lab.phantoms.scenes import make_scene

ROOT = Path(__file__).parents[1]
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "medv_lab")
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")


def run(*command, **options) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with the package as `pip install` puts it there; what it depends on comes from this environment."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:  # a copy: building writes beside the sources
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    run(*PIP, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", folder / "dist", folder)
    (wheel,) = (folder / "dist").glob("medv_lab-*.whl")
    run(*PIP, "install", "--no-deps", "--no-index", "--target", folder / "site", wheel)
    return folder / "site"


def test_every_file_of_the_package_but_its_notes_is_in_the_wheel(installed):
    wanted = {path.relative_to(ROOT) for path in (ROOT / "medv_lab").rglob("*") if path.is_file()}
    found = {path.relative_to(installed) for path in installed.rglob("*") if path.is_file()}
    missing = {path for path in wanted - found if "__pycache__" not in path.parts}
    assert {path.name for path in missing} <= {"README.md"}
    assert Path("medv_lab/embedded/README.md") in found  # the card goes with its model


def test_it_answers_and_draws_where_no_repository_is(installed, tmp_path):
    Image.fromarray(render(make_scene("test", 0))).save(tmp_path / "picture.png")
    here = {
        "cwd": tmp_path,
        "env": {
            "PYTHONPATH": str(installed),
            "PATH": "/usr/bin:/bin",
            "HOME": str(tmp_path),
            "OMP_NUM_THREADS": "1",
        },
    }
    said = run(sys.executable, "-m", "medv_lab", "ask", "picture.png", "What type of image is this?", **here)
    assert make_scene("test", 0).domain in said
    told = run(sys.executable, "-m", "medv_lab", "figures", "--only", "table", **here)
    assert "7 drawn, 0 lack results" in told
    assert (tmp_path / "figures" / "index.html").is_file()

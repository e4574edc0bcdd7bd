"""The rooms of the package: imports point one way, drawing needs no torch, modules stay small; no machine is named."""

import ast
import re
import subprocess
import sys
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import medv_lab

ROOT = Path(__file__).parents[1]
PACKAGE = Path(medv_lab.__file__).parent

# The rooms, from what everything may use to what uses everything. A room is a folder or a file of the package; it
# imports only from itself and from the rooms above it, also where an import is for types only.
ROOMS = (
    "limits",
    "runtime",
    "store",
    "records",
    "metrics",
    "strategies",
    "config",
    "data",
    "phantoms",
    "diffusion",
    "inputs",
    "decoding",
    "model",
    "generation",
    "evaluation",
    "training",
    "studies",
    "views",
    "paper",
    "hardware",
    "explorer",
    "cli",
    "__main__",
)
DRAWING_ROOMS = ("medv_lab.paper", "medv_lab.views")
# Settings, traces and scores are numbers and files: like drawing, they need no torch, at import or later.
TORCH_FREE = (
    *DRAWING_ROOMS,
    "medv_lab.config",
    "medv_lab.diffusion.attention_maps",
    "medv_lab.diffusion.trace",
    "medv_lab.evaluation.model_choice",
    "medv_lab.limits",
    "medv_lab.metrics",
    "medv_lab.phantoms",
    "medv_lab.records",
    "medv_lab.store",
    "medv_lab.strategies",
    "medv_lab.studies.panels",
    "medv_lab.studies.table_run",
    "medv_lab.training.recipes",
)
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "misc", "common"}
# Where everything is caught, and named: around foreign parsers, of which one raises `Exception` itself, and around a
# command.
BOUNDARIES = {"medv_lab.limits", "medv_lab.cli.console"}
MAX_LINES = 400
MAX_MODULES = 12


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(), str(path)) for name, path in SOURCES.items()}


def imported(module: str, tree: ast.AST, modules=SOURCES, is_package: bool = False) -> set[str]:
    """Absolute names of what a module imports anywhere in it; package modules to the module itself."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")[: len(module.split(".")) + is_package - node.level]
                base = ".".join([*parents, base] if base else parents)
            for alias in node.names:
                full = f"{base}.{alias.name}"
                found.add(full if full in modules else base)
    return found


def room(module: str) -> str:
    """Folder or file of the package that a module belongs to; the package itself is "medv_lab"."""
    return module.split(".")[1] if "." in module else module


def rank(module: str) -> int:
    """Number of a module's room, counted from what everything may use."""
    if module == "medv_lab":
        return -1
    assert room(module) in ROOMS, f"{module} stands in no room of ROOMS: say where it belongs"
    return ROOMS.index(room(module))


def own_imports(module: str) -> set[str]:
    is_package = SOURCES[module].name == "__init__.py"
    return {
        name
        for name in imported(module, TREES[module], is_package=is_package) - {module}
        if name.partition(".")[0] == "medv_lab"
    }


@pytest.mark.parametrize("module", SOURCES)
def test_imports_point_one_way(module: str):
    upward = sorted(name for name in own_imports(module) if rank(name) > rank(module))
    assert not upward, f"{module} imports {upward}, which come after it in ROOMS"


def test_no_cycles_not_even_for_types():
    graph = {module: own_imports(module) & SOURCES.keys() for module in SOURCES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_a_word_lives_in_one_room():
    stems = Counter(path.stem for path in SOURCES.values() if path.stem != "__init__")
    assert not [stem for stem, count in stems.items() if count > 1]


def test_a_class_is_named_once():
    classes = Counter(
        node.name
        for tree in TREES.values()
        for node in tree.body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert not [name for name, count in classes.items() if count > 1]


def test_rooms_are_small():
    sizes = Counter(path.parent.name for path in SOURCES.values() if path.parent != PACKAGE)
    assert not {name: size for name, size in sizes.items() if size > MAX_MODULES}


def test_the_reading_of_imports_sees_functions_types_and_relative_names():
    source = """
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    import only.types
def load():
    from medv_lab.views import style
    import torch.nn
from . import sibling
from ..paper.published import table
"""
    modules = {"medv_lab.views.style", "medv_lab.diffusion.sibling"}
    found = imported("medv_lab.diffusion.trace", ast.parse(source), modules)
    assert found == {
        "typing",
        "only.types",
        "medv_lab.views.style",
        "torch.nn",
        "medv_lab.diffusion.sibling",
        "medv_lab.paper.published",
    }


def test_every_room_is_there_and_has_one_place():
    assert len(set(ROOMS)) == len(ROOMS)
    assert set(ROOMS) == {room(module) for module in SOURCES if module != "medv_lab"}
    with pytest.raises(AssertionError, match="stands in no room"):
        rank("medv_lab.elsewhere")


@pytest.mark.parametrize("module", [name for name in SOURCES if name.startswith(TORCH_FREE)])
def test_what_needs_no_torch_imports_none(module: str):
    heavy = {name.partition(".")[0] for name in imported(module, TREES[module])} & {"torch", "transformers"}
    assert not heavy


@pytest.mark.parametrize("module", SOURCES)
def test_modules_are_small_and_named_for_what_they_hold(module: str):
    lines = len(SOURCES[module].read_text().splitlines())
    assert lines <= MAX_LINES, f"{module} has {lines} lines; {MAX_LINES} are the most: split it by concept"
    assert not set(module.split(".")) & FORBIDDEN_NAMES


@pytest.mark.parametrize("module", SOURCES)
def test_errors_are_caught_by_name(module: str):
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.ExceptHandler):
            caught = "everything" if node.type is None else ast.unparse(node.type)
            broad = "everything|BaseException" + ("" if module in BOUNDARIES else "|Exception")
            is_broad = re.search(rf"\b({broad})\b", caught)
            assert not is_broad, f"{module}:{node.lineno} catches {caught}"


def run_python(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)


def test_importing_the_package_imports_nothing_heavy():
    done = run_python(
        "import sys, medv_lab; print(sorted({'torch', 'transformers', 'pandas'} & set(sys.modules)))"
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_what_needs_no_torch_works_without_it():
    rooms = [name for name in SOURCES if name.startswith(TORCH_FREE)]
    assert {"medv_lab.paper", "medv_lab.views", "medv_lab.strategies"} <= set(rooms)
    block = "import sys; sys.modules['torch'] = None; sys.modules['transformers'] = None\n"
    done = run_python(block + "".join(f"import {name}\n" for name in rooms) + "print('imported')")
    assert done.stdout.strip() == "imported", done.stderr
    blocked = run_python(block + "import medv_lab.diffusion.sampler")
    assert "torch" in blocked.stderr  # the block does block


MACHINE_PATHS = re.compile(
    "|".join(
        [
            r"(?<![\w.<*/-])/(?:" + "work|tmp|root|home|Users" + r")(?=[/\"'`\s]|$)",
            "file" + "://",
            r"(?:extra-)?index" + "-url",
            "find" + "-links",
            r"\b[A-Z]:\\\\?Users",
        ]
    )
)


def machine_paths(text: str) -> list[str]:
    return [match.group() for match in MACHINE_PATHS.finditer(text)]


def test_nothing_committed_names_a_machine():
    listed = subprocess.run(["git", "ls-files", "-z"], capture_output=True, text=True, cwd=ROOT, check=True)
    found = {}
    for name in filter(None, listed.stdout.split("\0")):
        content = (ROOT / name).read_bytes() if (ROOT / name).is_file() else b""
        if b"\0" not in content[:8000] and (paths := machine_paths(content.decode(errors="replace"))):
            found[name] = paths
    assert not found


@pytest.mark.parametrize(
    "text",
    [
        "see /wor" + "k/here",
        '"/ho' + 'me/me/x.png"',
        "'/tm" + "p/{x}'",
        'Path("/tm' + 'p")',
        "--index" + "-url=x",
    ],
)
def test_machine_paths_are_recognised(text: str):
    assert machine_paths(text)
    assert not machine_paths("a https://host/home/page, notebooks/work/x and ~/.cache stay")

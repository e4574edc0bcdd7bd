"""The rooms of the package: imports point one way, drawing needs no torch, modules stay small; no machine is named."""

import ast
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import medv_lab

ROOT = Path(__file__).parents[1]
PACKAGE = Path(medv_lab.__file__).parent

# From what everything may use to what uses everything. A module belongs to the longest prefix that fits it and
# imports only from its own line and the lines above.
ORDER = (
    ("medv_lab", "medv_lab.config", "medv_lab.runtime"),
    ("medv_lab.diffusion.attention", "medv_lab.diffusion.trace", "medv_lab.evaluation.metrics"),
    ("medv_lab.diffusion",),
    (
        "medv_lab.data",
        "medv_lab.evaluation.intervals",
        "medv_lab.evaluation.journal",  # files that survive a killed process
        "medv_lab.evaluation.repetition",
        "medv_lab.evaluation.facts",  # the phantom benchmark knows no model
        "medv_lab.evaluation.phantoms",
        "medv_lab.evaluation.counterfactuals",
    ),
    ("medv_lab.model",),
    (  # below training, which scores what it made
        "medv_lab.evaluation.endpoint",
        "medv_lab.evaluation.responders",
        "medv_lab.evaluation.autoregressive",
    ),
    ("medv_lab.training",),
    ("medv_lab.evaluation",),
    ("medv_lab.paper", "medv_lab.views"),
    (
        "medv_lab.cli",
        "medv_lab.cli_ablations",
        "medv_lab.cli_benchmark",
        "medv_lab.cli_data",
        "medv_lab.cli_errors",
        "medv_lab.cli_evaluate",
        "medv_lab.cli_figures",
        "medv_lab.cli_study",
        "medv_lab.cli_tables",
    ),
    ("medv_lab.__main__",),
)
DRAWING_ROOMS = ("medv_lab.paper", "medv_lab.views")
# Settings, traces and scores are numbers and files: like drawing, they need no torch, at import or later.
TORCH_FREE = (
    *DRAWING_ROOMS,
    "medv_lab.config",
    "medv_lab.diffusion.attention",
    "medv_lab.diffusion.trace",
    "medv_lab.evaluation.claims",
    "medv_lab.evaluation.metrics",
    "medv_lab.evaluation.panels",
    "medv_lab.evaluation.phantoms",
    "medv_lab.evaluation.repetition",
)
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "misc", "common"}
MAX_LINES = 400


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(), str(path)) for name, path in SOURCES.items()}


def is_for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def nodes_that_run(tree: ast.AST):
    """All nodes, functions included, except what only a type checker reads."""
    for node in ast.iter_child_nodes(tree):
        if is_for_types_only(node):
            for other in node.orelse:
                yield other
                yield from nodes_that_run(other)
            continue
        yield node
        yield from nodes_that_run(node)


def imported(module: str, tree: ast.AST, modules=SOURCES, is_package: bool = False) -> set[str]:
    """Absolute names of what a module imports anywhere in it; package modules to the module itself."""
    found = set()
    for node in nodes_that_run(tree):
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


def rank(module: str) -> int:
    """Line of `ORDER` that a module belongs to."""
    lines = {prefix: line for line, prefixes in enumerate(ORDER) for prefix in prefixes}
    fitting = [
        prefix
        for prefix in lines
        if module == prefix or (prefix.count(".") and module.startswith(f"{prefix}."))
    ]
    assert fitting, f"{module} stands in no line of ORDER: say where it belongs"
    return lines[max(fitting, key=len)]


def own_imports(module: str) -> set[str]:
    is_package = SOURCES[module].name == "__init__.py"
    return {
        name
        for name in imported(module, TREES[module], is_package=is_package) - {module}
        if name.partition(".")[0] == "medv_lab"
    }


@pytest.mark.parametrize("module", SOURCES)
def test_imports_point_one_way(module: str):
    line = rank(module)
    upward = sorted(name for name in own_imports(module) if rank(name) > line)
    assert not upward, f"{module} imports {upward}, which come after it in ORDER"


def test_no_cycles_not_even_in_functions():
    graph = {module: own_imports(module) & SOURCES.keys() for module in SOURCES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_the_reading_of_imports_sees_functions_and_relative_names():
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
        "medv_lab.views.style",
        "torch.nn",
        "medv_lab.diffusion.sibling",
        "medv_lab.paper.published",
    }


def test_the_order_puts_modules_on_the_right_lines():
    chain = (
        "runtime",
        "diffusion.trace",
        "diffusion.sampler",
        "data.images",
        "model.modeling",
        "training.trainer",
    )
    chain += ("evaluation.runner", "paper.figures", "cli")
    ranks = [rank(f"medv_lab.{name}") for name in chain]
    assert ranks == sorted(set(ranks))
    with pytest.raises(AssertionError, match="stands in no line"):
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
            is_broad = re.search(r"\b(everything|Exception|BaseException)\b", caught)
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
    assert {"medv_lab.paper", "medv_lab.views"} <= set(rooms)
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

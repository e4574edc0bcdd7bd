"""README: a first screen that shows and does something, few words, links that lead somewhere, code that runs."""

import os
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet
from packaging.version import Version
from PIL import Image

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = sorted(
    path
    for path in ROOT.rglob("README.md")
    if not {"build", "golden"} & set(path.parts) and not any(part.startswith(".") for part in path.parts)
)
FIRST_SCREEN = 45  # lines
MOST_WORDS = 900
MOST_KILOBYTES = 600
LINK = re.compile(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)")


def headings(page: Path) -> set[str]:
    """Anchors as GitHub makes them."""
    found = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in found}


def test_the_first_screen_shows_an_answer_unmasked_and_three_commands_with_time_and_disk():
    first = "\n".join(README.splitlines()[:FIRST_SCREEN])
    (animation,) = re.findall(r"!\[[^\]]+\]\((figures/\w+\.gif)\)", first)
    assert (ROOT / animation).stat().st_size < MOST_KILOBYTES * 1000
    with Image.open(ROOT / animation) as moving:
        assert moving.n_frames > 10
    table = first[first.index("| command |") :].split("\n\n")[0].splitlines()
    assert table[0].split("|")[1:-1] == [" command ", " what it does ", " time ", " disk "]
    commands = [row.split("|")[1].strip(" `") for row in table[2:]]
    assert [command.split()[0] for command in commands] == ["git", "make", "make"]
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {command.split()[1] for command in commands[1:]} <= set(targets)
    assert all(cell.strip() for row in table[2:] for cell in row.split("|")[1:-1])


def test_readme_is_short():
    assert len([word for word in README.split() if re.search(r"\w", word)]) <= MOST_WORDS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files_and_headings(page):
    for target, anchor in LINK.findall(page.read_text()):
        path = (page.parent / target) if target else page
        assert path.exists(), target
        if anchor:
            assert anchor in headings(path), (target, anchor)


def test_the_badges_open_a_notebook_that_is_there():
    opened = re.findall(r"\]\((https://(?:mybinder|colab)[^)]+notebooks[^)]+)\)", README)
    assert len(opened) == 2
    for address in opened:
        name = address.replace("%2F", "/").rpartition("notebooks/")[2]
        assert (ROOT / "notebooks" / name).is_file(), address


def test_binder_installs_torch_for_cpus_and_this_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    environment = yaml.safe_load((ROOT / ".binder" / "environment.yml").read_text())
    wanted = {
        name: versions
        for name, versions in (line.split() for line in environment["dependencies"] if line != "pip")
    }
    assert environment["channels"] == ["conda-forge"]
    assert Version(wanted["python"].strip("=")) in SpecifierSet(project["requires-python"])
    assert f"torch{wanted['pytorch-cpu']}" in project["dependencies"]
    script = ROOT / ".binder" / "postBuild"
    assert os.access(script, os.X_OK) and "--editable '.[demo]'" in script.read_text()


def test_the_code_of_readme_runs(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})
    assert "confidence" in capsys.readouterr().out

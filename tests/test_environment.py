"""environment.yml asks for what pyproject.toml asks for; constraints.txt and floors.txt pin all of it exactly."""

import re
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version
from rattler import MatchSpec

ROOT = Path(__file__).parents[1]
INSTALL_PROJECT = "-e ."


def read_conda(line: str) -> tuple[str, SpecifierSet]:
    """Name and versions of a conda line; a line that strict parsing refuses is an error."""
    spec = MatchSpec(line, strict=True)
    if spec.build is not None or spec.channel is not None:
        raise ValueError(f"{line!r} asks for a build or channel; give a name and versions")
    return canonicalize_name(spec.name.normalized), SpecifierSet(str(spec.version or ""))


def read_pip(line: str) -> tuple[str, SpecifierSet]:
    """Name and versions of a pip line; links, markers and extras are errors here."""
    requirement = Requirement(line)
    if requirement.url or requirement.marker or requirement.extras:
        raise ValueError(f"{line!r} has a link, marker or extra; give a name and versions")
    return canonicalize_name(requirement.name), requirement.specifier


def read_environment(text: str) -> dict[str, SpecifierSet]:
    """All requirements of an environment file, python among them; pip itself is left out."""
    environment = yaml.safe_load(text)
    if environment["channels"] != ["conda-forge"]:
        raise ValueError(f"channels are {environment['channels']}; conda-forge alone is wanted")
    *conda, last = environment["dependencies"]
    if not isinstance(last, dict) or list(last) != ["pip"] or last["pip"][-1] != INSTALL_PROJECT:
        raise ValueError(
            f"the last entry is {last!r}; a pip section that ends in {INSTALL_PROJECT!r} is wanted"
        )
    pairs = [read_conda(line) for line in conda] + [read_pip(line) for line in last["pip"][:-1]]
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a package is listed twice")
    if found.pop("pip", None) is None:
        raise ValueError("pip is not among the conda packages, but a pip section needs it")
    return found


def read_project(text: str) -> dict[str, SpecifierSet]:
    """The requirements of a pyproject file, python among them."""
    project = tomllib.loads(text)["project"]
    found = dict(read_pip(line) for line in project["dependencies"])
    return found | {"python": SpecifierSet(project["requires-python"])}


def read_pins(text: str) -> dict[str, str]:
    """Versions of a constraints file; a range, a local build tag or a package of GPU builds alone is an error."""
    pins = {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        pin = re.fullmatch(r"([A-Za-z0-9._-]+)==([0-9][0-9A-Za-z.]*)", line)
        if pin is None or pin[1].lower().startswith(("nvidia", "triton")):
            raise ValueError(f"{line!r} is not an exact pin that fits every machine; give name==version")
        if canonicalize_name(pin[1]) in pins:
            raise ValueError(f"{pin[1]} has a second pin")
        pins[canonicalize_name(pin[1])] = pin[2]
    return pins


def test_environment_equals_project():
    environment, project = (ROOT / name for name in ("environment.yml", "pyproject.toml"))
    assert read_environment(environment.read_text()) == read_project(project.read_text())


def direct_requirements() -> list[Requirement]:
    """All that pyproject.toml asks for by name: to run, to build, to test and in every extra."""
    tables = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [*tables["project"]["dependencies"], *tables["build-system"]["requires"]]
    for extra in tables["project"]["optional-dependencies"].values():
        wanted += [line for line in extra if not line.startswith("medv-lab[")]
    return [Requirement(line) for line in wanted]


def test_constraints_pin_every_direct_requirement_exactly_within_its_range():
    pins = read_pins((ROOT / "constraints.txt").read_text())
    for requirement in direct_requirements():
        version = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), requirement


def test_floors_pin_the_oldest_version_of_every_direct_requirement_and_ipykernel_6():
    pins = read_pins((ROOT / "tests/floors.txt").read_text())
    kernel = Version(pins.pop("ipykernel"))
    newest = Version(read_pins((ROOT / "constraints.txt").read_text())["ipykernel"])
    assert (kernel.major, newest.major) == (6, 7)
    oldest = {}
    for requirement in direct_requirements():
        (floor,) = (part.version for part in requirement.specifier if part.operator == ">=")
        oldest[canonicalize_name(requirement.name)] = Version(floor)
    assert {name: Version(version) for name, version in pins.items()} == oldest

"""Options are the fields of dataclasses: names, defaults, help, and objects of what was given."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

from medv_lab.cli.options import Fields, GivenSettings, add_commands, describe_fields, read_choice
from medv_lab.config import (
    PRESETS,
    DualCache,
    GenerationSettings,
    PositionDecay,
    RepetitionPenalty,
    Threshold,
)

SEEN = []


@dataclass(frozen=True)
class Oven:
    """How something is baked.

    A second paragraph.

    Attributes:
        heat: degrees, see `Oven`. Never too
            hot.
        fan, light: switches of it, which
            are separate.
        shelf: or none.

    Raises:
        ValueError: for ice.
    """

    heat: float
    fan: bool = False
    light: bool = True
    shelf: int | None = None
    names: tuple[str, ...] = ("a",)
    secret: str = "kept"

    def __post_init__(self) -> None:
        if self.heat < 0:
            raise ValueError(f"heat is {self.heat}; give 0 or more")


def bake(
    cake: Path,
    oven: Annotated[Oven, Fields(without=("secret",), flags={"fan": "--air"})],
    grill: Annotated[Oven, Fields(only=("shelf",), flags={"shelf": "--grill-shelf"})] = Oven(
        9, shelf=4, secret="x"
    ),
    often: Annotated[int, typer.Option(help="times")] = 1,
) -> None:
    """Bake a cake."""
    SEEN.append((cake, oven, grill, often))


def begin(settings: GenerationSettings) -> None:
    """Take settings."""
    SEEN.append(settings)


def alter(settings: Annotated[GivenSettings, Fields(without=("noise",))]) -> None:
    """Take changes of settings."""
    SEEN.append(settings)


APP = typer.Typer()
add_commands(APP, bake, begin, alter)


def run(*arguments: str):
    result = CliRunner().invoke(APP, arguments)
    assert result.exit_code == 0, result.output
    return SEEN.pop()


def fails(*arguments: str) -> str:
    result = CliRunner().invoke(APP, arguments)
    assert result.exit_code == 2 and len(result.stderr.splitlines()) == 1, result.output
    return result.stderr


def options(name: str) -> dict:
    return {one.opts[0]: one for one in get_command(APP).commands[name].params}


def test_a_dataclass_becomes_its_fields():
    assert list(options("bake")) == [
        "cake",
        *("--heat", "--air", "--light", "--shelf", "--names"),
        "--grill-shelf",
        "--often",
    ]
    assert run("bake", "x", "--heat", "5") == (Path("x"), Oven(5), Oven(9, shelf=4, secret="x"), 1)
    given = ("--heat", "1", "--air", "--no-light", "--shelf", "2", "--names", "b", "--names", "c")
    oven, grill = Oven(1, True, False, 2, ("b", "c")), Oven(9, shelf=7, secret="x")
    assert run("bake", "x", *given, "--grill-shelf", "7", "--often", "3") == (Path("x"), oven, grill, 3)


def test_help_is_the_first_sentence_of_the_docstring():
    assert describe_fields(Oven) == {
        "heat": "degrees, see Oven",
        "fan": "switches of it, which are separate",
        "light": "switches of it, which are separate",
        "shelf": "or none",
    }
    assert options("bake")["--air"].help == "switches of it, which are separate"
    assert set(describe_fields(GenerationSettings)) == {one.name for one in fields(GenerationSettings)}


def test_what_a_dataclass_refuses_is_one_line():
    assert fails("bake", "x", "--heat", "-1") == "heat is -1.0; give 0 or more\n"


def test_every_setting_is_an_option_and_nothing_given_changes_nothing():
    names = {"--" + one.name.replace("_", "-") for one in fields(GenerationSettings)}
    assert set(options("begin")) == names | {"--preset"}
    assert set(options("alter")) == names - {"--noise"} | {"--preset"}
    assert run("begin") == GenerationSettings()
    assert run("alter") == GivenSettings()


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_what_other_settings_are_put_over(name):
    assert run("begin", "--preset", name) == PRESETS[name]
    given = run("alter", "--preset", name, "--seed", "3")
    assert given.over(GenerationSettings()).seed == 3
    assert given.over(GenerationSettings()).L == PRESETS[name].L
    assert "fast" in fails("begin", "--preset", "quick")


def test_settings_of_every_type_are_read():
    made = run(
        "begin",
        *("--gen-length", "128", "--temperature", "0.5", "--stop", "a", "--stop", "b"),
        *("--suppressed-tokens", "1, 2", "--suffix", "!", "--guard", "penalty:penalty=1"),
        *("--cache", "dual:refresh=8", "--remasking", "position:decay=0.5"),
    )
    assert made == GenerationSettings(
        gen_length=128,
        temperature=0.5,
        stop=("a", "b"),
        suppressed_tokens=(1, 2),
        suffix="!",
        guard=RepetitionPenalty(1),
        cache=DualCache(8),
        remasking=PositionDecay(0.5),
    )
    assert run("begin", "--stop", "", "--suppressed-tokens", "") == GenerationSettings(
        stop=(), suppressed_tokens=()
    )


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("threshold", "threshold"),
        ("threshold:threshold=0.8", {"name": "threshold", "threshold": 0.8}),
        ("dual:refresh=none", {"name": "dual", "refresh": None}),
        ("x:a=1,b=text, c = true", {"name": "x", "a": 1, "b": "text", "c": True}),
    ],
)
def test_a_choice_is_read(text, choice):
    assert read_choice(text) == choice


@pytest.mark.parametrize("made", [Threshold(0.7), RepetitionPenalty(2.0), DualCache()])
def test_what_settings_write_is_what_the_command_line_reads(made):
    given = ",".join(f"{name}={value}" for name, value in made.to_dict().items() if name != "name")
    assert getattr(run("begin", f"--{made.kind}", f"{made.name}:{given}"), made.kind) == made


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--remasking", "treshold"], "did you mean threshold?"),
        (["--remasking", "threshold:limit=3"], "it has threshold"),
        (["--remasking", "threshold:threshold=high"], "give a number, from 0 to 1"),
        (["--remasking", "threshold:0.8"], "give NAME or NAME:PARAMETER=VALUE"),
        (["--remasking", "wino", "--guard", "spread"], "chooses without one"),
        (["--block-length", "24"], "near are 8, 16, 32"),
        (["--suppressed-tokens", "all"], "give 'reference'"),
    ],
)
def test_settings_that_do_not_go_together_are_one_line(arguments, message):
    assert message in fails("begin", *arguments)

"""Options made from frozen dataclasses: a command that takes a dataclass gets one option per field of it.

    def train(output: Path, engine: Annotated[Engine, Fields(without=("keep",))] = Engine(save_steps=100)):
        ...

An option has the name, the type and the default of its field (the default of the parameter, if there is one, goes
first), and its help is the first sentence that the docstring of the class has about it under "Attributes". What cannot
be used as it is read, such as "threshold:threshold=0.8", becomes what the class takes. The class checks its values
itself, and its errors become one red line.
"""

from __future__ import annotations

import re
from ast import literal_eval
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from inspect import Parameter, Signature, getdoc, signature
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

from medv_lab.cli.console import clear_errors
from medv_lab.config import PRESETS, GenerationSettings
from medv_lab.explorer.choices import read_suppressed
from medv_lab.store import require_writable
from medv_lab.strategies.base import Choice

FOLDERS = ("output", "out", "save", "cache", "offload")  # options of folders that a command writes to
FILES = ("trace", "html", "gif", "table")  # and of files
Maker = Callable[[dict[str, Any]], Any]


@dataclass(frozen=True)
class Fields:
    """The fields of a dataclass that are options, and their flags.

    Attributes:
        only: names of the fields; all of them by default.
        without: names of fields that are no options.
        flags: of fields that are not called by their name, {"gradient_checkpointing": "--checkpointing"}.
    """

    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    flags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class GivenSettings:
    """The settings of a generation as far as the command line has them, for commands with defaults of their own.

    Attributes:
        preset: settings to begin with; the other settings replace theirs.
        changes: what was given, by field.
    """

    preset: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)

    def over(self, default: GenerationSettings) -> GenerationSettings:
        """Return the preset, or `default` where none was named, with what was given in place of its own.

        Raises:
            ValueError: for an unknown preset, or settings that do not go together.
        """
        if self.preset is not None and self.preset not in PRESETS:
            raise ValueError(f"there is no preset {self.preset!r}; the presets are {', '.join(PRESETS)}")
        return replace(default if self.preset is None else PRESETS[self.preset], **self.changes)


def add_commands(app: typer.Typer, *functions: Callable[..., None]) -> None:
    """Add functions as commands; what they take in dataclasses becomes options, expected errors become one line."""
    for function in functions:
        app.command()(with_options(function))


def with_options(function: Callable[..., None]) -> Callable[..., None]:
    """Return a function that takes the fields of dataclasses one by one, and calls another with the dataclasses."""
    parameters: list[Parameter] = []
    makers: dict[str, Maker] = {}
    hints = get_type_hints(function, include_extras=True)
    for one in signature(function).parameters.values():
        kind, *notes = (
            get_args(hints[one.name]) if get_origin(hints[one.name]) is Annotated else [hints[one.name]]
        )
        if is_dataclass(kind):
            chosen = next((note for note in notes if isinstance(note, Fields)), Fields())
            own, makers[one.name] = _expand(one, kind, chosen)
        else:
            own = [one.replace(annotation=hints[one.name], kind=Parameter.KEYWORD_ONLY)]
        parameters += own

    def run(**values: Any) -> None:
        with clear_errors():
            if not any(value for name, value in values.items() if name.endswith("dry_run")):
                _check_places({name: value for name, value in values.items() if isinstance(value, Path)})
            made = {name: make(values) for name, make in makers.items()}
            function(**{name: value for name, value in values.items() if name in hints}, **made)

    run.__name__, run.__doc__ = function.__name__, function.__doc__
    run.__signature__ = Signature(parameters)
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run


def _check_places(paths: Mapping[str, Path]) -> None:
    """Check that what a command will write can be written, before it computes anything."""
    for option, path in paths.items():
        name = option.rpartition("_")[2]
        if name in FOLDERS:
            require_writable(path)
        elif name in FILES:
            require_writable(file=path)


def read_choice(text: str) -> str | dict[str, Any]:
    """Read a strategy, guard or cache: "name" or "name:parameter=value,parameter=value", as `Choice.make` takes it.

    Raises:
        ValueError: for a parameter without a value.
    """
    name, colon, rest = text.partition(":")
    if not colon:
        return name
    given = {}
    for part in rest.split(","):
        parameter, equals, value = (word.strip() for word in part.partition("="))
        if not (parameter and equals and value):
            raise ValueError(
                f"{text!r} has {part!r} where a parameter and its value are wanted; give NAME or "
                "NAME:PARAMETER=VALUE,PARAMETER=VALUE, e.g. threshold:threshold=0.8"
            )
        if parameter in (*given, "name"):
            raise ValueError(f"{text!r} gives {parameter} twice; give each parameter once")
        given[parameter] = _read_value(value)
    return {**given, "name": name}


def describe_fields(kind: type) -> dict[str, str]:
    """Return the first sentence that a docstring in Google style has about each attribute, without its full stop."""
    _, _, section = (getdoc(kind) or "").partition("Attributes:\n")
    section = re.split(r"\n\n|\n(?=\S)", section)[0]
    found = {}
    for names, text in re.findall(r"^    (\w[\w, ]*): ((?:.|\n {8})*)", section, re.MULTILINE):
        sentence = re.split(r"\.(?:\s|$)", " ".join(text.split()))[0].replace("`", "")
        found |= dict.fromkeys(names.split(", "), sentence)
    return found


def _expand(one: Parameter, kind: type, chosen: Fields) -> tuple[list[Parameter], Maker]:
    """Return the options of a parameter that is a dataclass, and what makes the object of their values.

    Options of settings have no value unless they are given, so that a preset or the command has its own.
    """
    is_settings, has_default = kind in (GenerationSettings, GivenSettings), one.default is not Parameter.empty
    source = GenerationSettings if is_settings else kind
    types, helps = get_type_hints(source), describe_fields(source)
    options, readers = [], {}

    def add(name: str, flag: str, annotation: Any, default: Any, help: str, shown: str | bool) -> None:
        annotation = Annotated[
            annotation | None if default is None else annotation,
            typer.Option(flag, help=help, show_default=shown),
        ]
        default = Parameter.empty if default is MISSING else default
        options.append(Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation))

    if is_settings:
        help = f"{describe_fields(GivenSettings)['preset']}: {', '.join(PRESETS)}"
        shown = False if kind is GenerationSettings else "the command's own settings"
        add(f"{one.name}_preset", "--preset", str, None, help, shown)
    for each in fields(source):
        if each.name in chosen.without or (chosen.only and each.name not in chosen.only):
            continue
        annotation, reader = _read_as(types[each.name])
        default = each.default if each.default_factory is MISSING else each.default_factory()
        if has_default:
            default = getattr(one.default, each.name)
        shown: str | bool = True
        if is_settings:
            text = ", ".join(default) if isinstance(default, tuple) else str(default)
            default, shown = None, text if kind is GenerationSettings else False
        flag = chosen.flags.get(each.name, "--" + each.name.replace("_", "-"))
        flag = f"{flag}/--no-{flag[2:]}" if annotation is bool else flag
        option, help = f"{one.name}_{each.name}", helps.get(each.name, "") + _names_of(types[each.name])
        add(option, flag, annotation, default, help, shown)
        readers[each.name] = option, reader

    def make(values: dict[str, Any]) -> Any:
        given = {name: values[option] for name, (option, _) in readers.items()}
        given = {name: None if one is None else readers[name][1](one) for name, one in given.items()}
        if not is_settings:
            return replace(one.default, **given) if has_default else kind(**given)
        changes = {name: value for name, value in given.items() if value is not None}
        settings = GivenSettings(values[f"{one.name}_preset"], changes)
        return settings.over(GenerationSettings()) if kind is GenerationSettings else settings

    return options, make


def _read_as(kind: Any) -> tuple[Any, Callable[[Any], Any]]:
    """Return the type that the command line reads for a field, and what makes the field's value of it."""
    if isinstance(kind, type) and issubclass(kind, Choice):
        return str, read_choice
    if kind == tuple[str, ...]:
        return list[str], lambda texts: tuple(text for text in texts if text)
    if kind == str | tuple[int, ...]:
        return str, read_suppressed
    return kind, lambda value: value


def _names_of(kind: Any) -> str:
    """Return the names that a strategy, guard or cache can have, and how one is given parameters; "" of others."""
    if not (isinstance(kind, type) and issubclass(kind, Choice)):
        return ""
    found = next(one for one in kind.known.values() if fields(one))
    first = fields(found)[0]
    value = 8 if first.default is None else first.default
    return f": {', '.join(kind.known)}; with parameters as {found.name}:{first.name}={value}"


def _read_value(text: str) -> Any:
    """Read a number, true, false or none; anything else is a text."""
    words = {"none": None, "true": True, "false": False}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return literal_eval(text)
    except (ValueError, SyntaxError):
        return text

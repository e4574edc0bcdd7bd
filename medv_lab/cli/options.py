"""Options made from frozen dataclasses: a command that takes a dataclass gets one option per field of it.

    @command(app)
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
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass, replace
from inspect import Parameter, Signature, getdoc, signature
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

from medv_lab.cli.errors import clear_errors
from medv_lab.config import PRESETS, GenerationSettings
from medv_lab.explorer.choices import read_suppressed
from medv_lab.strategies.base import Choice


@dataclass(frozen=True)
class Fields:
    """Which fields of a dataclass are options, and under which flags.

    Attributes:
        only: names of the fields; all of them by default.
        without: names of fields that are no options.
        flags: of fields that are not called by their name, {"gradient_checkpointing": "--checkpointing"}.
    """

    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    flags: Mapping[str, str] = field(default_factory=dict)

    def of(self, kind: type) -> list[Field]:
        """Return the fields of a dataclass that are options."""
        return [
            one
            for one in fields(kind)
            if one.name not in self.without and (not self.only or one.name in self.only)
        ]


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


def command(app: typer.Typer) -> Callable[[Callable], Callable]:
    """Register a command whose dataclasses become options; what the user can put right is shown as one red line."""

    def register(function: Callable) -> Callable:
        parameters: list[Parameter] = []
        makers: dict[str, Callable[[dict[str, Any]], Any]] = {}
        hints = get_type_hints(function, include_extras=True)
        for one in signature(function).parameters.values():
            kind, *notes = get_args(hints[one.name]) if get_origin(hints[one.name]) is Annotated else [hints[one.name]]
            if is_dataclass(kind):
                chosen = next((note for note in notes if isinstance(note, Fields)), Fields())
                own, makers[one.name] = _expand(one, kind, chosen)
            else:
                own = [one.replace(annotation=hints[one.name], kind=Parameter.KEYWORD_ONLY)]
            parameters += own

        def run(**values: Any) -> None:
            with clear_errors():
                made = {name: make(values) for name, make in makers.items()}
                given = {name: value for name, value in values.items() if name in hints}
                function(**given, **made)

        run.__name__, run.__doc__ = function.__name__, function.__doc__
        run.__signature__ = Signature(parameters)
        run.__annotations__ = {one.name: one.annotation for one in parameters}
        app.command()(run)
        return function

    return register


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


def _expand(one: Parameter, kind: type, chosen: Fields) -> tuple[list[Parameter], Callable[[dict], Any]]:
    """Return the options of a parameter that is a dataclass, and what makes the object of their values."""
    if kind in (GenerationSettings, GivenSettings):
        return _expand_settings(one, kind, chosen)
    options, readers = [], {}
    types, helps = get_type_hints(kind), describe_fields(kind)
    for each in chosen.of(kind):
        default = _default_of(each) if one.default is Parameter.empty else getattr(one.default, each.name)
        name = f"{one.name}_{each.name}"
        annotation, readers[each.name] = _read_as(types[each.name])
        options.append(
            _option(name, annotation, _flag(each, types, chosen), helps.get(each.name), default=default)
        )

    def make(values: dict[str, Any]) -> Any:
        given = {name: read(values[f"{one.name}_{name}"]) for name, read in readers.items()}
        return kind(**given) if one.default is Parameter.empty else replace(one.default, **given)

    return options, make


def _expand_settings(one: Parameter, kind: type, chosen: Fields) -> tuple[list[Parameter], Callable[[dict], Any]]:
    """Return options that say nothing unless they are given, so that a preset or the command has its own values."""
    types, helps = get_type_hints(GenerationSettings), describe_fields(GenerationSettings)
    preset = f"{describe_fields(GivenSettings)['preset']}: {', '.join(PRESETS)}"
    options = [_option(f"{one.name}_preset", str | None, "--preset", preset, default=None)]
    readers = {}
    for each in chosen.of(GenerationSettings):
        annotation, readers[each.name] = _read_as(types[each.name])
        shown = _text_of(_default_of(each)) if kind is GenerationSettings else ""
        help = helps[each.name] + _names_of(types[each.name])
        flag = _flag(each, types, chosen)
        name = f"{one.name}_{each.name}"
        options.append(_option(name, annotation | None, flag, help, default=None, shown=shown or False))

    def make(values: dict[str, Any]) -> GenerationSettings | GivenSettings:
        found = {name: values[f"{one.name}_{name}"] for name in readers}
        changes = {name: readers[name](value) for name, value in found.items() if value is not None}
        given = GivenSettings(values[f"{one.name}_preset"], changes)
        return given.over(GenerationSettings()) if kind is GenerationSettings else given

    return options, make


def _option(
    name: str, annotation: Any, flag: str, help: str | None, *, default: Any, shown: bool | str = True
) -> Parameter:
    option = typer.Option(flag, help=help, show_default=shown)
    if default is MISSING:
        return Parameter(name, Parameter.KEYWORD_ONLY, annotation=Annotated[annotation, option])
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[annotation, option])


def _flag(one: Field, types: Mapping[str, Any], chosen: Fields) -> str:
    flag = chosen.flags.get(one.name, "--" + one.name.replace("_", "-"))
    return f"{flag}/--no-{flag[2:]}" if types[one.name] is bool else flag


def _default_of(one: Field) -> Any:
    return one.default if one.default_factory is MISSING else one.default_factory()


def _read_as(kind: Any) -> tuple[Any, Callable[[Any], Any]]:
    """Return the type that the command line reads for a field, and what makes the field's value of it."""
    if isinstance(kind, type) and issubclass(kind, Choice):
        return str, read_choice
    if kind == tuple[str, ...]:
        return list[str], lambda texts: tuple(text for text in texts if text)
    if kind == str | tuple[int, ...]:
        return str, read_suppressed
    return kind, lambda value: value


def _text_of(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _names_of(kind: Any) -> str:
    """Return the names that a strategy, guard or cache can have, and how one is given parameters; "" of others."""
    if not (isinstance(kind, type) and issubclass(kind, Choice)):
        return ""
    found = next(one for one in kind.known.values() if fields(one))
    first = fields(found)[0]
    return f": {', '.join(kind.known)}; with parameters as {found.name}:{first.name}={_example(first)}"


def _example(one: Field) -> Any:
    return 8 if one.default is None else one.default


def _read_value(text: str) -> Any:
    """Read a number, true, false or none; anything else is a text."""
    words = {"none": None, "true": True, "false": False}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return literal_eval(text)
    except (ValueError, SyntaxError):
        return text

"""Options declared as dataclass fields: each made by `option` is a long option and an environment variable.

The flag is the field's name with hyphens, the variable its name in capitals; `command_line` parses them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias

OPTION = "option"
VARIABLE = "variable"
"""The metadata keys under which a field carries its declaration."""

Takes: TypeAlias = Literal["value", "optional value", "nothing"]

BOOLEANS: Mapping[str, object] = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class Text:
    """Any text, the empty one too."""

    takes: ClassVar[Takes] = "value"

    @property
    def possible(self) -> tuple[str, ...]:
        """The texts that are accepted, if they can be listed."""
        return ()

    def parse(self, text: str) -> object:
        """The value; ValueError says what is wrong with it (nothing where `possible` says it all)."""
        return text


@dataclass(frozen=True, slots=True)
class OptionalText(Text):
    """True, false or any other text; the flag without a value means true."""

    takes: ClassVar[Takes] = "optional value"

    def parse(self, text: str) -> object:
        return BOOLEANS.get(text, text)


@dataclass(frozen=True, slots=True)
class File(Text):
    """A path."""

    def parse(self, text: str) -> object:
        if not text:
            raise ValueError("a path cannot be empty")
        return Path(text)


@dataclass(frozen=True, slots=True)
class Integer(Text):
    """An unsigned decimal number; its errors are worded as Rust words them."""

    minimum: int = 0
    maximum: int | None = None

    def parse(self, text: str) -> object:
        if not text:
            raise ValueError("cannot parse integer from empty string")
        if not re.fullmatch(r"\+?[0-9]+" if self.maximum is None else r"[+-]?[0-9]+", text):
            raise ValueError("invalid digit found in string")
        if len(text) > 20 or (number := int(text)) >= 2**64:
            raise ValueError("number too large to fit in target type")
        if number < self.minimum or (self.maximum is not None and number > self.maximum):
            raise ValueError(f"{number} is not in {self.minimum}..{'' if self.maximum is None else f'={self.maximum}'}")
        return number


@dataclass(frozen=True, slots=True)
class AutoInteger(Integer):
    """A number, or `auto`, which becomes None."""

    def parse(self, text: str) -> object:
        return None if text == "auto" else Integer.parse(self, text)


@dataclass(frozen=True, slots=True)
class Limit(Integer):
    """A number; 0 is no limit and becomes None."""

    def parse(self, text: str) -> object:
        return Integer.parse(self, text) or None


@dataclass(frozen=True, slots=True)
class Choice(Text):
    """One of a few words, case-sensitive; the value is what the word stands for."""

    values: Mapping[str, object]

    @property
    def possible(self) -> tuple[str, ...]:
        return tuple(self.values)

    def parse(self, text: str) -> object:
        if text not in self.values:
            raise ValueError
        return self.values[text]


def words(*possible: str) -> Choice:
    """A choice whose words stand for themselves."""
    return Choice({word: word for word in possible})


@dataclass(frozen=True, slots=True)
class Boolean(Choice):
    """`true` or `false`; the flag without a value means true."""

    takes: ClassVar[Takes] = "optional value"
    values: Mapping[str, object] = field(default_factory=lambda: BOOLEANS)


@dataclass(frozen=True, slots=True)
class Flag(Boolean):
    """True where the flag is given, which takes no value; its variable is `true` or `false`."""

    takes: ClassVar[Takes] = "nothing"


@dataclass(frozen=True, slots=True)
class Option:
    """What is known of an option besides its field's name and default.

    about: one line; details: more, for `--help`; default: its text where the value itself says too little;
    repeatable: the values are gathered in a tuple; conflicts, requires: names of other fields; gives: the
    field whose value the option's value is, too.
    """

    value: Text
    group: str
    about: str
    details: str = ""
    default: str = ""
    short: str = ""
    repeatable: bool = False
    hidden: bool = False
    conflicts: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    gives: str = ""
    name: str = ""
    required: bool = False

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return self.name.upper()

    @property
    def usage(self) -> str:
        """The option as errors and help show it: `--port <PORT>`."""
        placeholder = {"value": f" <{self.variable}>", "optional value": f" [<{self.variable}>]", "nothing": ""}
        return self.flag + placeholder[self.value.takes]


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable that is no option. Empty counts as unset unless `parse` is to see it."""

    name: str
    about: str
    parse: Callable[[str], object] = str
    empty_counts: bool = False


def option(
    value: Text,
    group: str,
    about: str,
    *,
    default: Any = MISSING,
    default_factory: Any = MISSING,
    default_text: str = "",
    details: str = "",
    short: str = "",
    repeatable: bool = False,
    hidden: bool = False,
    secret: bool = False,
    conflicts: tuple[str, ...] = (),
    requires: tuple[str, ...] = (),
    gives: str = "",
) -> Any:
    """A dataclass field that is an option (see `Option`); `secret` keeps its value out of the repr."""
    declared = Option(value, group, about, details, default_text, short, repeatable, hidden, conflicts, requires, gives)
    return field(default=default, default_factory=default_factory, repr=not secret, metadata={OPTION: declared})


def variable(
    name: str, about: str, *, default: Any, parse: Callable[[str], object] = str, empty_counts: bool = False
) -> Any:
    """A dataclass field that is read from the environment only (see `Variable`)."""
    return field(default=default, metadata={VARIABLE: Variable(name, about, parse, empty_counts)})


def options_of(settings: type[Any]) -> dict[str, Option]:
    """The options of a dataclass by field name, in its order, defaults filled in."""
    found: dict[str, Option] = {}
    for declared in fields(settings):
        if OPTION in declared.metadata:
            option = declared.metadata[OPTION]
            found[declared.name] = replace(
                option,
                name=declared.name,
                required=declared.default is MISSING and declared.default_factory is MISSING,
                default=option.default or _text(declared.default),
            )
    return found


def variables_of(settings: type[Any]) -> dict[str, Variable]:
    """The variables of a dataclass that are no options, by field name."""
    return {f.name: f.metadata[VARIABLE] for f in fields(settings) if VARIABLE in f.metadata}


def _text(default: object) -> str:
    """A default as one would write it on the command line; empty where there is none to show."""
    if isinstance(default, bool):
        return str(default).lower()
    return str(default) if isinstance(default, (int, str)) else ""

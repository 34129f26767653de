"""Options declared as dataclass fields: each is a long option and an environment variable.

The flag is the field's name with hyphens, the variable its name in capitals; `command_line` parses them.
"""

from __future__ import annotations

import ipaddress
import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from operator import index
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Literal, SupportsIndex, TypeAlias

OPTION = "option"
VARIABLE = "variable"
"""The metadata keys under which a field carries its declaration."""

MODEL = "Model"
PROMPTS = "Prompts"
LIMITS = "Serving limits"
SERVER = "Server"
HUB = "Hub"
TELEMETRY = "Logs, metrics and traces"
ENGINE = "Engine (not in text-embeddings-inference 1.9.3)"
TRANSPORT = "Transport (not in text-embeddings-inference 1.9.3)"
GROUPS = (MODEL, PROMPTS, LIMITS, SERVER, HUB, TELEMETRY, ENGINE, TRANSPORT)
"""The headings of the help, in its order."""

Takes: TypeAlias = Literal["value", "optional value", "nothing"]

LONGEST_SHOWN = 40
"""Characters of a value that an error shows."""

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

    @property
    def allowed(self) -> str:
        """What a program may give, for people."""
        return "a text"

    def take(self, value: object) -> object:
        """The value that a program gives: a text means what it means on the command line.

        Raises TypeError and ValueError, which say what is allowed.
        """
        if not isinstance(value, str):
            raise TypeError(f"it must be {self.allowed}")
        try:
            return self.parse(value)
        except ValueError:
            raise ValueError(f"it must be {self.allowed}") from None


class Folder(Text):
    """A path that is kept as it is given."""

    @property
    def allowed(self) -> str:
        return "a path"

    def take(self, value: object) -> object:
        return value if isinstance(value, PathLike) else Text.take(self, value)


class Key(Text):
    """What clients send in the header `authorization`, behind `Bearer `."""

    @property
    def allowed(self) -> str:
        return "a text that can be sent in a header, without a blank or a line break at its end"

    def parse(self, text: str) -> object:
        if text != text.rstrip(" \t\r\n"):
            what = "a line break" if text[-1] in "\r\n" else "a blank"
            raise ValueError(
                f"it ends with {what}, which no client can send\nhint: a file's last line break comes along in secrets "
                "made with `--from-file` or `echo`; `printf %s` writes none"
            )
        if any(c < " " or c == "\x7f" or "\ud800" <= c <= "\udfff" for c in text):
            raise ValueError("it has control characters, or is not UTF-8: no client can send it in a header")
        return text


class Address(Text):
    """An IP address."""

    def parse(self, text: str) -> object:
        try:
            ipaddress.ip_address(text)
        except ValueError:
            raise ValueError("Invalid hostname, defaulting to 0.0.0.0") from None
        return text


class OptionalText(Text):
    """True, false or any other text; the flag without a value means true."""

    takes: ClassVar[Takes] = "optional value"

    def parse(self, text: str) -> object:
        return BOOLEANS.get(text, text)

    @property
    def allowed(self) -> str:
        return "a text, True or False"

    def take(self, value: object) -> object:
        return value if isinstance(value, bool) else Text.take(self, value)


class File(Text):
    """A path."""

    def parse(self, text: str) -> object:
        if not text:
            raise ValueError("a path cannot be empty")
        return Path(text)

    @property
    def allowed(self) -> str:
        return "a path"

    def take(self, value: object) -> object:
        return Text.take(self, str(value) if isinstance(value, PathLike) else value)


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

    @property
    def allowed(self) -> str:
        return f"an integer from {self.minimum}" + ("" if self.maximum is None else f" to {self.maximum}")

    def take(self, value: object) -> object:
        if isinstance(value, SupportsIndex) and not isinstance(value, bool):
            value = str(index(value))
        return Text.take(self, value)


class AutoInteger(Integer):
    """A number, or `auto`, which becomes None."""

    def parse(self, text: str) -> object:
        return None if text == "auto" else Integer.parse(self, text)

    @property
    def allowed(self) -> str:
        return f"{super().allowed} or 'auto'"

    def take(self, value: object) -> object:
        return None if value is None else Integer.take(self, value)


class Limit(Integer):
    """A number; 0 is no limit and becomes None."""

    def parse(self, text: str) -> object:
        return Integer.parse(self, text) or None

    def take(self, value: object) -> object:
        return None if value is None else Integer.take(self, value)


@dataclass(frozen=True, slots=True)
class Choice(Text):
    """One of a few words, case-sensitive; the value is what the word stands for."""

    values: Mapping[str, object]
    others: tuple[str, ...] = ()
    """Values that a program may give and the command line has no words for."""

    @property
    def possible(self) -> tuple[str, ...]:
        return tuple(self.values)

    def parse(self, text: str) -> object:
        if text not in self.values:
            raise ValueError
        return self.values[text]

    @property
    def allowed(self) -> str:
        return "one of " + ", ".join([*self.possible, *self.others])

    def take(self, value: object) -> object:
        for known in (*self.values.values(), *self.others):
            if isinstance(value, str | bool) and value == known:
                return known
        return Text.take(self, value)


def words(*possible: str) -> Choice:
    """A choice whose words stand for themselves."""
    return Choice({word: word for word in possible})


@dataclass(frozen=True, slots=True)
class Boolean(Choice):
    """`true` or `false`; the flag without a value means true."""

    takes: ClassVar[Takes] = "optional value"
    values: Mapping[str, object] = field(default_factory=lambda: BOOLEANS)


class Flag(Boolean):
    """True where the flag is given, which takes no value; its variable is `true` or `false`."""

    takes: ClassVar[Takes] = "nothing"


@dataclass(frozen=True, slots=True)
class Option:
    """An option of the command line; `field` makes the dataclass field that holds its value."""

    value: Text
    group: str
    """The heading of the help that it stands under: one of `GROUPS`."""
    about: str
    """One line."""
    details: str = ""
    """More, for `--help`."""
    default_text: str = ""
    """How the default is shown where the value itself says too little."""
    short: str = ""
    """The short flag, as `-p`."""
    repeatable: bool = False
    """May be given several times: the values are gathered in a tuple."""
    hidden: bool = False
    """Is not shown by the help."""
    secret: bool = False
    """Its value is shown nowhere: not in errors, logs and the repr."""
    variable_value: Text | None = None
    """What its variable may hold, where others set it too: anything else is ignored, with a warning."""
    conflicts: tuple[str, ...] = ()
    """Names of options that can't be given together with it."""
    requires: tuple[str, ...] = ()
    """Names of options that must be given with it."""
    gives: str = ""
    """The name of the option whose value this option's value is, too."""
    before: str = ""
    """A variable that is read before its own, unless it is empty."""
    name: str = ""
    """The name of the dataclass field (filled in by `options_of`)."""
    required: bool = False
    """Whether the field has no default (filled in by `options_of`)."""

    def take(self, value: object) -> object:
        """The value that a program gives. Raises TypeError and ValueError."""
        if not self.repeatable:
            return self.value.take(value)
        if not isinstance(value, tuple | list):
            raise TypeError("it must be a list of texts")
        return tuple(self.value.take(item) for item in value)

    def field(self, default: Any = MISSING, *, factory: Any = MISSING) -> Any:
        """The dataclass field of this option."""
        return field(default=default, default_factory=factory, repr=not self.secret, metadata={OPTION: self})

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
    """A variable of the environment that is no option; `field` makes the dataclass field that holds its value."""

    name: str
    about: str
    """What it means, and its default."""
    parse: Callable[[str], object] = str
    """From its text to the value."""
    types: tuple[type, ...] = (str,)
    """Those of the values that a program may give."""
    empty_counts: bool = False
    """Whether the empty text is a value too, not the same as unset."""
    others: tuple[tuple[str, Callable[[str], object]], ...] = ()
    """Variables that are read where it is not set, and how."""

    def take(self, value: object) -> object:
        """The value that a program gives. Raises TypeError."""
        if not isinstance(value, self.types):
            raise TypeError(f"it must be of type {' or '.join(known.__name__ for known in self.types)}")
        return value

    def field(self, default: Any) -> Any:
        """The dataclass field of this variable."""
        return field(default=default, metadata={VARIABLE: self})

    def read(self, environ: Mapping[str, str]) -> Iterator[object]:
        """The value; nothing where no variable is set."""
        if self.empty_counts and environ.get(self.name) == "":
            yield self.parse("")
            return
        for name, parse in ((self.name, self.parse), *self.others):
            if environ.get(name):
                yield parse(environ[name])
                return


def options_of(*parts: type[Any]) -> dict[str, Option]:
    """The options of dataclasses by field name, in their order, defaults filled in."""
    found: dict[str, Option] = {}
    for declared in itertools.chain(*map(fields, parts)):
        if OPTION in declared.metadata:
            option = declared.metadata[OPTION]
            found[declared.name] = replace(
                option,
                name=declared.name,
                required=declared.default is MISSING and declared.default_factory is MISSING,
                default_text=option.default_text or _text(declared.default),
            )
    return found


def variables_of(*parts: type[Any]) -> dict[str, Variable]:
    """The variables of dataclasses that are no options, by field name."""
    return {f.name: f.metadata[VARIABLE] for f in itertools.chain(*map(fields, parts)) if VARIABLE in f.metadata}


def take(declared: Field[Any], value: object) -> object:
    """The value that a program gives for the field of an option or a variable. None stands for a default that is None.

    Raises TypeError or ValueError with the name, the value and what is allowed.
    """
    if value is None and declared.default is None:
        return None
    declaration: Option | Variable = declared.metadata.get(OPTION) or declared.metadata[VARIABLE]
    try:
        return declaration.take(value)
    except (TypeError, ValueError) as error:
        shown = repr(value) if declared.repr else "***"
        shown = shown if len(shown) <= LONGEST_SHOWN else f"a {type(value).__name__}"
        raise type(error)(f"`{declared.name}` can't be {shown}: {error}") from None


def _text(default: object) -> str:
    """A default as one would write it on the command line; empty where there is none to show."""
    if isinstance(default, bool):
        return str(default).lower()
    return str(default) if isinstance(default, (int, str)) else ""

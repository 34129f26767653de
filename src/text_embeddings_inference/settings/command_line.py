"""Reads the options of a dataclass from a command line and the environment, and writes their help.

The command line beats the environment, which beats the default. Rules and error texts are those of clap, the parser
of the server we stand in for. Not argparse or click: both word errors in their own way, let an option be repeated,
and can't see that an option of the command line conflicts with a variable of the environment.
"""

from __future__ import annotations

import difflib
import re
import textwrap
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..errors import SettingsError
from .options import Option, Text, Variable

WIDTH = 100
INDENT = " " * 10
SERVICE_LINK = re.compile("(tcp|udp|sctp)://")
"""How Kubernetes fills variables such as PROMETHEUS_PORT, in every pod, for a service named `prometheus`."""


class Shown(Exception):  # noqa: N818 - not an error: the user asked for the help or the version
    """`str(shown)` is what `-h`, `--help` or `--version` prints."""


class Given(NamedTuple):
    """What a command line and an environment say."""

    values: dict[str, object]
    """Field name -> value."""
    ignored: tuple[str, ...]
    """Which variables were ignored, and why: sentences for the log."""


@dataclass(frozen=True, slots=True)
class CommandLine:
    """The options of one program."""

    program: str
    """Its name."""
    version: str
    """What `--version` says."""
    about: str
    """What the help says first."""
    options: Mapping[str, Option]
    """By field name, in the order of the help."""
    variables: Mapping[str, Variable]
    """Those that are no options, by field name."""
    added: Collection[str] = ()
    """Options that the server we stand in for does not have: what their variables hold can't stop a start,
    and empty they are unset."""

    @property
    def usage(self) -> str:
        required = [option.usage for option in self.options.values() if option.required]
        return " ".join(["Usage:", self.program, "[OPTIONS]", *required])

    def parse(self, argv: Sequence[str], environ: Mapping[str, str]) -> Given:
        """What was given; `argv` is without the program's name.

        Raises SettingsError at the first thing that is wrong, Shown for `-h`, `--help`, `-V` and `--version`.
        """
        given = self._read_arguments(argv)
        self._hand_on(given)
        ignored = []
        for name, option in self.options.items():
            if name in given:
                continue
            source = option.before if environ.get(option.before) else option.variable
            if source in environ:
                text = environ[source]
                if not text and name in self.added:
                    continue
                try:
                    given[name] = [_value(option, text, option.variable_value)]
                except SettingsError as error:
                    counts = name not in self.added and option.variable_value is None
                    if counts and not SERVICE_LINK.match(text):
                        raise
                    ignored.append(f"the variable {source} is ignored: {error}")
        self._check_together(given)
        values = {name: tuple(found) if self.options[name].repeatable else found[0] for name, found in given.items()}
        for name, variable in self.variables.items():
            for value in variable.read(environ):
                values[name] = value
        return Given(values, tuple(ignored))

    def _read_arguments(self, argv: Sequence[str]) -> dict[str, list[object]]:
        flags = {option.flag: option for option in self.options.values()}
        flags |= {option.short: option for option in self.options.values() if option.short}
        given: dict[str, list[object]] = {}
        rest = deque(argv)
        while rest:
            flag, attached = _split(rest.popleft())
            if flag == "--" and not rest:
                break
            if flag in ("-h", "--help"):
                raise Shown(self.help(long=flag == "--help"))
            if flag in ("-V", "--version"):
                raise Shown(f"{self.program} {self.version}")
            if flag not in flags:
                raise self._misused(
                    f"unexpected argument '{rest[0] if flag == '--' else flag}' found", _tip(flag, flags)
                )
            option = flags[flag]
            if option.name in given and not option.repeatable:
                raise self._misused(f"the argument '{option.usage}' cannot be used multiple times")
            if option.value.takes == "nothing" and attached is not None:
                raise self._misused(f"unexpected value '{attached}' for '{option.flag}' found; no more were expected")
            if option.value.takes != "nothing" and attached is None and rest and not _looks_like_option(rest[0]):
                attached = rest.popleft()
            given.setdefault(option.name, []).append(_value(option, attached))
        return given

    def _hand_on(self, given: dict[str, list[object]]) -> None:
        """Options that are given with a value that is another option's, too."""
        for name, found in list(given.items()):
            other = self.options[name].gives
            if other and isinstance(found[0], str):
                if other in given:
                    taker = self.options[other].usage
                    raise self._misused(f"the argument '{self.options[name].usage}' cannot be used with '{taker}'")
                given[other] = found

    def _check_together(self, given: Mapping[str, object]) -> None:
        for name in given:
            for other, option in self.options.items():
                if other in given and (other in self.options[name].conflicts or name in option.conflicts):
                    raise self._misused(
                        f"the argument '{self.options[name].usage}' cannot be used with '{option.usage}'"
                    )
        required = {name for name, option in self.options.items() if option.required}
        required.update(*(self.options[name].requires for name in given))
        if missing := [option.usage for name, option in self.options.items() if name in required - given.keys()]:
            raise self._misused("\n  ".join(["the following required arguments were not provided:", *missing]))

    def _misused(self, problem: str, tip: str = "") -> SettingsError:
        return SettingsError(f"{problem}{tip}\n\n{self.usage}")

    def help(self, *, long: bool) -> str:
        """The short help (a line or two per option), or the long one (all that is known of each)."""
        shown = [option for option in self.options.values() if not option.hidden]
        lines = [self.about, "", self.usage]
        for group in dict.fromkeys(option.group for option in shown):
            lines += ["", f"{group}:"]
            for option in shown:
                if option.group == group:
                    lines += [*_help(option, long=long), *([""] if long else [])]
            lines = lines[:-1] if long else lines
        more = "See a summary with '-h'" if long else "See all there is to know with '--help'"
        lines += ["", "Help:", f"  -h, --help     {more}", "  -V, --version  Print the version"]
        if long:
            lines += ["", "Environment variables without an option:"]
            for variable in self.variables.values():
                lines += [f"      {variable.name}", *_wrapped(variable.about), ""]
        return "\n".join(lines).rstrip()


def _split(argument: str) -> tuple[str, str | None]:
    """Flag and attached value: `--flag=value`, `-pvalue` and `-p=value` have one."""
    if argument.startswith("--"):
        flag, equals, attached = argument.partition("=")
        return flag, attached if equals else None
    if _looks_like_option(argument):
        return argument[:2], argument[2:].removeprefix("=") if argument[2:] else None
    return argument, None


def _looks_like_option(argument: str) -> bool:
    return argument.startswith("-") and argument != "-"


def _value(option: Option, text: str | None, parser: Text | None = None) -> object:
    """The value of `text`; None: the flag came without one. parser: in place of the option's own."""
    value = parser or option.value
    possible = f"\n  [possible values: {', '.join(value.possible)}]" if value.possible else ""
    if text is None:
        if value.takes != "value":
            return True
        raise SettingsError(f"a value is required for '{option.usage}' but none was supplied{possible}")
    try:
        return value.parse(text)
    except ValueError as error:
        if possible and not text:
            raise SettingsError(f"a value is required for '{option.usage}' but none was supplied{possible}") from None
        reason = possible + _tip(text, value.possible, "value") if possible else f": {error}"
        shown = "***" if option.secret else text
        raise SettingsError(f"invalid value '{shown}' for '{option.usage}'{reason}") from None


def _tip(word: str, known: Iterable[str], what: str = "argument") -> str:
    """The nearest word that would have been right, if there is a near one."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.7)
    return f"\n\n  tip: a similar {what} exists: '{near[0]}'" if near else ""


def _help(option: Option, *, long: bool) -> list[str]:
    """The lines about one option."""
    head = f"  {option.short}, {option.usage}" if option.short else f"      {option.usage}"
    notes = [f"[default: {option.default_text}]"] if option.default_text and option.value.takes != "nothing" else []
    if option.value.possible and option.value.takes == "value":
        notes.append(f"[possible values: {', '.join(option.value.possible)}]")
    if not long:
        return [head, *_wrapped(" ".join([option.about, *notes]))]
    details = ["", *_wrapped(option.details)] if option.details else []
    variables = ", ".join(filter(None, (option.before, option.variable)))
    return [head, *_wrapped(option.about), *details, "", *_wrapped(" ".join([f"[env: {variables}]", *notes]))]


def _wrapped(text: str) -> list[str]:
    """`text` in lines, ten blanks before each; its line breaks are kept."""
    return [
        line
        for paragraph in text.splitlines()
        for line in textwrap.wrap(
            paragraph, WIDTH, initial_indent=INDENT, subsequent_indent=INDENT, break_on_hyphens=False
        )
    ]

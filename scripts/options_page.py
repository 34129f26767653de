"""Writes docs/command-line.md: what the files of settings/ say of the options.

python scripts/options_page.py docs/command-line.md      (make options-page)
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from text_embeddings_inference.settings import command_line
from text_embeddings_inference.settings.options import Option

INTRODUCTION = """\
# Command line

<!-- Written by scripts/options_page.py from the files of settings/: change those, then
run `make options-page`. -->

    text-embeddings-router --model-id MODEL [OPTIONS]

Each option is a variable of the environment too; the command line beats the variable, which beats the default. Both
`--option value` and `--option=value` will do. A variable that is set to nothing counts as given, with an empty value.
`--help` shows this page in a terminal, `-h` a line or two for each option, `--version` the version of
text-embeddings-inference whose behaviour this is.

A wrong option ends the start with status 2, anything else that keeps the server from starting with status 1 and a
message that says what to do about it. SIGINT and SIGTERM let running requests end, and the status is 0; a second one
ends the process at once, with status 130 or 143.
"""


def page() -> str:
    """The whole file."""
    line = command_line()
    shown = [option for option in line.options.values() if not option.hidden]
    parts = [INTRODUCTION]
    for group in dict.fromkeys(option.group for option in shown):
        parts.append(f"## {group}\n")
        parts += [_section(option) for option in shown if option.group == group]
    parts.append("## Variables without an option\n\n| Variable | Meaning |\n|---|---|")
    parts += [f"| `{variable.name}` | {_cell(variable.about)} |" for variable in line.variables.values()]
    return "\n".join(parts) + "\n"


def _section(option: Option) -> str:
    flag = option.usage if option.value.takes != "nothing" else option.flag
    names = ", ".join(f"`{name}`" for name in (flag, option.short) if name)
    facts = "; ".join(_facts(option))
    details = f"\n{option.details}\n" if option.details else ""
    return f"### `{option.flag}`\n\n{names}; {facts}\n\n{option.about}.\n{details}"


def _facts(option: Option) -> Iterator[str]:
    """Variable, values and default."""
    yield "variable " + ", ".join(f"`{name}`" for name in (option.before, option.variable) if name)
    if option.value.possible and option.value.takes != "nothing":
        yield "one of " + ", ".join(f"`{word}`" for word in option.value.possible)
    if option.repeatable:
        yield "may be given several times"
    if option.required:
        yield "required"
    elif option.default_text:
        yield f"default {option.default_text}"


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page())

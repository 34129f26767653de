"""docs/command-line.md says what the code says, and the pages name no option that there is not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scripts.options_page import page
from text_embeddings_inference.settings import PROGRAM, command_line

ROOT = Path(__file__).parents[2]
FLAGS = {option.flag for option in command_line().options.values()} | {"--help", "--version"}
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_page_is_current() -> None:
    assert (ROOT / "docs" / "command-line.md").read_text() == page(), "run `make options-page`"


def test_page_has_every_option_and_variable() -> None:
    headings = re.findall(r"(?m)^### `(--[\w-]+)`$", page())
    line = command_line()
    assert headings == [option.flag for option in line.options.values() if not option.hidden]
    assert re.findall(r"(?m)^\| `([A-Z_]+)` \|", page()) == [variable.name for variable in line.variables.values()]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_commands_of_a_page_use_options_that_there_are(path: Path) -> None:
    text = path.read_text().replace("\\\n", "")
    commands = [line for line in text.splitlines() if PROGRAM in line or "ARGS='--" in line]
    for command in commands:
        arguments = command.partition(PROGRAM)[2] if PROGRAM in command else command
        unknown = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", arguments)) - FLAGS
        assert not unknown, command

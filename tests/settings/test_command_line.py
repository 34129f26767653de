"""The rules of the command line, and the texts of its errors."""

# ruff: noqa: RUF009 - options and variables make dataclass fields

from dataclasses import dataclass
from pathlib import Path

import pytest

from text_embeddings_inference.errors import SettingsError
from text_embeddings_inference.settings.command_line import CommandLine, Shown
from text_embeddings_inference.settings.options import (
    AutoInteger,
    Boolean,
    File,
    Flag,
    Integer,
    Option,
    OptionalText,
    Text,
    Variable,
    options_of,
    variables_of,
    words,
)


@dataclass(frozen=True)
class Small:
    name: str = Option(Text(), "One", "A name").field()
    port: int = Option(Integer(0, 65535), "One", "A port", short="-p").field(1)
    size: int = Option(Integer(), "One", "A size").field(2)
    count: int | None = Option(AutoInteger(1), "Two", "A count").field(None)
    kind: str = Option(words("float16", "float32"), "Two", "A kind").field("float32")
    cut: bool = Option(Boolean(), "Two", "Cut or not").field(True)
    json: bool = Option(Flag(), "Two", "JSON or not").field(False)
    origin: tuple[str, ...] = Option(Text(), "Two", "Origins", repeatable=True).field(())
    left: str | None = Option(Text(), "Two", "Left", conflicts=("right",)).field(None)
    right: str | None = Option(Text(), "Two", "Right").field(None)
    cert: Path | None = Option(File(), "Two", "Certificate", requires=("key",)).field(None)
    key: Path | None = Option(File(), "Two", "Key").field(None)
    old: str | None = Option(Text(), "Two", "Old", hidden=True).field(None)
    home: str = Variable("PLACE", "A place").field("there")


LINE = CommandLine("small", "1.2", "Small.", options_of(Small), variables_of(Small))
USAGE = "\n\nUsage: small [OPTIONS] --name <NAME>"


def parse(argv: str, **environ: str) -> Small:
    return Small(**LINE.parse(["--name=n", *argv.split()], environ).values)  # type: ignore[arg-type]


def problem(argv: str, **environ: str) -> str:
    with pytest.raises(SettingsError) as caught:
        parse(argv, **environ)
    return str(caught.value)


@pytest.mark.parametrize("argv", ["--port 80", "--port=80", "-p 80", "-p80", "-p=80", "--port=+80"])
def test_forms_of_a_value(argv: str) -> None:
    assert parse(argv).port == 80


def test_command_line_beats_environment_beats_default() -> None:
    assert parse("").port == 1
    assert parse("", PORT="2").port == 2
    assert parse("--port 3", PORT="2").port == 3
    assert parse("--port 3", PORT="nonsense").port == 3, "what is overridden is not read"


def test_values_may_hold_equals_signs_and_be_empty_or_a_hyphen() -> None:
    assert parse("--left=a=b").left == "a=b"
    assert parse("--left=").left == ""
    assert parse("", LEFT="").left == ""
    assert parse("--left -").left == "-"
    assert parse("--left=-x").left == "-x"


@pytest.mark.parametrize(
    ("argv", "cut"),
    [("", True), ("--cut", True), ("--cut --json", True), ("--cut false", False), ("--cut=false", False)],
)
def test_boolean_with_an_optional_value(argv: str, cut: bool) -> None:
    assert parse(argv).cut is cut


def test_flag_takes_no_value_but_its_variable_does() -> None:
    assert parse("--json").json
    assert parse("", JSON="true").json
    assert not parse("", JSON="false").json
    assert problem("--json=true") == "unexpected value 'true' for '--json' found; no more were expected" + USAGE
    assert problem("--json true") == "unexpected argument 'true' found" + USAGE
    for text in ("1", "yes", "TRUE"):
        assert problem("", JSON=text) == f"invalid value '{text}' for '--json'\n  [possible values: true, false]"


def test_repeatable_option() -> None:
    assert parse("").origin == ()
    assert parse("--origin a --origin b,c").origin == ("a", "b,c")
    assert parse("", ORIGIN="a,b").origin == ("a,b",)


def test_auto() -> None:
    assert parse("--count auto").count is None
    assert parse("--count 2").count == 2


def test_variable_without_an_option() -> None:
    assert parse("", PLACE="here").home == "here"
    assert parse("", PLACE="").home == "there"


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ("--port 99999", "invalid value '99999' for '--port <PORT>': 99999 is not in 0..=65535"),
        ("--port=-1", "invalid value '-1' for '--port <PORT>': -1 is not in 0..=65535"),
        ("--port=", "invalid value '' for '--port <PORT>': cannot parse integer from empty string"),
        ("--size 1.5", "invalid value '1.5' for '--size <SIZE>': invalid digit found in string"),
        ("--size=-1", "invalid value '-1' for '--size <SIZE>': invalid digit found in string"),
        ("--size ٣", "invalid value '٣' for '--size <SIZE>': invalid digit found in string"),
        ("--size 1_000", "invalid value '1_000' for '--size <SIZE>': invalid digit found in string"),
        (
            "--size 18446744073709551616",
            "invalid value '18446744073709551616' for '--size <SIZE>': number too large to fit in target type",
        ),
        ("--count 0", "invalid value '0' for '--count <COUNT>': 0 is not in 1.."),
        ("--kind x", "invalid value 'x' for '--kind <KIND>'\n  [possible values: float16, float32]"),
        (
            "--kind Float16",
            "invalid value 'Float16' for '--kind <KIND>'\n  [possible values: float16, float32]"
            "\n\n  tip: a similar value exists: 'float16'",
        ),
        (
            "--kind=",
            "a value is required for '--kind <KIND>' but none was supplied\n  [possible values: float16, float32]",
        ),
        ("--cut no", "invalid value 'no' for '--cut [<CUT>]'\n  [possible values: true, false]"),
        ("--port", "a value is required for '--port <PORT>' but none was supplied"),
        ("--left --json", "a value is required for '--left <LEFT>' but none was supplied"),
        ("--cert= --key=k", "invalid value '' for '--cert <CERT>': a path cannot be empty"),
    ],
)
def test_bad_values(argv: str, expected: str) -> None:
    assert problem(argv) == expected


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ("--foo", "unexpected argument '--foo' found"),
        ("--foo=1", "unexpected argument '--foo' found"),
        ("-x", "unexpected argument '-x' found"),
        ("word", "unexpected argument 'word' found"),
        ("-- word", "unexpected argument 'word' found"),
        ("--por 1", "unexpected argument '--por' found\n\n  tip: a similar argument exists: '--port'"),
        ("--port 1 -p 1", "the argument '--port <PORT>' cannot be used multiple times"),
        ("--json --json", "the argument '--json' cannot be used multiple times"),
        ("--right a --left b", "the argument '--right <RIGHT>' cannot be used with '--left <LEFT>'"),
        ("--left a --right b", "the argument '--left <LEFT>' cannot be used with '--right <RIGHT>'"),
        ("--cert c", "the following required arguments were not provided:\n  --key <KEY>"),
    ],
)
def test_misuse(argv: str, expected: str) -> None:
    assert problem(argv) == expected + USAGE


def test_conflicts_count_across_command_line_and_environment() -> None:
    expected = "the argument '--right <RIGHT>' cannot be used with '--left <LEFT>'" + USAGE
    assert problem("--right a", LEFT="b") == expected
    assert (
        problem("", LEFT="", RIGHT="") == "the argument '--left <LEFT>' cannot be used with '--right <RIGHT>'" + USAGE
    )


def test_required() -> None:
    with pytest.raises(SettingsError) as caught:
        LINE.parse([], {})
    assert str(caught.value) == "the following required arguments were not provided:\n  --name <NAME>" + USAGE
    assert LINE.parse([], {"NAME": "n"}).values == {"name": "n"}
    assert LINE.parse(["--name", "n", "--"], {}).values == {"name": "n"}


@pytest.mark.parametrize("flag", ["-V", "--version"])
def test_version(flag: str) -> None:
    with pytest.raises(Shown, match=r"^small 1\.2$"):
        LINE.parse([flag, "--nonsense"], {})


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_hides_and_groups(flag: str) -> None:
    with pytest.raises(Shown) as caught:
        LINE.parse([flag], {})
    text = str(caught.value)
    assert "--old" not in text
    assert text.index("One:") < text.index("-p, --port <PORT>") < text.index("Two:") < text.index("--count <COUNT>")
    assert "[default: 1]" in text
    assert ("[env: PORT]" in text) == ("PLACE" in text) == (flag == "--help")


def test_an_option_may_give_another_its_value() -> None:
    @dataclass(frozen=True)
    class Giving:
        name: str = Option(Text(), "One", "A name").field()
        show: bool | str = Option(OptionalText(), "One", "Show it", gives="name").field(False)

    line = CommandLine("small", "1", "Small.", options_of(Giving), variables_of(Giving))
    assert line.parse(["--show", "n"], {"NAME": "other"}).values == {"show": "n", "name": "n"}
    assert line.parse(["--name", "n", "--show"], {}).values == {"show": True, "name": "n"}
    assert line.parse(["--name", "n"], {"SHOW": "false"}).values == {"show": False, "name": "n"}
    with pytest.raises(SettingsError, match=r"'--show \[<SHOW>\]' cannot be used with '--name <NAME>'"):
        line.parse(["--show", "n", "--name", "m"], {})
    with pytest.raises(SettingsError, match="not provided"):
        line.parse(["--show"], {})

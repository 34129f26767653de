"""What is cut out of log lines, and what is not."""

from urllib.parse import unquote

import pytest

from text_embeddings_inference.telemetry.redaction import NO_SECRETS, Secrets, logins


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("https://me:s3cret@host:4317/a@b", "https://***@host:4317/a@b"),
        ("http://s3cret@host", "http://***@host"),
        ("http://me:s3@cret@host", "http://***@host"),
        ("http://me:s3/cret@host:4317", "http://***@host:4317"),
        ("export to me:s3cret@host:4317 failed", "export to ***@host:4317 failed"),
        ("errors resolving me:s3@cret:s3@127.0.0.1:1: no", "errors resolving ***@127.0.0.1:1: no"),
        ("'http://h/v1?api-key=s3cret&n=1'", "'http://h/v1?api-key=***&n=1'"),
        ("Authorization: Bearer s3cret-key", "Authorization: Bearer ***"),
        ("token hf_abcdefghijklmnopqrst", "token ***"),
    ],
)
def test_what_looks_like_a_secret(text: str, cut: str) -> None:
    assert NO_SECRETS.cut(text) == cut


@pytest.mark.parametrize(
    "text", ["http://host:4317/a@b", "Success", "a.py:12: someone@example.com", "key=value", "//host/path?n=1"]
)
def test_what_does_not(text: str) -> None:
    assert NO_SECRETS.cut(text) == text


@pytest.mark.parametrize("shown", ["p@ss\\wörd\n", "p@ss\\wörd", "p%40ss%5Cw%C3%B6rd", repr("p@ss\\wörd")])
def test_known_secrets_in_every_spelling(shown: str) -> None:
    assert Secrets(["p@ss\\wörd\n"]).cut(f"failed with {shown} of them").replace("'", "").split() == [
        *("failed", "with", "***", "of", "them")
    ]


@pytest.mark.parametrize("password", ["p%40ss:w0rd", "p%2Fss@w0rd", "p@ss:w0rd"])
def test_logins_in_every_spelling(password: str) -> None:
    secrets = Secrets(logins([f"http://user:{password}@127.0.0.1:1", "http://host:4317", ""]))
    for shown in (password, unquote(password)):
        for text in (shown, f"user:{shown}@127.0.0.1:1", f"http://user:{shown}@127.0.0.1:1"):
            cut = secrets.cut(f"errors resolving {text}: refused")
            assert not {part for part in ("ss", "w0rd") if part in cut}


def test_a_short_secret_does_not_cut_words() -> None:
    assert Secrets(["a", ""]).cut("all that") == "all that"


def test_long_texts_take_no_longer_than_their_length() -> None:
    for part in ("//a:x", "a:", "?key", "bearer ", "@"):
        NO_SECRETS.cut(part * 10_000)

"""Chat templates become texts with places; what can't be taken apart so is refused, with the reason."""

from __future__ import annotations

from typing import Any

import pytest

from text_embeddings_inference.errors import CheckpointError
from text_embeddings_inference.tokenization import chat_template, compile_chat_template
from text_embeddings_inference.types import Slot

I, Q, D = Slot.INSTRUCTION, Slot.QUERY, Slot.DOCUMENT  # noqa: E741


def made(source: str, variables: dict[str, Any] | None = None, **options: Any) -> Any:
    return compile_chat_template(source, "a.jinja", variables or {}, **options)


def test_messages() -> None:
    found = made("{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}!")
    assert found.plain == (("[query]", Q, "[document]", D, "!"),)
    assert found.instructed == (("[system]", I, "[query]", Q, "[document]", D, "!"),)
    assert (found.instruction, found.stripped, found.special) == (None, frozenset(), False)


def test_names_and_settings() -> None:
    source = "{{ bos_token }}{{ instruction or 'none' }}|{{ query | trim }}|{{ document }}{% if end %}!{% endif %}"
    found = made(source, {"bos_token": "<s>", "end": True}, named=True)
    assert found.plain == (("<s>none|", Q, "|", D, "!"),)
    assert found.instructed == (("<s>", I, "|", Q, "|", D, "!"),)
    assert found.stripped == {Q}


def test_lists_of_parts_are_found_out() -> None:
    source = "{% for m in messages %}{{ m.content[0].text }};{% endfor %}"
    assert made(source).plain == made(source, structured=True).plain == ((Q, ";", D, ";"),)


def test_no_place_for_instructions() -> None:
    assert made("{{ query }} {{ document }}", named=True).instructed == ()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ messages[0].content }}", "does not show the document"),
        ("{{ document }}", "does not show the query"),
        ("{{ query }}{{ document }}{{ document }}", "more than once"),
        ("{{ query }}{{ document | replace('\\n', ' ') }}", "changes the texts"),
        ("{{ query }}{{ document[:40] }}", "changes the texts"),
        ("{% if query | length > 20 %}long{% endif %}{{ query }}{{ document }}", "changes the texts"),
        ("{{ raise_exception('roles must alternate') }}", "fails: TemplateError: roles must alternate"),
        ("{{ query.__class__.mro() }}{{ document }}", "fails: SecurityError"),
        ("{% include '/etc/passwd' %}", "fails: TypeError"),
        ("{{ query }}{{ document }}{{ 'x' * 200000 }}", "more than 100000 characters"),
    ],
)
def test_what_is_refused(source: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as error:
        made(source, structured=False, named=True)
    assert "a.jinja" in str(error.value)


def test_process_that_can_not_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_template.sys, "executable", "/nowhere/python")
    with pytest.raises(CheckpointError, match="no process could be started"):
        made("{{ query }}{{ document }}", named=True)


def test_without_jinja2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_template.sys, "path", [])
    with pytest.raises(CheckpointError, match="need jinja2, which is not installed") as error:
        made("{{ query }}{{ document }}", named=True)
    assert error.value.hint is not None
    assert "jinja2" in error.value.hint

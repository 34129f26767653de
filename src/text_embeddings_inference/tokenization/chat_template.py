"""A chat template becomes a `PairTemplate`: texts as they are, with places for instruction, query and document.

It is rendered when the model is loaded, with marks in place of the texts, and never again: a request costs no template,
and what is cut of a document can't touch what stands around it. What a template does to the texts beside putting them
somewhere is found by marks of other kinds: white space that it strips is stripped here too, all else is refused.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import CheckpointError
from ..types import PairTemplate, Piece, Slot
from . import render_chat

MARKS = {slot: f"Mark{slot.value.capitalize()}Qx" for slot in Slot}
ROLES = {Slot.INSTRUCTION: "system", Slot.QUERY: "query", Slot.DOCUMENT: "document"}
PADDED, ODD = " \n{} \n", "<&'\"\\> É\n\n{{{}}}" + " long" * 1000
"""Texts with white space around a mark, and with what a template might escape, fold or cut."""

NO_JINJA = "chat templates need jinja2, which is not installed"


def compile_chat_template(
    source: str, where: str, variables: Mapping[str, Any], *, structured: bool | None = None, named: bool = False
) -> PairTemplate:
    """The template of a reranker. where: its file, for errors; the others are those of `checkpoint.ChatTemplate`.

    Raises CheckpointError where it fails, leaves out the query or the document, or changes them.
    """
    if structured is not None:
        return _compile(source, where, variables, _Form(structured, named))
    try:
        return _compile(source, where, variables, _Form(False, named))
    except CheckpointError as flat:
        try:
            return _compile(source, where, variables, _Form(True, named))
        except CheckpointError:
            raise flat from None


class _Form(NamedTuple):
    """How a template gets the texts."""

    structured: bool
    """The content of a message is a list of parts."""
    named: bool
    """By their names too."""


def _compile(source: str, where: str, variables: Mapping[str, Any], form: _Form) -> PairTemplate:
    kinds = ["{}", PADDED, ODD]
    runs = [_variables(variables, kind, slots, form) for slots in (_PLAIN, tuple(Slot)) for kind in kinds]
    texts = _render(source, where, runs)
    plain, with_instruction = texts[: len(kinds)], texts[len(kinds) :]
    stripped = frozenset(
        slot
        for slot in Slot
        if MARKS[slot] in with_instruction[1] and PADDED.format(MARKS[slot]) not in with_instruction[1]
    )
    template = PairTemplate(
        (_split(plain[0]),), (_split(with_instruction[0]),) if MARKS[Slot.INSTRUCTION] in with_instruction[0] else ()
    )
    for slot in (Slot.QUERY, Slot.DOCUMENT):
        if slot not in template.plain[0]:
            raise _unusable(where, f"does not show the {slot.value}: it knows no message with that role, or changes it")
    if template.plain[0].count(Slot.DOCUMENT) > 1:
        raise _unusable(where, "shows the document more than once")
    for pieces, rendered in ((template.plain, plain), (template.instructed, with_instruction)):
        for kind, text in zip(kinds, rendered, strict=True):
            if pieces and _filled(pieces[0], kind, stripped) != text:
                raise _unusable(where, "changes the texts it is given, or depends on what they are")
    return PairTemplate(template.plain, template.instructed, None, stripped)


_PLAIN = (Slot.QUERY, Slot.DOCUMENT)


def _variables(variables: Mapping[str, Any], kind: str, slots: tuple[Slot, ...], form: _Form) -> dict[str, Any]:
    """What the template gets in one run."""
    texts = {slot: kind.format(MARKS[slot]) for slot in slots}
    messages = [
        {"role": ROLES[slot], "content": [{"type": "text", "text": text}] if form.structured else text}
        for slot, text in texts.items()
    ]
    named = {slot.value: texts.get(slot) for slot in Slot} if form.named else {}
    return {"tools": None, "documents": None} | named | dict(variables) | {"messages": messages}


def _render(source: str, where: str, runs: list[dict[str, Any]]) -> list[str]:
    command = [sys.executable or "python3", "-I", str(Path(render_chat.__file__))]
    request = json.dumps({"paths": [path for path in sys.path if path], "source": source, "runs": runs})
    try:
        done = subprocess.run(
            command, input=request, capture_output=True, text=True, encoding="utf-8", timeout=4 * render_chat.SECONDS
        )
    except subprocess.TimeoutExpired:
        raise _unusable(where, "takes too long") from None
    except OSError as error:
        raise CheckpointError(f"no process could be started to render {where}: {error}") from error
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        raise _unusable(where, "takes more time or memory than a template may") from None
    if "missing" in answer:
        raise CheckpointError(f"{NO_JINJA} ({answer['missing']})", hint="install the package jinja2")
    if "error" in answer:
        raise _unusable(where, f"fails: {answer['error']}")
    texts: list[str] = answer["texts"]
    return texts


def _split(text: str) -> Piece:
    """A rendered text, with the places in place of the marks."""
    places = {mark: slot for slot, mark in MARKS.items()}
    parts = re.split(f"({'|'.join(MARKS.values())})", text)
    return tuple(places.get(part, part) for part in parts if part)


def _filled(piece: Piece, kind: str, stripped: frozenset[Slot]) -> str:
    texts = {slot: kind.format(MARKS[slot]) for slot in Slot}
    return "".join(
        (texts[part].strip() if part in stripped else texts[part]) if isinstance(part, Slot) else part for part in piece
    )


def _unusable(where: str, problem: str) -> CheckpointError:
    return CheckpointError(
        f"the chat template ({where}) {problem}",
        hint="give `--rerank-template`: a Jinja file that puts `{{ query }}` and `{{ document }}` into a text, or the "
        "name of a family",
    )

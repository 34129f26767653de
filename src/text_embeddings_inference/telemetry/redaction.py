"""Cuts passwords, keys and tokens out of what is logged or printed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from urllib.parse import quote, unquote

SHORTEST = 4
"""Characters of the shortest secret that is looked for wherever it stands: a shorter one is part of many words."""

USER_INFO = r"(?<=//)(?:[^\s/]{1,512}|[^\s/@:]{0,64}:(?!\d+(?:[/?#'\"\s]|$))[^\s@]{0,512})(?=@)"
"""The name and password of a URL; also where a `/` in the password is not quoted, but no port and path."""
LOGIN = r"(?<![^\s'\"(=])[^\s/@:]{1,64}:[^\s/]{1,512}(?=@)"
"""The same where the scheme has been left out; up to the last `@`, as libraries unquote those of passwords."""
PARAMETER = r"(?<=[?&])(?P<before>[\w.-]*(?:key|token|secret|passw|pwd|sig|auth|credential)[\w.-]*=)[^&#\s'\"]+"
"""A parameter of a URL whose name says what it is."""
BEARER = r"(?i:(?<=\bbearer )[\w.~+/=-]{6,})"
HUB_TOKEN = r"\bhf_[A-Za-z0-9]{16,}"

KEPT = 1024
LONGEST_KEPT = 200
"""How many texts are kept with what they become, and of how many characters: the same ones are logged over and over."""


def logins(urls: Iterable[str]) -> Iterator[str]:
    """What URLs hold before their host: name and password, and the password alone."""
    for url in urls:
        for login in re.findall(USER_INFO, url):
            yield login
            yield login.partition(":")[2]


class Secrets:
    """What is secret: the known keys, passwords and tokens, and what looks like a secret wherever it comes from."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        found = {form for text in known for form in _forms(text) if len(form) >= SHORTEST}
        literal = [re.escape(form) for form in sorted(found, key=len, reverse=True)]
        self._pattern = re.compile("|".join([*literal, USER_INFO, LOGIN, PARAMETER, BEARER, HUB_TOKEN]))
        self._cut_short = lru_cache(KEPT)(self._search)

    def cut(self, text: str) -> str:
        """The text with `***` in place of every secret."""
        return self._cut_short(text) if len(text) <= LONGEST_KEPT else self._search(text)

    def _search(self, text: str) -> str:
        return self._pattern.sub(lambda found: (found["before"] or "") + "***", text)


def _forms(text: str) -> set[str]:
    """How a secret may be written: as it is, quoted for a URL or for Python."""
    stripped = text.strip()
    return {stripped, unquote(stripped), quote(stripped, safe=""), repr(stripped)[1:-1]}


NO_SECRETS = Secrets()

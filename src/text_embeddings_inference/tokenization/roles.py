"""The two roles of texts in late interaction: what is done to their tokens before they are run.

As ColBERT (Khattab & Zaharia, arXiv:2004.12832) was trained. A prefix is put in as a token id, as Stanford's code and
PyLate do, even where the tokenizer would split its text; sentence-transformers' prefixes are prompts, and stay texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import tokenizers
from numpy.typing import NDArray

from ..errors import CheckpointError
from ..types import Encoding, Int32Array, LateInteraction

ROLES = ("query", "document")
"""Their names; a request gives one as `prompt_name`."""

PROMPTS = {"query": ("query",), "document": ("document", "passage", "corpus")}
"""The prompt that goes with a role has the first of these names that the model has one of, as in
sentence-transformers."""


@dataclass(frozen=True, slots=True, eq=False)
class Role:
    """What is done to the tokens of a text in one role."""

    prefix: int | None
    """Id put after the first token; None: none is."""

    length: int
    """Most tokens, the prefix included."""

    expansion: int | None = None
    """Id that fills texts up; None: they are not filled up."""

    filled: int | None = None
    """Tokens that they are filled up to; None: `length`."""

    attend: bool = False
    """Whether other tokens see what fills a text up."""

    skipped: Int32Array | None = None
    """Ids that get no vector; None: all get one."""

    only: Int32Array | None = None
    """Ids of which alone tokens get one; None: of all."""

    @property
    def room(self) -> int:
        """Most tokens of a text before the prefix is put in."""
        return self.length - (self.prefix is not None)

    def apply(self, encoding: Encoding) -> Encoding:
        """What is run for a text of at most `room` tokens."""
        ids, type_ids = encoding.input_ids, encoding.type_ids
        if self.prefix is not None:
            ids = np.insert(ids, 1, self.prefix)
            type_ids = None if type_ids is None else np.insert(type_ids, 1, 0)
        attended = None
        filled = self.length if self.filled is None else min(self.filled, self.length)
        if self.expansion is not None and len(ids) < filled:
            missing = filled - len(ids)
            attended = None if self.attend else len(ids)
            ids = np.pad(ids, (0, missing), constant_values=self.expansion)
            type_ids = None if type_ids is None else np.pad(type_ids, (0, missing))
        return Encoding(ids, type_ids, encoding.characters, attended, self._kept(ids))

    def _kept(self, ids: Int32Array) -> NDArray[np.intp] | None:
        """Places of the tokens that get a vector; None: all."""
        if self.skipped is None and self.only is None:
            return None
        kept = np.ones(len(ids), bool)
        if self.skipped is not None:
            kept &= ~np.isin(ids, self.skipped)
        if self.only is not None:
            kept &= np.isin(ids, self.only)
        return np.flatnonzero(kept)


def role_prompt(prompts: Mapping[str, str] | None, role: str) -> str | None:
    """The text put before texts in the role; None: none is."""
    return next((prompts[name] for name in PROMPTS[role] if prompts and name in prompts), None)


def make_roles(tokenizer: tokenizers.Tokenizer, late: LateInteraction) -> dict[str, Role]:
    """The roles by name. Raises CheckpointError for a token there is not, and where a length has no room for text."""
    skipped = np.array(sorted(_skipped_ids(tokenizer, late)), np.int32)
    roles = {
        "query": Role(
            _id(tokenizer, late.query_prefix),
            late.query_length,
            _id(tokenizer, late.expansion_token),
            late.expansion_length,
            late.attend_to_expansion,
            skipped if "query" in late.skipping else None,
        ),
        "document": Role(
            _id(tokenizer, late.document_prefix),
            late.document_length,
            skipped=skipped if "document" in late.skipping else None,
            only=np.array(late.only, np.int32) if late.only else None,
        ),
    }
    special = tokenizer.num_special_tokens_to_add(False)
    for name, role in roles.items():
        if role.room <= special:
            problem = f"`{name}_length` of {role.length} tokens has no room for text beside prefix and special tokens"
            raise CheckpointError(problem)
    return roles


def _id(tokenizer: tokenizers.Tokenizer, token: str) -> int | None:
    if not token:
        return None
    found: int | None = tokenizer.token_to_id(token)
    if found is None:
        raise CheckpointError(
            f"tokenizer.json has no token {token!r}, which texts for late interaction need",
            hint="the tokenizer is of another model, or was saved without its added tokens: download it again, or save "
            "the model anew with PyLate or sentence-transformers",
        )
    return found


def _skipped_ids(tokenizer: tokenizers.Tokenizer, late: LateInteraction) -> set[int]:
    """Words that are no token are left out, as in sentence-transformers, where PyLate would skip all unknown tokens."""
    ids = (tokenizer.token_to_id(word) for word in late.skipped)
    return {id_ for id_ in ids if id_ is not None}

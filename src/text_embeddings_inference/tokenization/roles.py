"""The two roles of texts in late interaction: what is done to their tokens before they are run.

As ColBERT (Khattab & Zaharia, arXiv:2004.12832) was trained, in the conventions of PyLate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tokenizers

from ..errors import CheckpointError
from ..types import Encoding, Int32Array, LateInteraction

ROLES = ("query", "document")
"""Their names; a request gives one as `prompt_name`."""


@dataclass(frozen=True, slots=True, eq=False)
class Role:
    """What is done to the tokens of a text in one role."""

    prefix: int | None
    """Id put after the first token; None: none is."""

    length: int
    """Most tokens, the prefix included."""

    expansion: int | None = None
    """Id that fills texts up to the length; None: they are not filled up."""

    attend: bool = False
    """Whether other tokens see what fills a text up."""

    skipped: Int32Array | None = None
    """Ids that get no vector."""

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
        if self.expansion is not None and len(ids) < self.length:
            missing = self.length - len(ids)
            attended = None if self.attend else len(ids)
            ids = np.pad(ids, (0, missing), constant_values=self.expansion)
            type_ids = None if type_ids is None else np.pad(type_ids, (0, missing))
        kept = None if self.skipped is None else np.flatnonzero(~np.isin(ids, self.skipped))
        return Encoding(ids, type_ids, encoding.characters, attended, kept)


def make_roles(tokenizer: tokenizers.Tokenizer, late: LateInteraction) -> dict[str, Role]:
    """The roles by name. Raises CheckpointError for a token there is not, and where a length has no room for text."""
    skipped = np.array(sorted(_skipped_ids(tokenizer, late)), np.int32)
    roles = {
        "query": Role(
            _id(tokenizer, late.query_prefix),
            late.query_length,
            _id(tokenizer, late.expansion_token),
            late.attend_to_expansion,
        ),
        "document": Role(_id(tokenizer, late.document_prefix), late.document_length, skipped=skipped),
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
            hint="save the model again with PyLate, which adds its prefixes to the tokenizer",
        )
    return found


def _skipped_ids(tokenizer: tokenizers.Tokenizer, late: LateInteraction) -> set[int]:
    """Words that are no token are left out here, where PyLate would skip all unknown tokens in their place."""
    ids = (tokenizer.token_to_id(word) for word in late.skipped)
    return {id_ for id_ in ids if id_ is not None}

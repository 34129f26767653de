"""A tokenizer.json, read and made to do what else the checkpoint's files say of texts."""

from __future__ import annotations

import logging
from pathlib import Path

import tokenizers
from tokenizers.processors import Sequence as ProcessorSequence
from tokenizers.processors import TemplateProcessing

from ..errors import CheckpointError
from ..types import TextRules

logger = logging.getLogger(__name__)


def read_tokenizer(file: Path, rules: TextRules) -> tokenizers.Tokenizer:
    """The tokenizer in `file`. What it does otherwise than the rules say is logged.

    Raises `CheckpointError` if it is missing or damaged, or lacks the token that ends texts.
    """
    if not file.is_file():
        raise CheckpointError(
            f"{file}: tokenizer.json not found. text-embeddings-inference only supports fast tokenizers",
            hint="save the tokenizer with a recent version of Transformers, which writes this file",
        )
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing narrower
        raise CheckpointError(f"{file}: not a tokenizer: {error}") from error
    if not rules.special:
        tokenizer.post_processor = ProcessorSequence([])
    if rules.ending:
        _append(tokenizer, file, rules.ending)
    if rules.first or rules.last:
        _compare(tokenizer, rules)
    return tokenizer


def first_token(file: Path, word: str, *, whole: bool) -> int:
    """The id of the first token of a word; whole: of the token that is the word, if there is one.

    Raises CheckpointError where the tokenizer has none for it.
    """
    tokenizer = read_tokenizer(file, TextRules())
    if whole and (id_ := tokenizer.token_to_id(word)) is not None:
        return int(id_)
    ids = tokenizer.encode(word, add_special_tokens=False).ids
    if not ids:
        raise CheckpointError(f"{file}: has no token for the answer {word!r}")
    return int(ids[0])


def _append(tokenizer: tokenizers.Tokenizer, file: Path, end: str) -> None:
    end_id = tokenizer.token_to_id(end)
    if end_id is None:
        raise CheckpointError(f"{file}: has no token {end}, which this model needs at the end of a text")
    template = TemplateProcessing(
        single=f"$A:0 {end}:0", pair=f"$A:0 {end}:0 $B:1 {end}:1", special_tokens=[(end, end_id)]
    )
    before = tokenizer.post_processor
    tokenizer.post_processor = template if before is None else ProcessorSequence([before, template])


def _compare(tokenizer: tokenizers.Tokenizer, rules: TextRules) -> None:
    """Warns of tokens that tokenizer.json does not add: like Transformers 5, we run what it gives."""
    ids = tokenizer.encode("a").ids
    first, last = (ids[0], ids[-1]) if ids else (None, None)
    for key, where, token, found in (
        ("add_bos_token", "begin", rules.first, first),
        ("add_eos_token", "end", rules.last, last),
    ):
        if token and tokenizer.token_to_id(token) != found:
            logger.warning(
                "`%s` of tokenizer_config.json is true, but with tokenizer.json texts do not %s with `%s`, and are run "
                "without it. If the model was trained with the token, add it to `post_processor` there",
                *(key, where, token),
            )

"""Pairs of a query and a document, put into the template of a reranker and made token ids.

The pieces of a template are tokenized by themselves. What is too long is cut in the document, then in the query, and
never in the template.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tokenizers
from numpy.typing import NDArray

from ..errors import InputError, RequestError, TokenizerError
from ..types import EncodeOptions, Encoding, Int32Array, Pair, PairTemplate, Piece, Slot
from .truncation import HEAD_CHARACTERS_PER_TOKEN, cut_at_space, is_unicode

MOST_OF_QUERY = 0.75
"""Of the longest input, for the query of a pair that is cut: a longer one is cut too."""

MARGIN = 8
"""Tokens that the beginning of a text must have beyond what is kept of it, so that its own end is cut away."""

NO_INSTRUCTION = "`instruction` is not available: the model has no template that takes one"


class PairEncoder:
    """The template of one model, with its tokenizer."""

    def __init__(
        self,
        tokenizer: tokenizers.Tokenizer,
        template: PairTemplate,
        limit: int,
        outside: Callable[[Int32Array], InputError | None],
        *,
        splits_at_spaces: bool,
    ) -> None:
        """limit: tokens of a pair in its template; outside: the error for ids that the model does not have;
        splits_at_spaces: of the tokenizer, see `truncation`.
        """
        self._tokenizer = tokenizer
        self._template = template
        self._limit = limit
        self._outside = outside
        self._splits_at_spaces = splits_at_spaces
        self._fixed: dict[str, list[int]] = {}
        for piece in (*template.plain, *template.instructed):
            if not any(isinstance(part, Slot) for part in piece):
                text = "".join(piece)
                self._fixed[text] = tokenizer.encode(text, add_special_tokens=template.special).ids

    def encode(
        self, pairs: Sequence[Pair], instruction: str | None, options: EncodeOptions
    ) -> list[Encoding | RequestError]:
        """What is run for each pair, or the error of one that can't be used. instruction: "" is none.

        Raises InputError for an instruction that the template does not take.
        """
        template = self._template
        if instruction and not template.instructed:
            raise InputError(NO_INSTRUCTION)
        instruction = instruction or template.instruction
        pieces = template.instructed if instruction else template.plain
        usable = [is_unicode(query) and is_unicode(document) for query, document in pairs]
        queries = {query: self._query(query, options) for query in {pair[0] for pair in pairs}}
        whole = [self._texts(instruction or "", queries[query], document) for query, document in pairs]
        firsts = [self._beginning(texts, options) for texts in whole]
        fine = [texts for texts, is_usable in zip(firsts, usable, strict=True) if is_usable]
        ids = self._ids([text for texts in fine for text in _filled(pieces, texts)])
        results: list[Encoding | RequestError] = []
        for pair, texts, first, is_usable in zip(pairs, whole, firsts, usable, strict=True):
            try:
                if not is_usable:
                    raise InputError("`inputs` holds a lone surrogate, which no text has")
                kept = self._finish(pieces, texts, first, ids, options)
                results.append(self._outside(kept) or Encoding(kept, None, len(pair[0]) + len(pair[1])))
            except RequestError as error:
                results.append(error)
        return results

    def _texts(self, instruction: str, query: str, document: str) -> dict[Slot, str]:
        texts = {Slot.INSTRUCTION: instruction, Slot.QUERY: query, Slot.DOCUMENT: document}
        return {slot: text.strip() if slot in self._template.stripped else text for slot, text in texts.items()}

    def _query(self, query: str, options: EncodeOptions) -> str:
        """A query without what is cut away in any case: it is tokenized with each document."""
        if not options.truncate or len(query) <= 2 * self._limit or not is_unicode(query):
            return query
        offsets = self._one(query).offsets
        return query[: offsets[self._limit + MARGIN][0]] if len(offsets) > self._limit + MARGIN else query

    def _beginning(self, texts: dict[Slot, str], options: EncodeOptions) -> dict[Slot, str]:
        """With so much of a long document as is likely to be kept; the same object where that is all of it."""
        document = texts[Slot.DOCUMENT]
        if not (options.truncate and options.direction == "right" and self._splits_at_spaces):
            return texts
        head = cut_at_space(document, (self._limit + MARGIN) * HEAD_CHARACTERS_PER_TOKEN, "right")
        return texts if head is document else texts | {Slot.DOCUMENT: head}

    def _ids(self, texts: list[str]) -> dict[str, list[int]]:
        """Token ids by text. Raises TokenizerError."""
        missing = [text for text in dict.fromkeys(texts) if text not in self._fixed]
        try:
            encodings = self._tokenizer.encode_batch_fast(missing, add_special_tokens=self._template.special)
        except Exception as error:  # the library raises nothing narrower
            raise TokenizerError(str(error)) from error
        return self._fixed | {text: found.ids for text, found in zip(missing, encodings, strict=True)}

    def _finish(
        self,
        pieces: tuple[Piece, ...],
        whole: dict[Slot, str],
        first: dict[Slot, str],
        ids: dict[str, list[int]],
        options: EncodeOptions,
    ) -> Int32Array:
        """The ids of a pair, cut where they are too many."""
        found = [ids[text] for text in _filled(pieces, first)]
        if first is not whole and sum(map(len, found)) <= self._limit:
            ids, first = self._ids(_filled(pieces, whole)), whole
            found = [ids[text] for text in _filled(pieces, first)]
        total = sum(map(len, found))
        if total <= self._limit:
            return np.array([id_ for part in found for id_ in part], np.int32)
        if not options.truncate:
            raise InputError(f"`inputs` must have less than {self._limit} tokens. Given: {total}")
        return self._cut(pieces, whole, first, options)

    def _cut(
        self, pieces: tuple[Piece, ...], whole: dict[Slot, str], texts: dict[Slot, str], options: EncodeOptions
    ) -> Int32Array:
        """The ids that are kept of a pair that is too long. texts: with the beginnings of `whole`."""
        found = [self._one(_text(piece, texts)) for piece in pieces]
        ids = np.array([id_ for encoding in found for id_ in encoding.ids], np.int32)
        of = np.concatenate([_owners(piece, texts, encoding) for piece, encoding in zip(pieces, found, strict=True)])
        kept = np.ones(len(ids), bool)
        query, document = (np.flatnonzero(of == _NUMBER[slot]) for slot in (Slot.QUERY, Slot.DOCUMENT))
        kept[query[int(self._limit * MOST_OF_QUERY) :]] = False
        for places in (document[::-1] if options.direction == "right" else document, query[::-1]):
            over = int(kept.sum()) - self._limit
            kept[places[kept[places]][: max(over, 0)]] = False
        if texts is not whole and (len(document) < MARGIN or kept[document[-MARGIN:]].any()):
            return self._cut(pieces, whole, whole, options)
        if (left := int(kept.sum())) > self._limit:
            raise InputError(f"`inputs` have no room: the template and the instruction take {left} tokens")
        return ids[kept]

    def _one(self, text: str) -> tokenizers.Encoding:
        """The tokens of a text with their offsets. Raises TokenizerError."""
        try:
            # Unlike `encode`, this gives up the interpreter lock.
            return self._tokenizer.encode_batch([text], add_special_tokens=self._template.special)[0]
        except Exception as error:  # the library raises nothing narrower
            raise TokenizerError(str(error)) from error


_NUMBER = {Slot.INSTRUCTION: 1, Slot.QUERY: 2, Slot.DOCUMENT: 3}


def _text(piece: Piece, texts: dict[Slot, str]) -> str:
    return "".join(texts[part] if isinstance(part, Slot) else part for part in piece)


def _filled(pieces: tuple[Piece, ...], texts: dict[Slot, str]) -> list[str]:
    return [_text(piece, texts) for piece in pieces]


def _owners(piece: Piece, texts: dict[Slot, str], encoding: tokenizers.Encoding) -> NDArray[np.int8]:
    """For each token the number of the place whose text it ends in; 0 for the template's, for one that goes beyond the
    text's end, and for what the tokenizer adds.
    """
    ends = np.cumsum([len(texts[part]) if isinstance(part, Slot) else len(part) for part in piece])
    numbers = np.array([_NUMBER[part] if isinstance(part, Slot) else 0 for part in piece], np.int8)
    stops = np.array([stop for _, stop in encoding.offsets], np.int64)
    owners = numbers[np.minimum(np.searchsorted(ends, stops), len(ends) - 1)]
    return np.where(np.array(encoding.special_tokens_mask, bool), np.int8(0), owners)

"""What is cut from an input that is too long: before it is tokenized, to save work, and afterwards.

"Room" is the number of tokens of one input less its special tokens.
"""

from __future__ import annotations

import json
import unicodedata
from typing import Any, Literal, TypeAlias

import numpy as np
import tokenizers
from numpy.typing import NDArray

from ..types import Input, Pair

HEAD_CHARACTERS_PER_TOKEN = 6
"""So many characters of a long text are tokenized at first for each token that may be kept; prose has four to five."""

LOCAL_NORMALIZERS = {"BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Precompiled", "StripAccents"}
"""In these a space never joins the character before it."""

COMPATIBLE = {"NFKC", "NFKD", "Precompiled"}
"""These write out what stands for several characters."""
LONGEST_FORM = 18
"""Characters that one is written out as at most: U+FDFA."""
LONGEST_LETTER = 4
"""The same of letters: with two marks and a form for the end of words."""
CHARACTERS_AT_ONCE = 1 << 12

Direction: TypeAlias = Literal["left", "right"]


def kept(encoding: tokenizers.Encoding, max_length: int, direction: Direction) -> NDArray[np.bool_] | None:
    """Which tokens of an encoding longest-first truncation keeps; None if there is no room for the special tokens."""
    sequence = np.array(encoding.sequence_ids, np.float32)  # special tokens have None, which becomes NaN
    mask = np.isnan(sequence)
    room = max_length - int(mask.sum())
    if room < 0:
        return None
    places = [np.flatnonzero(sequence == number) for number in range(encoding.n_sequences)]
    lengths = [room] if len(places) == 1 else longest_first(len(places[0]), len(places[1]), room)
    for place, length in zip(places, lengths, strict=True):
        mask[place[len(place) - length :] if direction == "left" else place[:length]] = True
    return mask


def longest_first(first: int, second: int, room: int) -> list[int]:
    """How many tokens of either part of a pair are kept, as in the tokenizers library (`truncate_encodings`)."""
    shorter, longer = sorted((first, second))
    longer = max(shorter, room - shorter)
    if shorter + longer > room:
        shorter, longer = room // 2, room - room // 2
    return [longer, shorter] if first > second else [shorter, longer]


def cut_bytes(item: Input, limit: int) -> Input:
    """What TEI hands to the tokenizer of an input of more than `limit` characters: the first `limit` bytes."""
    if isinstance(item, str):
        return _cut_text(item, limit)
    if isinstance(item, tuple):
        return _cut_text(item[0], limit // 2), _cut_text(item[1], limit // 2)
    return item[:limit]


def _cut_text(text: str, limit: int) -> str:
    """The first `limit` bytes of a text if a character ends there, else all of it."""
    data = text.encode(errors="surrogatepass")
    if len(data) <= limit or data[limit] & 0xC0 == 0x80:
        return text
    return data[:limit].decode(errors="surrogatepass")


def writes_out(tokenizer: tokenizers.Tokenizer) -> bool:
    """Whether its normalizer makes several characters of one, such as a phrase of the ligature U+FDFA."""
    return any(step["type"] in COMPATIBLE for step in _steps(tokenizer.normalizer, "normalizers"))


def fitting(text: str, limit: int) -> int:
    """How many characters of a text may be tokenized: all, unless they are far more than `limit` once written out."""
    most = limit * LONGEST_LETTER
    if text.isascii() or len(text) * LONGEST_FORM <= most:
        return len(text)
    written = 0
    for start in range(0, len(text), CHARACTERS_AT_ONCE):
        written += len(unicodedata.normalize("NFKD", text[start : start + CHARACTERS_AT_ONCE]))
        if written > most:
            return max(start, most // LONGEST_FORM)
    return len(text)


def head(text: str | Pair, max_length: int, direction: Direction) -> str | Pair:
    """So much of a long text as is likely to fill `max_length` tokens; the same object if nothing is cut.

    It is the beginning, or the end if truncation is on the left. Only right if `splits_at_spaces`, and only to be used
    if the encoding `fills` what is kept.
    """
    limit = max_length * HEAD_CHARACTERS_PER_TOKEN
    if isinstance(text, str):
        return cut_at_space(text, limit, direction)
    first, second = (cut_at_space(part, limit, direction) for part in text)
    return text if first is text[0] and second is text[1] else (first, second)


def fills(encoding: tokenizers.Encoding, head: str | Pair, text: str | Pair, max_length: int) -> bool:
    """Whether truncation keeps of the encoding of a head what it would keep of the whole text.

    A part that was cut must fill the room alone, and be longer than one that was not: then it is cut in any case, and
    how much is left of it does not depend on its length. But if both were cut, the longer one gets the odd token.
    """
    if encoding.n_sequences == 1:
        return len(encoding) >= max_length
    sequence = encoding.sequence_ids
    counts, room = [sequence.count(0), sequence.count(1)], max_length - sequence.count(None)
    cut = [part is not whole for part, whole in zip(head, text, strict=True)]
    if any(is_cut and count < room for is_cut, count in zip(cut, counts, strict=True)):
        return False
    if all(cut):
        return room % 2 == 0
    return counts[0] > counts[1] if cut[0] else counts[1] > counts[0]


def splits_at_spaces(tokenizer: tokenizers.Tokenizer, direction: Direction) -> bool:
    """Whether the tokens of a text's beginning, cut before a space, are always the first tokens of the whole text.

    With direction `left`: those of its end, from a space on, the last tokens. That is so if no token crosses the cut
    (the pre-tokenizer starts a new piece at a run of spaces, no added token holds white space, and none before the cut
    takes the spaces after it) and the normalizer makes nothing on one side depend on the other. What is not known to
    be so counts as not so.
    """
    for token in tokenizer.get_added_tokens_decoder().values():
        content = token.content if tokenizer.normalizer is None else tokenizer.normalizer.normalize_str(token.content)
        if any(map(str.isspace, token.content + content)) or (direction == "left" and token.rstrip):
            return False
    return all(map(_is_local, _steps(tokenizer.normalizer, "normalizers"))) and any(
        step["type"] in ("BertPreTokenizer", "WhitespaceSplit") or (step["type"] == "ByteLevel" and step["use_regex"])
        for step in _steps(tokenizer.pre_tokenizer, "pretokenizers")[:1]
    )


def _steps(component: Any, key: str) -> list[dict[str, Any]]:
    """The steps of a normalizer or pre-tokenizer, each as it is written in tokenizer.json."""
    if component is None:
        return []
    state: dict[str, Any] = json.loads(component.__getstate__())
    steps: list[dict[str, Any]] = state[key] if state["type"] == "Sequence" else [state]
    return steps


def _is_local(normalizer: dict[str, Any]) -> bool:
    if normalizer["type"] == "Replace":
        pattern = normalizer["pattern"]
        return pattern == {"Regex": " {2,}"} or ("String" in pattern and " " not in pattern["String"])
    return normalizer["type"] in LOCAL_NORMALIZERS


def cut_at_space(text: str, limit: int, direction: Direction) -> str:
    """`text` up to the last space in its first `limit` characters that follows a printable ASCII character.

    With direction `left` from the first such space in its last `limit` characters on. The same object if there is none.
    """
    if len(text) <= limit:
        return text
    if direction == "left":
        place = text.find(" ", len(text) - limit)
        while place >= 0 and not "!" <= text[place - 1] <= "~":
            place = text.find(" ", place + 1)
        return text[place:] if place > 0 else text
    place = text.rfind(" ", 0, limit)
    while place > 0 and not "!" <= text[place - 1] <= "~":
        place = text.rfind(" ", 0, place)
    return text[:place] if place > 0 else text


def is_unicode(text: str) -> bool:
    """Whether a text has no lone surrogates, which only Python's texts can have."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True

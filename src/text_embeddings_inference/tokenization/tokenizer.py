"""Texts, pairs and token ids become token ids of the right length; token ids become text again.

One `Tokenizer` belongs to one served model and may be used by several threads at once: nothing changes after `load`.
Truncation is done here on the finished encodings, because the library keeps it as state of the tokenizer.

What it costs, with the tokenizer of all-MiniLM-L6-v2 on one core of an AMD EPYC: 25 microseconds for one short text
(130 when the caches are cold), 15 for each of a batch, and 0.35 microseconds for each further ASCII character (1.5 for
a Chinese one). The library gives up the interpreter lock in the meantime. It splits a batch over all cores unless
TOKENIZERS_PARALLELISM is `false` in the environment before the first call; that makes 32 texts of 1,000 characters
1.6 times as fast, and where the cores are busy it now and then makes 32 short ones wait 12 ms for another thread.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast, get_args

import numpy as np
import tokenizers

from ..errors import CheckpointError, EmptyInputError, InputError, RequestError, TokenizerError
from ..types import (
    EncodeOptions,
    Encoding,
    Input,
    Int32Array,
    LateInteraction,
    Pair,
    PairTemplate,
    TextRules,
    Token,
)
from . import truncation
from .file import read_tokenizer
from .pairs import NO_INSTRUCTION, PairEncoder
from .roles import Role, make_roles, role_prompt
from .shown import shown_tokens
from .truncation import Direction

CHARACTERS_PER_TOKEN = 250
"""An input may have this many characters for each token of the longest input."""

INLINE_CHARACTERS = 1000
"""Up to about this many ASCII characters tokenizing takes well under a millisecond; see `Tokenizer.is_long`."""

MOST_IDS = 1 << 14
"""Token ids of a text to decode, unless an input may have more: the library holds the interpreter lock for about a
microsecond for each."""

PLAIN = EncodeOptions()


def resolve_default_prompt(prompts: Mapping[str, str] | None, name: str) -> str:
    """The text of the prompt that `--default-prompt-name` names; `CheckpointError` if there is none."""
    if prompts is None or name not in prompts:
        raise CheckpointError(_unknown_prompt(prompts, name))
    return prompts[name]


def _unknown_prompt(prompts: Mapping[str, str] | None, name: str) -> str:
    if prompts is None:
        reason = "no prompts were found in the Sentence Transformers configuration"
    else:
        names = json.dumps(list(prompts), ensure_ascii=False)
        reason = f"it was not found in the Sentence Transformers prompts. Available prompts: {names}"
    return f"`default-prompt-name` is set to `{name}` but {reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TextOptions:
    """How the texts of one model become tokens, beside what its tokenizer.json says."""

    max_input_length: int
    """Most tokens of one input, special tokens included."""

    vocabulary: int
    """Rows of the embedding table."""

    prompts: Mapping[str, str] | None = None
    """Texts put before inputs, by name; None where the model has none."""

    default_prompt: str | None = None
    """Text put before each input that names no prompt."""

    rules: TextRules = field(default_factory=TextRules)
    """What the checkpoint's other files say."""

    late: LateInteraction | None = None
    """How texts are taken in their roles; None where they have none."""

    default_role: str | None = None
    """The role of texts that name no prompt."""

    template: PairTemplate | None = None
    """What pairs are put into; None: the tokenizer's own special tokens are put around them."""

    prompted_pairs: bool = False
    """Whether prompts are put before the first text of a pair."""

    sides: frozenset[str] = frozenset()
    """Names that a request may give for a side of the model: they need not be those of prompts."""


class Tokenizer:
    """The tokenizer of one model, with its prompts and its limits."""

    def __init__(self, tokenizer: tokenizers.Tokenizer, options: TextOptions) -> None:
        """Raises `CheckpointError` if no text fits the length."""
        tokenizer.no_padding()
        tokenizer.no_truncation()
        special = tokenizer.num_special_tokens_to_add(False)
        if options.max_input_length <= special:
            length = options.max_input_length
            raise CheckpointError(
                f"the longest input of {length} tokens has no room for text beside {special} special tokens"
            )
        self.max_input_length = options.max_input_length
        self.max_characters = options.max_input_length * CHARACTERS_PER_TOKEN
        self.max_ids = max(MOST_IDS, options.max_input_length)
        self.vocabulary = options.vocabulary
        self._tokenizer = tokenizer
        self._options = options
        self._roles = {} if options.late is None else make_roles(tokenizer, options.late)
        decoder = tokenizer.get_added_tokens_decoder()
        self.special_ids = frozenset(id_ for id_, token in decoder.items() if token.special)
        largest_id = max([tokenizer.get_vocab_size(with_added_tokens=False) - 1, *decoder])
        self._splits_at_spaces = {side: truncation.splits_at_spaces(tokenizer, side) for side in get_args(Direction)}
        self._writes_out = truncation.writes_out(tokenizer)
        self._may_exceed_vocabulary = largest_id >= options.vocabulary
        self._pairs: PairEncoder | None = None
        if options.template is not None:
            splits, limit = self._splits_at_spaces["right"], options.max_input_length
            self._pairs = PairEncoder(tokenizer, options.template, limit, self._outside, splits_at_spaces=splits)

    @classmethod
    def load(cls, file: Path, options: TextOptions) -> Tokenizer:
        """Read a `tokenizer.json`; `CheckpointError` if it is missing or damaged, or if no text fits the length."""
        return cls(read_tokenizer(file, options.rules), options)

    def encode(self, inputs: Sequence[Input], options: EncodeOptions) -> list[Encoding | RequestError]:
        """Tokenize a client's batch in one call of the library; an input that can't be used gives its error in place.

        Texts get the prompt and special tokens. Token ids are run as they are, but with a prompt they are decoded. In
        late interaction both get what belongs to their role.
        """
        if options.instruction is not None and self._pairs is None:
            return [InputError(NO_INSTRUCTION) for _ in inputs]
        role = self._role(options.prompt_name)
        limit = self.max_input_length if role is None else role.room
        results: dict[int, Encoding | RequestError] = {}
        whole: dict[int, str | Pair] = {}
        for place, item in enumerate(inputs):
            try:
                prepared = self._prepare(item, options, limit)
            except RequestError as error:
                results[place] = error
                continue
            if isinstance(prepared, Encoding):
                results[place] = prepared
            else:
                whole[place] = prepared
        if self._pairs is not None:
            results |= self._templated(whole, options)
        for place, encoding in self._run_heads(whole, options, limit).items():
            results[place] = self._finish(encoding, inputs[place], options, limit)
        encodings = [results[place] for place in range(len(inputs))]
        return encodings if role is None else [role.apply(e) if isinstance(e, Encoding) else e for e in encodings]

    def tokenize(
        self, texts: Sequence[str], *, add_special_tokens: bool = True, prompt_name: str | None = None
    ) -> list[list[Token] | RequestError]:
        """The tokens of each text as `/tokenize` shows them: not truncated, and however many there are."""
        results: list[list[Token] | RequestError] = []
        for text in texts:
            try:
                options = EncodeOptions(truncate=False, prompt_name=prompt_name)
                prepared = self._prepare(text, options, self.max_input_length)
                assert isinstance(prepared, str)
                results.append(shown_tokens(self._run_one(prepared, add_special_tokens), prepared))
            except RequestError as error:
                results.append(error)
        return results

    def decode(self, batch: Sequence[list[int]], *, skip_special_tokens: bool = True) -> list[str | RequestError]:
        """The text of each list of ids; ids that are not in the vocabulary are left out."""
        results: list[str | RequestError] = []
        for ids in batch:
            try:
                if not ids:
                    raise EmptyInputError("input_ids")
                if len(ids) > self.max_ids:
                    raise InputError(f"`input_ids` must have at most {self.max_ids} token ids")
                results.append(self._decode(ids, skip_special_tokens))
            except RequestError as error:
                results.append(error)
        return results

    def is_long(self, inputs: Sequence[Input], options: EncodeOptions = PLAIN) -> bool:
        """Whether `encode` is likely to take so long that it belongs into a worker thread.

        False means less than about 0.5 ms; handing the work to a thread and back costs about 0.1 ms. In ASCII
        characters, one more input costs about 30, a character that is not ASCII 4, and a token id 0.1; but 20 if it
        becomes text, to go behind a prompt, and is tokenized again.
        """
        has_prompt = options.prompt_name is not None or self._options.default_prompt is not None
        cost: float = 30 * len(inputs)
        for item in inputs:
            if isinstance(item, list):
                cost += len(item) * (20 if has_prompt else 0.1)
                continue
            for part in (item,) if isinstance(item, str) else item:
                cost += len(part) if part.isascii() else 4 * len(part)
        return cost > INLINE_CHARACTERS

    def _prompt(self, name: str | None) -> str | None:
        prompts = self._options.prompts
        if name is None:
            return self._options.default_prompt
        if name in self._roles:
            return role_prompt(prompts, name)
        if name in self._options.sides:
            return (prompts or {}).get(name)
        if prompts is None or name not in prompts:
            raise InputError(_unknown_prompt(prompts, name), logged="unknown `prompt_name`")
        return prompts[name]

    def _role(self, name: str | None) -> Role | None:
        name = self._options.default_role if name is None else name
        return None if name is None else self._roles.get(name)

    def _prepare(self, item: Input, options: EncodeOptions, limit: int) -> str | Pair | Encoding:
        """Check what can be checked before tokenizing, in TEI's order, and put the prompt before the input."""
        if not item or item == ("", ""):
            raise EmptyInputError
        prompt = self._prompt(options.prompt_name)
        if _characters(item) > self.max_characters:
            if not options.truncate:
                raise InputError(
                    f"`inputs` must have less than {self.max_characters} characters. Given: {_characters(item)}"
                )
            item = truncation.cut_bytes(item, self.max_characters)
        if self._writes_out and not isinstance(item, list):
            item = _cut_written_out(item, self.max_characters, options)
        if isinstance(item, str):
            if self._pairs is not None:
                return self._cased(_alone(item, options))
            return self._cased(item if prompt is None else prompt + item)
        if isinstance(item, tuple):
            if prompt is not None and self._options.prompted_pairs:
                return self._cased(prompt + item[0]), self._cased(item[1])
            if prompt is not None and self._pairs is None:
                raise InputError("`prompt_name` cannot be set with dual inputs")
            return self._cased(item[0]), self._cased(item[1])
        outside = next((id_ for id_ in item if not 0 <= id_ < self.vocabulary), None)
        if outside is not None:
            raise InputError(f"token id {outside} is outside the vocabulary of {self.vocabulary} ids")
        if prompt is not None:
            return self._cased(prompt + self._decode(item, skip_special_tokens=True))
        return _encode_ids(item, options, limit)

    def _templated(self, whole: dict[int, str | Pair], options: EncodeOptions) -> dict[int, Encoding | RequestError]:
        """Takes the pairs out of `whole`, and puts them into the template."""
        assert self._pairs is not None
        places = [place for place, item in whole.items() if isinstance(item, tuple)]
        pairs = [cast(Pair, whole.pop(place)) for place in places]
        try:
            given = _instruction(options)
            prompt = self._prompt(options.prompt_name) if given is None else given
            return dict(zip(places, self._pairs.encode(pairs, prompt, options), strict=True))
        except RequestError as error:
            return dict.fromkeys(places, error)

    def _outside(self, ids: Int32Array) -> InputError | None:
        """The error for a text with a token that the model does not have."""
        if not self._may_exceed_vocabulary or (largest := ids.max()) < self.vocabulary:
            return None
        return InputError(f"the text has token id {largest}, which is outside the vocabulary of {self.vocabulary} ids")

    def _cased(self, text: str) -> str:
        return text.lower() if self._options.rules.lowercase else text

    def _run_heads(
        self, texts: dict[int, str | Pair], options: EncodeOptions, limit: int
    ) -> dict[int, tokenizers.Encoding | RequestError]:
        """Tokenize the texts, but of those to be truncated only the part that is kept, where that is known."""
        if not (options.truncate and self._splits_at_spaces[options.direction]):
            return self._run(texts)
        heads = {place: truncation.head(text, limit, options.direction) for place, text in texts.items()}
        encodings = self._run(heads)
        too_short = {
            place: texts[place]
            for place, encoding in encodings.items()
            if heads[place] is not texts[place]
            and not isinstance(encoding, RequestError)
            and not truncation.fills(encoding, heads[place], texts[place], limit)
        }
        return encodings | self._run(too_short)

    def _run(self, texts: dict[int, str | Pair]) -> dict[int, tokenizers.Encoding | RequestError]:
        if not texts:
            return {}
        try:
            # Unlike `encode`, this gives up the interpreter lock; unlike `encode_batch`, it computes no offsets.
            encodings = self._tokenizer.encode_batch_fast(list(texts.values()))
        except Exception:  # one text failed; the library does not say which
            return {place: self._try_one(text) for place, text in texts.items()}
        return dict(zip(texts, encodings, strict=True))

    def _try_one(self, text: str | Pair) -> tokenizers.Encoding | RequestError:
        try:
            return self._run_one(text, add_special_tokens=True)
        except RequestError as error:
            return error

    def _run_one(self, text: str | Pair, add_special_tokens: bool) -> tokenizers.Encoding:
        for part in (text,) if isinstance(text, str) else text:
            if not truncation.is_unicode(part):
                raise InputError("`inputs` holds a lone surrogate, which no text has")
        try:
            return self._tokenizer.encode_batch([text], add_special_tokens=add_special_tokens)[0]
        except Exception as error:  # the library raises nothing narrower
            raise TokenizerError(str(error)) from error

    def _finish(
        self, encoding: tokenizers.Encoding | RequestError, item: Input, options: EncodeOptions, limit: int
    ) -> Encoding | RequestError:
        """Check the number of tokens, and truncate."""
        if isinstance(encoding, RequestError):
            return encoding
        ids = np.array(encoding.ids, np.int32)
        type_list = encoding.type_ids if self._options.rules.token_types else []
        type_ids = np.array(type_list, np.int32) if any(type_list) else None
        if len(ids) > limit:
            if not options.truncate:
                return _too_long(len(ids), limit)
            kept = truncation.kept(encoding, limit, options.direction)
            if kept is None:
                return _too_long(len(ids), limit)
            ids = ids[kept]
            type_ids = None if type_ids is None else type_ids[kept]
        if not len(ids):
            return InputError("`inputs` has no tokens: the tokenizer drops all of its characters")
        if (error := self._outside(ids)) is not None:
            return error
        return Encoding(ids, type_ids, _characters(item))

    def _decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        try:
            return self._tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)
        except OverflowError as error:
            raise InputError("`input_ids` holds a number that is not an unsigned integer of 32 bits") from error
        except Exception as error:  # the library raises nothing narrower
            raise TokenizerError(str(error)) from error


def _encode_ids(ids: list[int], options: EncodeOptions, limit: int) -> Encoding:
    characters = len(ids)
    if len(ids) > limit:
        if not options.truncate:
            raise _too_long(len(ids), limit)
        ids = ids[-limit:] if options.direction == "left" else ids[:limit]
    return Encoding(np.array(ids, np.int32), None, characters)


def _too_long(length: int, limit: int) -> InputError:
    return InputError(f"`inputs` must have less than {limit} tokens. Given: {length}")


def _instruction(options: EncodeOptions) -> str | None:
    """The instruction of a request. Raises InputError for one that names a prompt beside it."""
    if options.instruction is not None and options.prompt_name is not None:
        raise InputError("`instruction` and `prompt_name` are the same thing: give one of them")
    return options.instruction


def _alone(text: str, options: EncodeOptions) -> str:
    """A text that is no pair, of a model with a template for these. Raises InputError."""
    if options.instruction or options.prompt_name:
        raise InputError("`instruction` and `prompt_name` are for pairs: a single text is run as it is")
    return text


def _cut_written_out(item: str | Pair, limit: int, options: EncodeOptions) -> str | Pair:
    """Without what the normalizer would make far more of than the characters of an input. Raises InputError."""
    parts = (item,) if isinstance(item, str) else item
    sizes = [truncation.fitting(part, limit) for part in parts]
    if sizes == [len(part) for part in parts]:
        return item
    if not options.truncate:
        raise InputError(f"`inputs` must have less than {limit} characters once they are normalized")
    cut = [part[:size] for part, size in zip(parts, sizes, strict=True)]
    return cut[0] if isinstance(item, str) else (cut[0], cut[1])


def _characters(item: Input) -> int:
    return len(item[0]) + len(item[1]) if isinstance(item, tuple) else len(item)

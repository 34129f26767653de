"""The tokenizers of a model with several sides: `prompt_name` says which side a text is for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..errors import RequestError
from ..types import EncodeOptions, Encoding, Input, Token
from .tokenizer import Tokenizer


class SidedTokenizer:
    """One tokenizer for each side, in place of `Tokenizer`."""

    def __init__(self, tokenizers: Mapping[str, Tokenizer], names: Mapping[str, str], default: str) -> None:
        """tokenizers: by side; names: from what a request calls a text's part to the side; default: the side of texts
        of which nothing is said."""
        self._tokenizers = dict(tokenizers)
        self._names = dict(names)
        self._default = default
        self.special_ids = tokenizers[default].special_ids
        self.max_ids = tokenizers[default].max_ids
        self.max_input_length = max(tokenizer.max_input_length for tokenizer in tokenizers.values())

    def encode(self, inputs: Sequence[Input], options: EncodeOptions) -> list[Encoding | RequestError]:
        """As `Tokenizer.encode`, for the side that the options name."""
        side = self._side(options.prompt_name)
        found = self._tokenizers[side].encode(inputs, options)
        return [replace(item, side=side) if isinstance(item, Encoding) else item for item in found]

    def tokenize(
        self, texts: Sequence[str], *, add_special_tokens: bool = True, prompt_name: str | None = None
    ) -> list[list[Token] | RequestError]:
        """As `Tokenizer.tokenize`, for the side that the prompt names."""
        tokenizer = self._tokenizers[self._side(prompt_name)]
        return tokenizer.tokenize(texts, add_special_tokens=add_special_tokens, prompt_name=prompt_name)

    def decode(self, batch: Sequence[list[int]], *, skip_special_tokens: bool = True) -> list[str | RequestError]:
        """As `Tokenizer.decode`, of the side of texts of which nothing is said."""
        return self._tokenizers[self._default].decode(batch, skip_special_tokens=skip_special_tokens)

    def is_long(self, inputs: Sequence[Input], options: EncodeOptions | None = None) -> bool:
        """As `Tokenizer.is_long`."""
        options = EncodeOptions() if options is None else options
        return self._tokenizers[self._side(options.prompt_name)].is_long(inputs, options)

    def _side(self, name: str | None) -> str:
        return self._default if name is None else self._names.get(name, self._default)

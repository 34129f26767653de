"""Texts become token ids and token ids text, with the prompts and limits of one model."""

from .tokenizer import Tokenizer, resolve_default_prompt

__all__ = ["Tokenizer", "resolve_default_prompt"]

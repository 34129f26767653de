"""Texts become token ids and token ids text, with the prompts and limits of one model."""

from .roles import ROLES
from .tokenizer import TextOptions, Tokenizer, resolve_default_prompt

__all__ = ["ROLES", "TextOptions", "Tokenizer", "resolve_default_prompt"]

"""Texts become token ids and token ids text, with the prompts and limits of one model."""

from .roles import ROLES
from .tokenizer import Tokenizer, resolve_default_prompt

__all__ = ["ROLES", "Tokenizer", "resolve_default_prompt"]

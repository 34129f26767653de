"""Texts become token ids and token ids text, with the prompts and limits of one model."""

from .chat_template import compile_chat_template
from .file import first_token
from .roles import ROLES, role_prompt
from .sides import SidedTokenizer
from .tokenizer import TextOptions, Tokenizer, resolve_default_prompt

__all__ = [
    "ROLES",
    "SidedTokenizer",
    "TextOptions",
    "Tokenizer",
    "compile_chat_template",
    "first_token",
    "resolve_default_prompt",
    "role_prompt",
]

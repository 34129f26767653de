from __future__ import annotations

from typing import Any

import pytest

from text_embeddings_inference.models import choose
from text_embeddings_inference.models.jina_bert import alibi_slopes

PLAIN, CODE = "jinaai/jina-bert-implementation", "jinaai/jina-bert-v2-qk-post-norm"


@pytest.mark.parametrize(
    ("config", "module"),
    [
        ({}, "bert"),
        ({"_name_or_path": "example/bert", "auto_map": {"AutoModel": f"{CODE}--modeling_bert.JinaBertModel"}}, "bert"),
        ({"_name_or_path": f"{PLAIN}-of-another", "auto_map": None}, "bert"),
        ({"_name_or_path": PLAIN}, "jina_bert"),
        ({"auto_map": {"AutoConfig": f"{PLAIN}--configuration_bert.JinaBertConfig"}}, "jina_bert"),
        ({"_name_or_path": CODE}, "jina_bert_code"),
        ({"auto_map": {"AutoConfig": f"{CODE}--configuration_bert.JinaBertConfig"}}, "jina_bert_code"),
    ],
)
def test_told_from_bert_by_the_code_it_was_made_for(config: dict[str, Any], module: str) -> None:
    choice = choose("bert", config)
    assert choice is not None
    assert choice.module == module


def test_alibi_slopes_of_a_power_of_two() -> None:
    assert alibi_slopes(4) == (1 / 4, 1 / 16, 1 / 64, 1 / 256)
    assert alibi_slopes(8) == tuple(2**-k for k in range(1, 9))


def test_alibi_slopes_of_another_number() -> None:
    """Those of the next lower power of two, then the 1st, 3rd, ... of the next higher one."""
    assert alibi_slopes(6) == (1 / 4, 1 / 16, 1 / 64, 1 / 256, 1 / 2, 1 / 8)
    assert alibi_slopes(12) == alibi_slopes(8) + alibi_slopes(16)[:8:2]

"""CrossEncoders as the installed sentence-transformers makes and saves them, against its own scores."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from text_embeddings_inference import EncodeOptions, load

pytestmark = [
    pytest.mark.skipif(find_spec("sentence_transformers") is None, reason="sentence-transformers is not installed"),
    pytest.mark.filterwarnings("ignore"),  # of the libraries compared with
]

TOKENIZER = Path(__file__).parents[1] / "fixtures" / "rerankers" / "Qwen3-Reranker-0.6B"
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QUERY = "what is a python list"
TEXTS = ["A list is a mutable sequence.", "Berlin", "Lists can be sorted and sliced, copied and reversed. " * 40, "no"]
SIZES = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 6}


def saved(folder: Path, architecture: str, **changes: Any) -> Path:
    """A causal language model with random weights, and its tokenizer, by Transformers' own `save_pretrained`."""
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(TOKENIZER)
    tokenizer.chat_template, tokenizer.model_max_length = TEMPLATE, 96
    config_class = getattr(transformers, architecture.replace("ForCausalLM", "Config"))
    config = config_class(vocab_size=len(tokenizer), max_position_embeddings=128, **(SIZES | changes))
    torch.manual_seed(7)
    model = getattr(transformers, architecture)(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("generation_prompt", [False, True])
@pytest.mark.parametrize(
    ("architecture", "changes"),
    [
        ("Qwen3ForCausalLM", {"head_dim": 8, "num_key_value_heads": 2, "tie_word_embeddings": False}),
        ("Qwen2ForCausalLM", {"num_key_value_heads": 3, "tie_word_embeddings": True}),
        ("LlamaForCausalLM", {"num_key_value_heads": 6}),
        ("GemmaForCausalLM", {"head_dim": 8, "num_key_value_heads": 1}),
    ],
)
def test_causal_language_model(
    architecture: str, changes: dict[str, Any], generation_prompt: bool, tmp_path: Path
) -> None:
    import torch
    from sentence_transformers import CrossEncoder

    encoder = CrossEncoder(str(saved(tmp_path / "model", architecture, **changes)), device="cpu")
    encoder.prompts = {"query": "Judge it."}
    encoder[0].processing_kwargs = {"chat_template": {"add_generation_prompt": generation_prompt}}
    folder = tmp_path / "saved"
    encoder.save_pretrained(str(folder))
    with load(folder, dtype="float32", threads=2) as model:
        for prompt in (None, "query"):
            expected = encoder.predict(
                [(QUERY, text) for text in TEXTS], prompt_name=prompt, activation_fn=torch.nn.Identity()
            )
            ranks = model.rerank(QUERY, TEXTS, raw_scores=True, options=EncodeOptions(prompt_name=prompt))
            found = [rank.score for rank in sorted(ranks, key=lambda rank: rank.index)]
            np.testing.assert_allclose(found, expected, atol=2e-3)


def test_prompts_of_a_classifier(tmp_path: Path) -> None:
    import torch
    from sentence_transformers import CrossEncoder

    source = Path(__file__).parents[1] / "fixtures" / "models" / "bert-reranker"
    encoder = CrossEncoder(
        str(source), device="cpu", prompts={"a": "find: ", "b": "code for "}, default_prompt_name="b"
    )
    encoder.save_pretrained(str(tmp_path))
    texts = [text for text in TEXTS if len(text) < 100]
    with load(tmp_path, dtype="float32", threads=2) as model:
        for prompt in (None, "a"):
            expected = encoder.predict(
                [(QUERY, text) for text in texts], prompt_name=prompt, activation_fn=torch.nn.Identity()
            )
            ranks = model.rerank(QUERY, texts, raw_scores=True, options=EncodeOptions(prompt_name=prompt))
            found = [rank.score for rank in sorted(ranks, key=lambda rank: rank.index)]
            np.testing.assert_allclose(found, expected, atol=2e-4)

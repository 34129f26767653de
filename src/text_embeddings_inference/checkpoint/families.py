"""The rerankers whose template no file of theirs holds: what they were trained on, and how their scores are made.

Each as its authors' code does it: which pieces are tokenized by themselves, and whose tokens' logits are compared.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..types import PairTemplate, Slot

BOS = "<bos>"
"""A piece that stands for the token that texts begin with, which is mostly called so."""

INSTRUCTION, QUERY, DOCUMENT = Slot.INSTRUCTION, Slot.QUERY, Slot.DOCUMENT


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers of a causal language model whose logits make a score."""

    true: int | str
    """The token's id, or a word."""
    false: int | str | None = None
    """What is subtracted; None: nothing is."""
    scale: float = 1.0
    """The score is the difference times this."""
    whole: bool = False
    """Whether a word is a token of the vocabulary itself, if there is such a one, even where the tokenizer would split
    it; else it is the first of its tokens."""

    @property
    def words(self) -> str:
        """For people."""
        first = f"the logit of {self.true!r}" + ("" if self.false is None else f" less that of {self.false!r}")
        return first if self.scale == 1 else f"{first}, times {self.scale:g}"


YES_NO = Answers("yes", "no", whole=True)
"""What sentence-transformers compares where nothing is said."""


@dataclass(frozen=True, slots=True)
class Family:
    """How the models of one family take pairs."""

    template: PairTemplate
    answers: Answers = YES_NO
    """Of the causal language models; conversions to sequence classifiers have them in their head."""


_CHAT_USER = "<|im_end|>\n<|im_start|>user\n"
_CHAT_ASSISTANT = "<|im_end|>\n<|im_start|>assistant\n"

_QWEN3 = PairTemplate(
    plain=(),
    instructed=(
        (
            "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
            'provided. Note that the answer can only be "yes" or "no".' + _CHAT_USER,
        ),
        ("<Instruct>: ", INSTRUCTION, "\n<Query>: ", QUERY, "\n<Document>: ", DOCUMENT),
        (_CHAT_ASSISTANT + "<think>\n\n</think>\n\n",),
    ),
    instruction="Given a web search query, retrieve relevant passages that answer the query",
)

_MXBAI_END = (
    ("\n",),
    ("document: ", DOCUMENT),
    ("\n",),
    (
        "You are a search relevance expert who evaluates how well documents match search queries. For each "
        "query-document pair, carefully analyze the semantic relationship between them, then provide your binary "
        "relevance judgment (0 for not relevant, 1 for relevant).\nRelevance:",
    ),
    (_CHAT_ASSISTANT,),
)
_MXBAI_START = (
    "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant." + _CHAT_USER,
)
_MXBAI = PairTemplate(
    plain=(_MXBAI_START, ("query: ", QUERY), *_MXBAI_END),
    instructed=(_MXBAI_START, ("instruction: ", INSTRUCTION, "\nquery: ", QUERY), *_MXBAI_END),
)

_BGE_GEMMA = PairTemplate(
    plain=(
        (BOS,),
        ("A: ", QUERY),
        ("\n",),
        ("B: ", DOCUMENT),
        ("\n",),
        (
            "Given a query A and a passage B, determine whether the passage contains an answer to the query by "
            "providing a prediction of either 'Yes' or 'No'.",
        ),
    )
)

_ZERANK = PairTemplate(
    plain=(("<|im_start|>system\n", QUERY, _CHAT_USER, DOCUMENT, _CHAT_ASSISTANT),),
    stripped=frozenset((QUERY, DOCUMENT)),
)

_NEMOTRON = PairTemplate(plain=(("question:", QUERY, " \n \n passage:", DOCUMENT),), special=True)

FAMILIES: dict[str, Family] = {
    "qwen3-reranker": Family(_QWEN3),
    "mxbai-rerank-v2": Family(_MXBAI, Answers("1", "0")),
    "bge-reranker-v2-gemma": Family(_BGE_GEMMA, Answers("Yes")),
    "zerank": Family(_ZERANK, Answers("Yes", scale=0.2)),
    "llama-nemotron-rerank": Family(_NEMOTRON),
}
"""By the names that `--rerank-template` takes."""

BY_ARCHITECTURE = {
    "Qwen3ForCausalLM": "qwen3-reranker",
    "Qwen2ForCausalLM": "mxbai-rerank-v2",
    "GemmaForCausalLM": "bge-reranker-v2-gemma",
}
"""The family of a causal language model of which nothing else is known."""

BY_CODE = {"modeling_zeranker": "zerank"}
"""The family of a model whose config.json names this remote code in `auto_map`."""

CLASSIFIERS = {"LlamaBidirectionalForSequenceClassification": "llama-nemotron-rerank"}
"""The family of a reranker with a head of its own, where its architecture is of that family alone."""

CONVERTED = {"Qwen3ForSequenceClassification": "qwen3-reranker", "Qwen2ForSequenceClassification": "mxbai-rerank-v2"}
"""The family that a reranker with a head of its own may have been converted from."""

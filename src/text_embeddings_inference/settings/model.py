"""Which model is served, and how its inputs are taken."""

from __future__ import annotations

from dataclasses import dataclass

from ..types import Pooling
from .options import LIMITS, MODEL, PROMPTS, Boolean, Choice, Flag, Option, Text


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """Which model is served, and how its inputs are taken."""

    model_id: str = Option(
        Text(),
        MODEL,
        "A directory that holds a model, or the id of a model on the Hub",
        details="A directory is served as it is, without any network; anything else is taken for a Hub id.\n"
        "Examples: sentence-transformers/all-MiniLM-L6-v2, ./my-model",
    ).field()
    revision: str | None = Option(
        Text(),
        MODEL,
        "Branch, tag, `refs/pr/N` or commit of the model on the Hub",
        details="Shown by `/info` as `model_sha`, for a local model too.",
        default_text="main",
    ).field(None)
    served_model_name: str | None = Option(
        Text(), MODEL, "Name of the model in OpenAI answers and in `/info`", default_text="the model id"
    ).field(None)
    pooling: Pooling | None = Option(
        Choice(
            {p.replace("_", "-"): p for p in (Pooling.CLS, Pooling.MEAN, Pooling.SPLADE, Pooling.LAST_TOKEN)},
            others=(Pooling.MAX, Pooling.MEAN_SQRT_LEN, Pooling.WEIGHTED_MEAN),
        ),
        MODEL,
        "How the vectors of a text's tokens become one vector",
        details="Overrides the model's own `1_Pooling/config.json`. Ignored, with a warning, for classifiers and "
        "rerankers.",
        default_text="the model's",
    ).field(None)
    dense_path: str | None = Option(
        Text(),
        MODEL,
        "Folder of the Dense module to use in place of the one `modules.json` lists",
        details="For models with several of them, as `2_Dense_1024`; needs exactly one Dense module in `modules.json`.",
    ).field(None)
    onnx_file: str | None = Option(
        Text(),
        MODEL,
        "ONNX graph of the model to run, as `onnx/model_quantized.onnx`",
        details="A path inside of the model's folder. Without it, `model.onnx` or `onnx/model.onnx` is run if there "
        "are no weights in another format. Runs on OpenVINO. Not in text-embeddings-inference 1.9.3.",
    ).field(None)
    rerank_template: str | None = Option(
        Text(),
        MODEL,
        "The text that a reranker's query and document are put into: a Jinja file, or a family's name",
        details="Families: qwen3-reranker, mxbai-rerank-v2, bge-reranker-v2-gemma, zerank, llama-nemotron-rerank. A "
        "file gets `query`, `document` and `instruction`, and `messages` with the roles system, query and document. "
        "Models that come with a template, and causal language models of these families, need no option; conversions "
        "to sequence classifiers do. Not in text-embeddings-inference 1.9.3.",
        default_text="the model's",
    ).field(None)
    rerank_answers: str | None = Option(
        Text(),
        MODEL,
        "The answers of a causal language model whose logits make a reranker's score",
        details="One word, or two with a comma: the logit of the first one's token, less that of the second's. "
        "Example: yes,no. Not in text-embeddings-inference 1.9.3.",
        default_text="the model's",
    ).field(None)
    trust_remote_code: bool = Option(
        Flag(),
        MODEL,
        "Let Transformers run the Python code that lies beside the weights of a model it does not know",
        details="Only for models that are run by Transformers, because no architecture of this server fits them, and "
        "only from a folder. That code can do anything this process may. Not in text-embeddings-inference 1.9.3.",
    ).field(False)
    default_prompt_name: str | None = Option(
        Text(),
        PROMPTS,
        "Name of the prompt put before every input that names none",
        details="A key of `prompts` in the model's `config_sentence_transformers.json`. Example: with the name `query` "
        'and `{"query": "query: "}` there, "What is Deep Learning?" is embedded as "query: What is Deep Learning?". '
        "Cannot be used with `--default-prompt`.",
        conflicts=("default_prompt",),
    ).field(None)
    default_prompt: str | None = Option(
        Text(),
        PROMPTS,
        "Text put before every input that names no prompt",
        details="Rerankers with a template take it as the instruction. Cannot be used with `--default-prompt-name`.",
    ).field(None)
    auto_truncate: bool = Option(
        Boolean(),
        LIMITS,
        "Cut inputs that are too long, where a request does not say",
        details="Also at the start: if the model takes longer inputs than `--max-batch-tokens`, true lowers the limit "
        "of an input to that, with a warning; false refuses to start.",
    ).field(True)

    @property
    def served_name(self) -> str:
        """The name of the model in answers."""
        return self.model_id if self.served_model_name is None else self.served_model_name

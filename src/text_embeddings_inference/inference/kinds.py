"""What a kind of model can't do, in the words clients of text-embeddings-inference know."""

from __future__ import annotations

from ..errors import ModelTypeError

NOT_EMBEDDING = "Model is not an embedding model"
NOT_SPLADE = "Model is not an embedding model with SPLADE pooling"
NOT_CLASSIFIER = "Model is not a classifier model"
NOT_RERANKER = "model is not a re-ranker model"
NO_POOLED = "Model gives a vector for each token: use `/embed_all`"
NO_VECTORS = "Model has no head for late interaction: `multi_vector` is not available"
NO_TOKENS = "`embed_all` is not available for SPLADE models"
NO_NORMALIZE = "`normalize` is not available for SPLADE models"


def require(condition: bool, problem: str) -> None:
    """Raises ModelTypeError unless the condition holds."""
    if not condition:
        raise ModelTypeError(problem)

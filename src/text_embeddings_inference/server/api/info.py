"""What the server tells of itself: `/info`, `/health`, `/metrics`."""

from __future__ import annotations

import msgspec
from msgspec import UNSET, Struct, UnsetType

from ...errors import UnhealthyError
from ...inference.model import Model
from ...settings import CONTRACT_VERSION, Settings
from ...types import Kind
from ..accounting import Served
from ..http.response import TEXT, Reply


class EmbeddingType(Struct):
    pooling: str


class ClassifierType(Struct):
    id2label: dict[str, str]
    label2id: dict[str, int]


class ModelType(Struct):
    """What the model is: one of these is there."""

    embedding: EmbeddingType | UnsetType = UNSET
    classifier: ClassifierType | UnsetType = UNSET
    reranker: ClassifierType | UnsetType = UNSET

    @staticmethod
    def of(model: Model) -> ModelType:
        info = model.info
        if info.kind is Kind.EMBEDDING:
            return ModelType(embedding=EmbeddingType(str(info.pooling)))
        labels = ClassifierType({str(index): label for index, label in enumerate(info.labels)}, dict(info.label_ids))
        return ModelType(classifier=labels) if info.kind is Kind.CLASSIFIER else ModelType(reranker=labels)


class Info(Struct):
    """The model and the limits of this server; from `architecture` on not in text-embeddings-inference 1.9.3."""

    model_id: str
    model_sha: str | None
    model_dtype: str
    served_model_name: str
    model_type: ModelType
    max_concurrent_requests: int
    max_input_length: int
    max_batch_tokens: int
    max_batch_requests: int | None
    max_client_batch_size: int
    auto_truncate: bool
    tokenization_workers: int
    version: str
    sha: str | None
    docker_label: str | None
    architecture: str
    dimensions: int
    engine: str
    fidelity: float | None

    @staticmethod
    def of(model: Model, settings: Settings) -> Info:
        info, limits = model.info, model.limits
        return Info(
            model_id=info.model_id,
            model_sha=info.revision,
            model_dtype=info.dtype,
            served_model_name=info.served_name,
            model_type=ModelType.of(model),
            max_concurrent_requests=limits.max_concurrent_requests,
            max_input_length=info.max_input_length,
            max_batch_tokens=limits.token_limit,
            max_batch_requests=limits.max_batch_requests or None,
            max_client_batch_size=limits.max_client_batch_size,
            auto_truncate=settings.model.auto_truncate,
            tokenization_workers=settings.limits.tokenization_workers,
            version=CONTRACT_VERSION,
            sha=None,
            docker_label=None,
            architecture=info.architecture,
            dimensions=info.dimensions,
            engine=info.engine,
            fidelity=info.fidelity,
        )


async def get_model_info(served: Served) -> Reply:
    """Tells the model and the limits of the server."""
    return Reply.json([msgspec.json.encode(Info.of(served.model, served.settings))])


async def health(served: Served) -> Reply:
    """Tells whether the model answers."""
    if not served.model.healthy:
        raise UnhealthyError
    return Reply(200, (), [])


async def metrics(served: Served) -> Reply:
    """Gives the metrics in the text format of Prometheus."""
    return Reply(200, (TEXT,), [served.model.metrics.render()])

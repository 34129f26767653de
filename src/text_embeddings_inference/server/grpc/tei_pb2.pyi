from collections.abc import Iterable as _Iterable
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar

from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper

DESCRIPTOR: _descriptor.FileDescriptor

class ModelType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODEL_TYPE_EMBEDDING: _ClassVar[ModelType]
    MODEL_TYPE_CLASSIFIER: _ClassVar[ModelType]
    MODEL_TYPE_RERANKER: _ClassVar[ModelType]

class TruncationDirection(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TRUNCATION_DIRECTION_RIGHT: _ClassVar[TruncationDirection]
    TRUNCATION_DIRECTION_LEFT: _ClassVar[TruncationDirection]

MODEL_TYPE_EMBEDDING: ModelType
MODEL_TYPE_CLASSIFIER: ModelType
MODEL_TYPE_RERANKER: ModelType
TRUNCATION_DIRECTION_RIGHT: TruncationDirection
TRUNCATION_DIRECTION_LEFT: TruncationDirection

class InfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class InfoResponse(_message.Message):
    __slots__ = (
        "docker_label",
        "max_batch_requests",
        "max_batch_tokens",
        "max_client_batch_size",
        "max_concurrent_requests",
        "max_input_length",
        "model_dtype",
        "model_id",
        "model_sha",
        "model_type",
        "sha",
        "tokenization_workers",
        "version",
    )
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SHA_FIELD_NUMBER: _ClassVar[int]
    DOCKER_LABEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_SHA_FIELD_NUMBER: _ClassVar[int]
    MODEL_DTYPE_FIELD_NUMBER: _ClassVar[int]
    MODEL_TYPE_FIELD_NUMBER: _ClassVar[int]
    MAX_CONCURRENT_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    MAX_INPUT_LENGTH_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    MAX_CLIENT_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    TOKENIZATION_WORKERS_FIELD_NUMBER: _ClassVar[int]
    version: str
    sha: str
    docker_label: str
    model_id: str
    model_sha: str
    model_dtype: str
    model_type: ModelType
    max_concurrent_requests: int
    max_input_length: int
    max_batch_tokens: int
    max_batch_requests: int
    max_client_batch_size: int
    tokenization_workers: int
    def __init__(
        self,
        version: str | None = ...,
        sha: str | None = ...,
        docker_label: str | None = ...,
        model_id: str | None = ...,
        model_sha: str | None = ...,
        model_dtype: str | None = ...,
        model_type: ModelType | str | None = ...,
        max_concurrent_requests: int | None = ...,
        max_input_length: int | None = ...,
        max_batch_tokens: int | None = ...,
        max_batch_requests: int | None = ...,
        max_client_batch_size: int | None = ...,
        tokenization_workers: int | None = ...,
    ) -> None: ...

class Metadata(_message.Message):
    __slots__ = (
        "compute_chars",
        "compute_tokens",
        "inference_time_ns",
        "queue_time_ns",
        "tokenization_time_ns",
        "total_time_ns",
    )
    COMPUTE_CHARS_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_TIME_NS_FIELD_NUMBER: _ClassVar[int]
    TOKENIZATION_TIME_NS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_TIME_NS_FIELD_NUMBER: _ClassVar[int]
    INFERENCE_TIME_NS_FIELD_NUMBER: _ClassVar[int]
    compute_chars: int
    compute_tokens: int
    total_time_ns: int
    tokenization_time_ns: int
    queue_time_ns: int
    inference_time_ns: int
    def __init__(
        self,
        compute_chars: int | None = ...,
        compute_tokens: int | None = ...,
        total_time_ns: int | None = ...,
        tokenization_time_ns: int | None = ...,
        queue_time_ns: int | None = ...,
        inference_time_ns: int | None = ...,
    ) -> None: ...

class EmbedRequest(_message.Message):
    __slots__ = ("dimensions", "inputs", "normalize", "prompt_name", "truncate", "truncation_direction")
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    TRUNCATE_FIELD_NUMBER: _ClassVar[int]
    NORMALIZE_FIELD_NUMBER: _ClassVar[int]
    TRUNCATION_DIRECTION_FIELD_NUMBER: _ClassVar[int]
    PROMPT_NAME_FIELD_NUMBER: _ClassVar[int]
    DIMENSIONS_FIELD_NUMBER: _ClassVar[int]
    inputs: str
    truncate: bool
    normalize: bool
    truncation_direction: TruncationDirection
    prompt_name: str
    dimensions: int
    def __init__(
        self,
        inputs: str | None = ...,
        truncate: bool | None = ...,
        normalize: bool | None = ...,
        truncation_direction: TruncationDirection | str | None = ...,
        prompt_name: str | None = ...,
        dimensions: int | None = ...,
    ) -> None: ...

class EmbedResponse(_message.Message):
    __slots__ = ("embeddings", "metadata")
    EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    embeddings: _containers.RepeatedScalarFieldContainer[float]
    metadata: Metadata
    def __init__(
        self, embeddings: _Iterable[float] | None = ..., metadata: Metadata | _Mapping | None = ...
    ) -> None: ...

class EmbedSparseRequest(_message.Message):
    __slots__ = ("inputs", "prompt_name", "truncate", "truncation_direction")
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    TRUNCATE_FIELD_NUMBER: _ClassVar[int]
    TRUNCATION_DIRECTION_FIELD_NUMBER: _ClassVar[int]
    PROMPT_NAME_FIELD_NUMBER: _ClassVar[int]
    inputs: str
    truncate: bool
    truncation_direction: TruncationDirection
    prompt_name: str
    def __init__(
        self,
        inputs: str | None = ...,
        truncate: bool | None = ...,
        truncation_direction: TruncationDirection | str | None = ...,
        prompt_name: str | None = ...,
    ) -> None: ...

class SparseValue(_message.Message):
    __slots__ = ("index", "value")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    index: int
    value: float
    def __init__(self, index: int | None = ..., value: float | None = ...) -> None: ...

class EmbedSparseResponse(_message.Message):
    __slots__ = ("metadata", "sparse_embeddings")
    SPARSE_EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    sparse_embeddings: _containers.RepeatedCompositeFieldContainer[SparseValue]
    metadata: Metadata
    def __init__(
        self,
        sparse_embeddings: _Iterable[SparseValue | _Mapping] | None = ...,
        metadata: Metadata | _Mapping | None = ...,
    ) -> None: ...

class EmbedAllRequest(_message.Message):
    __slots__ = ("inputs", "prompt_name", "truncate", "truncation_direction")
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    TRUNCATE_FIELD_NUMBER: _ClassVar[int]
    TRUNCATION_DIRECTION_FIELD_NUMBER: _ClassVar[int]
    PROMPT_NAME_FIELD_NUMBER: _ClassVar[int]
    inputs: str
    truncate: bool
    truncation_direction: TruncationDirection
    prompt_name: str
    def __init__(
        self,
        inputs: str | None = ...,
        truncate: bool | None = ...,
        truncation_direction: TruncationDirection | str | None = ...,
        prompt_name: str | None = ...,
    ) -> None: ...

class TokenEmbedding(_message.Message):
    __slots__ = ("embeddings",)
    EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    embeddings: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, embeddings: _Iterable[float] | None = ...) -> None: ...

class EmbedAllResponse(_message.Message):
    __slots__ = ("metadata", "token_embeddings")
    TOKEN_EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    token_embeddings: _containers.RepeatedCompositeFieldContainer[TokenEmbedding]
    metadata: Metadata
    def __init__(
        self,
        token_embeddings: _Iterable[TokenEmbedding | _Mapping] | None = ...,
        metadata: Metadata | _Mapping | None = ...,
    ) -> None: ...

class PredictRequest(_message.Message):
    __slots__ = ("inputs", "raw_scores", "truncate", "truncation_direction")
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    TRUNCATE_FIELD_NUMBER: _ClassVar[int]
    RAW_SCORES_FIELD_NUMBER: _ClassVar[int]
    TRUNCATION_DIRECTION_FIELD_NUMBER: _ClassVar[int]
    inputs: str
    truncate: bool
    raw_scores: bool
    truncation_direction: TruncationDirection
    def __init__(
        self,
        inputs: str | None = ...,
        truncate: bool | None = ...,
        raw_scores: bool | None = ...,
        truncation_direction: TruncationDirection | str | None = ...,
    ) -> None: ...

class PredictPairRequest(_message.Message):
    __slots__ = ("inputs", "raw_scores", "truncate", "truncation_direction")
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    TRUNCATE_FIELD_NUMBER: _ClassVar[int]
    RAW_SCORES_FIELD_NUMBER: _ClassVar[int]
    TRUNCATION_DIRECTION_FIELD_NUMBER: _ClassVar[int]
    inputs: _containers.RepeatedScalarFieldContainer[str]
    truncate: bool
    raw_scores: bool
    truncation_direction: TruncationDirection
    def __init__(
        self,
        inputs: _Iterable[str] | None = ...,
        truncate: bool | None = ...,
        raw_scores: bool | None = ...,
        truncation_direction: TruncationDirection | str | None = ...,
    ) -> None: ...

class Prediction(_message.Message):
    __slots__ = ("label", "score")
    SCORE_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    score: float
    label: str
    def __init__(self, score: float | None = ..., label: str | None = ...) -> None: ...

class PredictResponse(_message.Message):
    __slots__ = ("metadata", "predictions")
    PREDICTIONS_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    predictions: _containers.RepeatedCompositeFieldContainer[Prediction]
    metadata: Metadata
    def __init__(
        self,
        predictions: _Iterable[Prediction | _Mapping] | None = ...,
        metadata: Metadata | _Mapping | None = ...,
    ) -> None: ...

class RerankRequest(_message.Message):
    __slots__ = ("query", "raw_scores", "return_text", "texts", "truncate", "truncation_direction")
    QUERY_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    TRUNCATE_FIELD_NUMBER: _ClassVar[int]
    RAW_SCORES_FIELD_NUMBER: _ClassVar[int]
    RETURN_TEXT_FIELD_NUMBER: _ClassVar[int]
    TRUNCATION_DIRECTION_FIELD_NUMBER: _ClassVar[int]
    query: str
    texts: _containers.RepeatedScalarFieldContainer[str]
    truncate: bool
    raw_scores: bool
    return_text: bool
    truncation_direction: TruncationDirection
    def __init__(
        self,
        query: str | None = ...,
        texts: _Iterable[str] | None = ...,
        truncate: bool | None = ...,
        raw_scores: bool | None = ...,
        return_text: bool | None = ...,
        truncation_direction: TruncationDirection | str | None = ...,
    ) -> None: ...

class RerankStreamRequest(_message.Message):
    __slots__ = ("query", "raw_scores", "return_text", "text", "truncate", "truncation_direction")
    QUERY_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TRUNCATE_FIELD_NUMBER: _ClassVar[int]
    RAW_SCORES_FIELD_NUMBER: _ClassVar[int]
    RETURN_TEXT_FIELD_NUMBER: _ClassVar[int]
    TRUNCATION_DIRECTION_FIELD_NUMBER: _ClassVar[int]
    query: str
    text: str
    truncate: bool
    raw_scores: bool
    return_text: bool
    truncation_direction: TruncationDirection
    def __init__(
        self,
        query: str | None = ...,
        text: str | None = ...,
        truncate: bool | None = ...,
        raw_scores: bool | None = ...,
        return_text: bool | None = ...,
        truncation_direction: TruncationDirection | str | None = ...,
    ) -> None: ...

class Rank(_message.Message):
    __slots__ = ("index", "score", "text")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    index: int
    text: str
    score: float
    def __init__(self, index: int | None = ..., text: str | None = ..., score: float | None = ...) -> None: ...

class RerankResponse(_message.Message):
    __slots__ = ("metadata", "ranks")
    RANKS_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    ranks: _containers.RepeatedCompositeFieldContainer[Rank]
    metadata: Metadata
    def __init__(
        self,
        ranks: _Iterable[Rank | _Mapping] | None = ...,
        metadata: Metadata | _Mapping | None = ...,
    ) -> None: ...

class EncodeRequest(_message.Message):
    __slots__ = ("add_special_tokens", "inputs", "prompt_name")
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    ADD_SPECIAL_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PROMPT_NAME_FIELD_NUMBER: _ClassVar[int]
    inputs: str
    add_special_tokens: bool
    prompt_name: str
    def __init__(
        self, inputs: str | None = ..., add_special_tokens: bool | None = ..., prompt_name: str | None = ...
    ) -> None: ...

class SimpleToken(_message.Message):
    __slots__ = ("id", "special", "start", "stop", "text")
    ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    SPECIAL_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    id: int
    text: str
    special: bool
    start: int
    stop: int
    def __init__(
        self,
        id: int | None = ...,
        text: str | None = ...,
        special: bool | None = ...,
        start: int | None = ...,
        stop: int | None = ...,
    ) -> None: ...

class EncodeResponse(_message.Message):
    __slots__ = ("tokens",)
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    tokens: _containers.RepeatedCompositeFieldContainer[SimpleToken]
    def __init__(self, tokens: _Iterable[SimpleToken | _Mapping] | None = ...) -> None: ...

class DecodeRequest(_message.Message):
    __slots__ = ("ids", "skip_special_tokens")
    IDS_FIELD_NUMBER: _ClassVar[int]
    SKIP_SPECIAL_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[int]
    skip_special_tokens: bool
    def __init__(self, ids: _Iterable[int] | None = ..., skip_special_tokens: bool | None = ...) -> None: ...

class DecodeResponse(_message.Message):
    __slots__ = ("text",)
    TEXT_FIELD_NUMBER: _ClassVar[int]
    text: str
    def __init__(self, text: str | None = ...) -> None: ...

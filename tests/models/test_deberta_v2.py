from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edited import edit

from oracle.numpy_ops import NumpyOps
from text_embeddings_inference.checkpoint import open_checkpoint
from text_embeddings_inference.errors import CheckpointError, UnsupportedError
from text_embeddings_inference.models.build import build, facts_of
from text_embeddings_inference.models.deberta_v2 import Args, log_bucket

SIZES: dict[str, Any] = {
    "vocab_size": 9,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 4,
    "max_position_embeddings": 16,
}


def test_log_buckets() -> None:
    """8 buckets for distances up to 65: exact up to 4; then distance 4 * 16^(n/3) is the last of bucket 4 + n."""
    distances = np.arange(66)
    buckets = log_bucket(distances, 8, 65)
    assert buckets[:5].tolist() == [0, 1, 2, 3, 4]
    assert [int(np.flatnonzero(buckets == n)[-1]) for n in (5, 6, 7)] == [10, 25, 64]
    assert buckets[65] == 8
    assert np.array_equal(log_bucket(-distances, 8, 65), -buckets)


def test_log_buckets_where_no_distance_is_far() -> None:
    assert log_bucket(np.arange(-5, 6), 8, 5).tolist() == list(range(-5, 6))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("attention_head_size", 8),
        ("pooler_hidden_size", 4),
        ("pos_att_type", ["c2p", "p2p"]),
        ("pos_att_type", "p2p"),
        ("norm_rel_ebd", "batch_norm"),
        ("position_buckets", 7),
        ("conv_kernel_size", 4),
    ],
)
def test_refuses_what_it_does_not_have(key: str, value: Any) -> None:
    with pytest.raises(UnsupportedError, match=f"`{key}` is .*supported is"):
        Args(**SIZES, **{key: value})


@pytest.mark.parametrize(
    ("value", "terms"), [("p2c|c2p", ["p2c", "c2p"]), (" C2P ", ["c2p"]), (["p2c"], ["p2c"]), (None, []), ("", [])]
)
def test_terms(value: Any, terms: list[str]) -> None:
    assert Args(**SIZES, pos_att_type=value).terms == terms


def test_positions_that_only_its_decoder_used_may_be_stored(tmp_path: Path) -> None:
    table = {"deberta.embeddings.position_embeddings.weight": (72, 32)}
    build(open_checkpoint(edit(tmp_path, "deberta-v2-reranker", add=table), facts_of), NumpyOps())


def test_a_convolution_that_config_does_not_name_is_not_left_out(tmp_path: Path) -> None:
    folder = edit(tmp_path, "deberta-v2-classifier", config={"conv_kernel_size": 0})
    with pytest.raises(CheckpointError, match=r"encoder\.conv"):
        build(open_checkpoint(folder, facts_of), NumpyOps())

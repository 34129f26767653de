"""Graphs with other inputs and outputs than the fixtures' graphs have: small ones, made here."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from openvino import opset15 as op

from loaded import make_engine
from oracle.expected import MODELS
from text_embeddings_inference.checkpoint import Checkpoint, OnnxGraph, open_checkpoint
from text_embeddings_inference.errors import CheckpointError, StartError, UnsupportedError
from text_embeddings_inference.models.build import facts_of
from text_embeddings_inference.types import Encoding, Output, Pooling

IDS = np.array([5, 6, 7], np.int32)


def parameter(name: str, *shape: int, dtype: type[np.generic] = np.int64) -> ov.Node:
    made = op.parameter(list(shape), dtype, name=name)
    made.output(0).set_names({name})
    return made


def save(path: Path, inputs: list[ov.Node], **outputs: ov.Node) -> OnnxGraph:
    """In OpenVINO's own format, which the same function reads."""
    results = []
    for name, node in outputs.items():
        node.output(0).set_names({name})
        results.append(op.result(node))
    ov.save_model(ov.Model(results, inputs), path, compress_to_fp16=False)
    return OnnxGraph(path, first_position=2, pad_id=9)


def checkpoint(graph: OnnxGraph, *, pooling: Pooling = Pooling.MAX) -> Checkpoint:
    return replace(open_checkpoint(MODELS / "bert", facts_of), pooling=pooling, onnx=graph)


def run(opened: Checkpoint, *encodings: Encoding, tokens: bool = False) -> Output:
    engine = make_engine(opened)
    try:
        return engine.run(engine.arrange(list(encodings)), tokens=tokens)
    finally:
        engine.close()


def as_vectors(*nodes: ov.Node) -> ov.Node:
    """`[B, S]` nodes side by side: float32 `[B, S, n]`."""
    last = op.constant(np.array([2], np.int64))
    return op.concat([op.unsqueeze(op.convert(node, "f32"), last) for node in nodes], 2)


def test_what_each_input_gets(tmp_path: Path) -> None:
    names = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
    inputs = [parameter(name, -1, -1) for name in names]
    graph = save(tmp_path / "model.xml", inputs, last_hidden_state=as_vectors(*inputs))
    typed = Encoding(IDS, np.array([0, 1, 1], np.int32), 0)
    output = run(checkpoint(graph), typed, Encoding(IDS[:1], None, 0), tokens=True)
    assert output.tokens is not None
    assert output.tokens[0, :3].tolist() == [[5, 1, 0, 2], [6, 1, 1, 3], [7, 1, 1, 4]]
    assert output.tokens[1, :2].tolist() == [[5, 1, 0, 2], [9, 0, 0, 3]], "padding: the graph's own id, and masked"
    assert output.pooled.tolist() == [[7, 1, 1, 4], [5, 1, 0, 2]]


def test_half_precision_and_no_past(tmp_path: Path) -> None:
    ids = parameter("input_ids", -1, -1)
    past = parameter("past_key_values.0.key", -1, 2, -1, 3, dtype=np.float16)
    counted = op.convert(op.gather(op.shape_of(past), op.constant(np.int64(2)), op.constant(np.int64(0))), "i64")
    vectors = op.convert(as_vectors(op.add(ids, counted)), "f16")
    graph = save(tmp_path / "model.xml", [ids, past], token_embeddings=vectors)
    output = run(checkpoint(graph), Encoding(IDS, None, 0), Encoding(IDS, None, 0))
    assert output.pooled.dtype == np.float32
    assert output.pooled.tolist() == [[7], [7]], "no earlier tokens"


def test_a_graph_that_pools(tmp_path: Path) -> None:
    ids = parameter("input_ids", -1, -1)
    vectors = as_vectors(ids)
    graph = save(
        tmp_path / "model.xml",
        [ids],
        token_embeddings=vectors,
        sentence_embedding=op.reduce_sum(vectors, op.constant(np.array([1], np.int64))),
    )
    output = run(checkpoint(replace(graph, pad_id=0)), Encoding(IDS, None, 0), tokens=True)
    assert output.pooled.tolist() == [[18]]
    assert output.tokens is not None
    assert output.tokens[0, :3].tolist() == [[5], [6], [7]]


def test_a_graph_without_vectors_of_tokens(tmp_path: Path) -> None:
    ids = parameter("input_ids", -1, -1)
    pooled = op.reduce_sum(as_vectors(ids), op.constant(np.array([1], np.int64)))
    opened = checkpoint(save(tmp_path / "model.xml", [ids], sentence_embedding=pooled))
    with pytest.raises(ValueError, match="gives no vectors of tokens"):
        run(opened, Encoding(IDS, None, 0), tokens=True)


Maker = Callable[[Path], OnnxGraph]


def unknown_input(path: Path) -> OnnxGraph:
    ids, other = parameter("input_ids", -1, -1), parameter("pixel_values", -1, -1)
    return save(path, [ids, other], last_hidden_state=as_vectors(ids, other))


def unknown_output(path: Path) -> OnnxGraph:
    ids = parameter("input_ids", -1, -1)
    return save(path, [ids], image_embeds=as_vectors(ids))


def wrong_rank(path: Path) -> OnnxGraph:
    ids = parameter("input_ids", -1, -1)
    return save(path, [ids], last_hidden_state=op.convert(ids, "f32"))


def past_of_unknown_size(path: Path) -> OnnxGraph:
    ids, past = parameter("input_ids", -1, -1), parameter("past_key_values.0.key", -1, -1, -1, 3, dtype=np.float32)
    return save(
        path, [ids, past], last_hidden_state=op.add(as_vectors(ids), op.reduce_sum(past, op.constant([0, 1, 2])))
    )


def damaged(path: Path) -> OnnxGraph:
    path = path.with_suffix(".onnx")
    path.write_bytes(b"no graph")
    return OnnxGraph(path, 0, 0)


@pytest.mark.parametrize(
    ("make", "error", "problem"),
    [
        (unknown_input, UnsupportedError, "has an input `pixel_values`, and it is not known what to give it"),
        (unknown_output, UnsupportedError, "has no output `last_hidden_state`; its outputs are image_embeds"),
        (wrong_rank, UnsupportedError, "output `last_hidden_state` is .*, not of 3 axes"),
        (
            past_of_unknown_size,
            UnsupportedError,
            r"`past_key_values\.0\.key` is .*, not \[B, heads, tokens, width\]",
        ),
        (damaged, CheckpointError, "is no ONNX graph that OpenVINO can read"),
    ],
)
def test_graphs_that_can_not_be_run(tmp_path: Path, make: Maker, error: type[StartError], problem: str) -> None:
    opened = checkpoint(make(tmp_path / "model.xml"))
    with pytest.raises(error, match=problem):
        run(opened, Encoding(IDS, None, 0))


def test_a_config_of_another_model(tmp_path: Path) -> None:
    ids = parameter("input_ids", -1, -1)
    opened = checkpoint(save(tmp_path / "model.xml", [ids], logits=as_vectors(ids)), pooling=Pooling.SPLADE)
    with pytest.raises(CheckpointError, match=r"output `logits` is .*, config\.json asks for 900 values"):
        run(opened, Encoding(IDS, None, 0))
    config = json.loads((MODELS / "bert" / "config.json").read_text())
    del config["vocab_size"]
    with pytest.raises(CheckpointError, match=r"`vocab_size` in config\.json of .* is None"):
        run(replace(opened, config=config), Encoding(IDS, None, 0))

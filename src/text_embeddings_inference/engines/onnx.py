"""A model that is an ONNX graph: what it asks for is made from our inputs, what it gives is pooled as any model's.

The graph is known by the names that Optimum and sentence-transformers give its inputs and outputs.
"""

from __future__ import annotations

import logging
import re

import numpy as np

from ..checkpoint import Checkpoint, OnnxGraph
from ..errors import CheckpointError, UnsupportedError
from ..models.build import Network, Results, embedding
from ..ops.openvino import OpenVINOOps
from ..ops.openvino_layout import PaddedLayout
from ..ops.openvino_library import op, ov
from ..ops.openvino_nodes import float32, int64, int64_scalar
from ..ops.spec import Inputs, Ops, Value
from ..types import Kind, Pooling

logger = logging.getLogger(__name__)

HIDDEN_STATES = ("last_hidden_state", "token_embeddings")
VECTOR = "sentence_embedding"
LOGITS = "logits"
INPUTS = ("input_ids", "attention_mask", "token_type_ids", "input_type", "position_ids")
PAST = re.compile(r"past_key_values\.\d+\.(key|value)")


def build_onnx(core: ov.Core, checkpoint: Checkpoint, ops: OpenVINOOps) -> Network:
    """The graph as a network. A vector that the graph pools itself is taken as it is, Dense modules included.

    Raises CheckpointError for a file that can't be read, UnsupportedError for a graph with other inputs or outputs
    than we know.
    """
    onnx, config = checkpoint.onnx, checkpoint.config
    assert onnx is not None
    vocabulary = config.get("vocab_size")
    if type(vocabulary) is not int or vocabulary <= 0:
        problem = f"`vocab_size` in config.json of {checkpoint.folder} is {vocabulary!r}, and an ONNX graph tells none"
        raise CheckpointError(problem)
    graph = _Graph(core, onnx)
    hidden = next((name for name in HIDDEN_STATES if name in graph.names), HIDDEN_STATES[0])

    def classify(ops: Ops, inputs: Inputs) -> Results:
        return Results(graph.outputs(inputs)[LOGITS], None)

    def splade(ops: Ops, inputs: Inputs) -> Results:
        return Results(ops.pool(graph.outputs(inputs)[LOGITS], checkpoint.splade, inputs.layout), None)

    def vector(ops: Ops, inputs: Inputs) -> Results:
        outputs = graph.outputs(inputs)
        return Results(outputs[VECTOR], outputs.get(hidden))

    if checkpoint.kind is not Kind.EMBEDDING:
        return Network(classify, graph.width(LOGITS, rank=2, wanted=len(checkpoint.labels)), vocabulary)
    if checkpoint.pooling is Pooling.SPLADE:
        return Network(splade, graph.width(LOGITS, rank=3, wanted=vocabulary), vocabulary)
    has_more = checkpoint.late is not None or checkpoint.lexical is not None or checkpoint.vectors is not None
    if VECTOR in graph.names and not has_more:
        logger.info("%s gives `%s`: it is taken in place of our own pooling", onnx.file, VECTOR)
        return Network(vector, graph.width(VECTOR, rank=2), vocabulary)
    width = graph.width(hidden, rank=3)
    return embedding(checkpoint, lambda ops, inputs: graph.outputs(inputs)[hidden], width, ops, vocabulary)


class _Graph:
    """The graph, read but not connected. names: of its outputs."""

    def __init__(self, core: ov.Core, onnx: OnnxGraph) -> None:
        self._onnx = onnx
        try:
            self._model = core.read_model(onnx.file)
        except RuntimeError as error:
            raise CheckpointError(f"{onnx.file} is no ONNX graph that OpenVINO can read: {error}") from error
        for parameter in self._model.get_parameters():
            name = parameter.get_friendly_name()
            if name not in INPUTS and not PAST.fullmatch(name):
                raise UnsupportedError(f"{onnx.file} has an input `{name}`, and it is not known what to give it")
        self.names = {name for output in self._model.outputs for name in output.get_names()}

    def width(self, output: str, *, rank: int, wanted: int | None = None) -> int:
        """The last dimension of an output of `rank` axes. Raises UnsupportedError if it has none, or not the `wanted`
        one."""
        if output not in self.names:
            given = ", ".join(sorted(self.names))
            raise UnsupportedError(f"{self._onnx.file} has no output `{output}`; its outputs are {given}")
        shape = self._model.output(output).get_partial_shape()
        what = f"{self._onnx.file}: output `{output}` is {shape}"
        if shape.rank.get_length() != rank or shape[rank - 1].is_dynamic:
            raise UnsupportedError(f"{what}, not of {rank} axes, the last known")
        width = int(shape[rank - 1].get_length())
        if wanted not in (None, width):
            raise CheckpointError(f"{what}, config.json asks for {wanted} values")
        return width

    def outputs(self, inputs: Inputs) -> dict[str, Value]:
        """The outputs in float32, by name, once the graph is connected with what it asks for."""
        for parameter in self._model.get_parameters():
            made = self._make(parameter.get_friendly_name(), parameter, inputs)
            parameter.output(0).replace(op.convert(made, parameter.get_element_type()).output(0))
        return {
            name: Value(op.convert(output.get_node().input_value(0), "f32"))
            for output in self._model.outputs
            for name in output.get_names()
        }

    def _make(self, name: str, parameter: ov.Node, inputs: Inputs) -> ov.Node:
        """What the graph's input `name` gets, `[B, S]` but for the keys and values of earlier tokens."""
        layout = inputs.layout.raw
        assert isinstance(layout, PaddedLayout)
        shape = op.shape_of(inputs.input_ids.raw)
        if name == "input_ids":
            is_token = op.greater(layout.kept, float32(0))
            return op.select(is_token, inputs.input_ids.raw, op.constant(np.int32(self._onnx.pad_id)))
        if name == "attention_mask":
            return layout.seen
        if name in ("token_type_ids", "input_type"):
            return op.broadcast(inputs.type_ids.raw, shape)
        if name == "position_ids":
            return op.broadcast(op.add(layout.indices, op.constant(np.int32(self._onnx.first_position))), shape)
        return self._no_past(parameter, shape)

    def _no_past(self, parameter: ov.Node, shape: ov.Node) -> ov.Node:
        """Keys or values of no tokens, `[B, N, 0, H]`."""
        wanted = parameter.get_partial_shape()
        if wanted.rank.get_length() != 4 or wanted[1].is_dynamic or wanted[3].is_dynamic:
            problem = f"input `{parameter.get_friendly_name()}` is {wanted}, not [B, heads, tokens, width]"
            raise UnsupportedError(f"{self._onnx.file}: {problem}")
        sequences = op.gather(shape, int64(0), int64_scalar(0))
        rest = int64(wanted[1].get_length(), 0, wanted[3].get_length())
        return op.broadcast(float32(0), op.concat([sequences, rest], 0))

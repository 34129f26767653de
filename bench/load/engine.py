"""The engine alone: the library in this process, without HTTP, on the texts that the server gets."""

from __future__ import annotations

import json
import time

from bench.load.texts import Load
from text_embeddings_inference import load


class Engine:
    """A model loaded as the server loads it. The texts of `load` go to it all in one call."""

    def __init__(self, model: str, engine: str, dtype: str, traffic: Load) -> None:
        self._model = load(model, engine=engine, dtype=dtype)
        self._texts: list[str] = [json.loads(body)["inputs"] for body in traffic.bodies[:CALL]]
        self._tokens = sum(traffic.tokens[:CALL])

    def tokens_per_second(self, seconds: float) -> float:
        """Embeds the texts again and again for about `seconds`."""
        calls = 0
        start = time.perf_counter()
        while time.perf_counter() - start < seconds:
            self._model.embed(self._texts)
            calls += 1
        return calls * self._tokens / (time.perf_counter() - start)


CALL = 256
"""Texts in one call: more than 32 connections can offer a server, so nothing keeps the engine from its best."""

"""A served model for as long as a test runs, and its metrics in a form that can be compared."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from tests.fakes import PATIENCE, FakeEngine, fake_info, fake_model
from text_embeddings_inference.inference.model import Model
from text_embeddings_inference.server.accounting import Accounting
from text_embeddings_inference.settings import Limits
from text_embeddings_inference.types import ModelInfo

T = TypeVar("T")


@dataclass(frozen=True)
class Served:
    """A model and the engine under it."""

    model: Model
    engine: FakeEngine

    def metrics(self, *names: str) -> dict[str, float]:
        """The values of these metrics, or of all that have one, bucket counts left out."""
        lines = self.model.metrics.render().decode().splitlines()
        values = {
            name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[:1] not in ("", "#"))
        }
        return {name: value for name, value in values.items() if (name in names if names else "_bucket" not in name)}

    def failures(self) -> dict[str, float]:
        """`te_request_failure` by its label."""
        prefix = 'te_request_failure{err="'
        return {name[len(prefix) : -2]: n for name, n in self.metrics().items() if name.startswith(prefix)}


class Counting:
    """A model whose failures are counted as a server counts them."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._accounting = Accounting(model)

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._model, name)
        if not asyncio.iscoroutinefunction(attribute):
            return attribute
        return lambda *arguments, **options: self._accounting.logged(name, attribute(*arguments, **options))


@asynccontextmanager
async def serving(
    engine: FakeEngine | None = None, info: ModelInfo | None = None, limits: Limits | None = None, **arguments: Any
) -> AsyncIterator[Served]:
    info = info or fake_info()
    engine = engine or FakeEngine(dimensions=info.dimensions)
    model = fake_model(engine, info=info, limits=limits, **arguments)
    try:
        yield Served(cast(Model, Counting(model)), engine)
    finally:
        engine.let()
        await model.close()


def run(test: Coroutine[Any, Any, T]) -> T:
    """Runs a test's coroutine, but not for ever."""
    return asyncio.run(asyncio.wait_for(test, PATIENCE))


async def started(coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task that got as far as it can without the engine: a short request is in the queue."""
    task = asyncio.create_task(coroutine)
    await asyncio.sleep(0)
    return task

"""Clients that send nothing, take nothing, or come in crowds: they hurt nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import closing
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.fakes import PATIENCE, FakeEngine, fake_info, fake_model
from tests.server.grpc.calling import Stub, calling, run, status
from tests.server.grpc.http2 import Deaf
from tests.server.grpc.test_public import Status, reflect
from text_embeddings_inference.server.grpc import limits, public, service
from text_embeddings_inference.server.grpc import rerank as rerank_calls
from text_embeddings_inference.server.grpc import tei_pb2 as tei
from text_embeddings_inference.server.grpc.statuses import RefusedError
from text_embeddings_inference.server.http.memory_budget import MemoryBudget, UnsentAnswers
from text_embeddings_inference.types import Kind

KEY = (("authorization", "Bearer key"),)
EMBED = tei.EmbedRequest(inputs="1")


async def silence() -> AsyncIterator[bytes]:
    """A client that sends nothing and does not hang up."""
    await asyncio.Event().wait()
    yield b""


async def one_and_silence() -> AsyncIterator[tei.EmbedRequest]:
    yield EMBED
    await asyncio.Event().wait()


def silent(stub: Stub, path: str, **options: Any) -> Any:
    """A call that never sends its message; its answer is awaited by `read`."""
    return stub.channel.stream_stream(path)(silence(), timeout=PATIENCE, **options)


def watch(stub: Stub) -> Any:
    return health_pb2_grpc.HealthStub(stub.channel).Watch(health_pb2.HealthCheckRequest())


async def check(stub: Stub, service: str = "") -> str:
    answer = await health_pb2_grpc.HealthStub(stub.channel).Check(health_pb2.HealthCheckRequest(service=service))
    return str(Status.Name(answer.status))


# --- calls without a key ----------------------------------------------------------------------------------------------


def test_those_who_watch_take_no_place_of_calls() -> None:
    async def test() -> None:
        async with calling(api_key=("key",), max_connections=3) as stub:
            watches = [watch(stub) for _ in range(10)]
            for each in watches:
                assert (await each.read()).status == Status.SERVING
            assert list((await stub("Embed.Embed", EMBED, metadata=KEY)).embeddings)
            assert await check(stub) == "SERVING"
            await reflect(stub, list_services="")

    run(test())


def test_one_more_who_watches_ends_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(public, "MAX_WATCHES", 2)

    async def test() -> None:
        async with calling() as stub:
            watches = []
            for _ in range(3):
                watches.append(watch(stub))
                assert (await watches[-1].read()).status == Status.SERVING
            assert await status(watches[0].read()) == ("RESOURCE_EXHAUSTED", "too many calls of this kind")
            assert not watches[1].done()
            assert not watches[2].done()

    run(test())


def test_half_a_call_without_a_key_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(public, "REQUEST_S", 0.01)
    monkeypatch.setattr(public, "REFLECTION_S", 0.01)

    async def test() -> None:
        async with calling() as stub:
            for method in (
                "grpc.health.v1.Health/Check",
                "grpc.health.v1.Health/Watch",
                "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            ):
                assert (await status(silent(stub, f"/{method}").read()))[0] == "DEADLINE_EXCEEDED"

    run(test())


def test_who_watches_and_reads_nothing_holds_up_no_other() -> None:
    engine = FakeEngine()

    async def test() -> None:
        async with calling(fake_model(engine)) as stub:
            request = health_pb2.HealthCheckRequest(service="tei.v1.Embed").SerializeToString()
            with closing(await Deaf.connect(stub.server.port)) as deaf:
                deaf.call("/grpc.health.v1.Health/Watch", request)
                assert await check(stub, "tei.v1.Embed") == "SERVING"
                engine.bad_ids = {0, 7}  # 0: what a health check runs
                await status(stub("Embed.Embed", tei.EmbedRequest(inputs="7")))
                assert await check(stub, "tei.v1.Embed") == "NOT_SERVING"

    run(test())


@pytest.mark.parametrize("path", ["/tei.v1.Embed/Embed", "/tei.v1.Embed/EmbedStream", "/tei.v1.Rerank/RerankStream"])
def test_the_key_is_checked_before_there_is_a_message(path: str) -> None:
    async def test() -> None:
        async with calling(api_key=("key",)) as stub:
            assert await status(silent(stub, path).read()) == ("UNAUTHENTICATED", "No valid auth token")
            assert await status(silent(stub, "/tei.v1.Embed/Nothing").read()) == ("UNIMPLEMENTED", "")

    run(test())


@pytest.mark.parametrize(
    ("keys", "code"),
    [(("key", "key"), "OK"), (("key", "other"), "UNAUTHENTICATED"), (("other", "key"), "UNAUTHENTICATED")],
)
def test_two_keys(keys: tuple[str, ...], code: str) -> None:
    async def test() -> None:
        async with calling(api_key=("key",)) as stub:
            metadata = [("authorization", f"Bearer {key}") for key in keys]
            call = stub("Info.Info", tei.InfoRequest(), metadata=metadata)
            assert (await call.code()).name == code

    run(test())


# --- calls with a key -------------------------------------------------------------------------------------------------


def test_one_call_too_many() -> None:
    async def test() -> None:
        async with calling(max_connections=2) as stub:
            held = [stub.stream("Embed.EmbedStream", one_and_silence()) for _ in range(2)]
            for call in held:
                assert (await call.read()).embeddings
            assert await status(stub("Info.Info", tei.InfoRequest())) == (
                "RESOURCE_EXHAUSTED",
                "there are 2 calls already",
            )
            assert await check(stub) == "SERVING"
            for call in held:
                call.cancel()

    run(test())


def test_messages_that_do_not_come() -> None:
    async def test() -> None:
        async with calling(client_timeout=1, keep_alive_timeout=1) as stub:
            unary = silent(stub, "/tei.v1.Embed/Embed")
            stream = silent(stub, "/tei.v1.Embed/EmbedStream")
            for call in (unary, stream):
                assert await status(call.read()) == ("DEADLINE_EXCEEDED", "no message came within 1 s")

    run(test())


def test_a_call_without_a_message() -> None:
    async def test() -> None:
        async with calling() as stub:
            call = stub.channel.stream_stream("/tei.v1.Embed/Embed")(iter([]))
            assert await status(call.read()) == ("INTERNAL", "Missing request message.")

    run(test())


def test_messages_that_are_too_many_bytes_together() -> None:
    engine = FakeEngine()

    async def test() -> None:
        async with calling(fake_model(engine), max_queued_bytes=100) as stub:
            engine.hold()
            first = stub("Embed.Embed", tei.EmbedRequest(inputs="1 " * 45, truncate=True))
            await asyncio.to_thread(engine.wait_for, 1)
            assert await status(stub("Embed.Embed", tei.EmbedRequest(inputs="1 " * 9))) == (
                "RESOURCE_EXHAUSTED",
                "Model is overloaded",
            )
            engine.let()
            assert list((await first).embeddings)
            assert list((await stub("Embed.Embed", tei.EmbedRequest(inputs="1 " * 9))).embeddings)

    run(test())


def rerank(count: int, *, return_text: bool) -> list[Any]:
    return [tei.RerankStreamRequest(query="1", text="2 3 4 5", return_text=return_text) for _ in range(count)]


def test_a_rerank_stream_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rerank_calls, "MAX_ITEMS", 20)
    monkeypatch.setattr(rerank_calls, "MAX_RETURNED", 70)

    async def test() -> None:
        async with calling(fake_model(info=fake_info(Kind.RERANKER))) as stub:

            def call(items: list[Any]) -> Any:
                return stub.collect("Rerank.RerankStream", iter(items))

            assert len((await call(rerank(20, return_text=False))).ranks) == 20
            assert len((await call(rerank(10, return_text=True))).ranks) == 10
            code, message = await status(call(rerank(21, return_text=False)))
            assert (code, message) == ("INVALID_ARGUMENT", "the stream has more than 20 texts")
            code, message = await status(call(rerank(11, return_text=True)))
            assert (code, message) == (
                "INVALID_ARGUMENT",
                "the texts of a stream with `return_text` may have 70 bytes together",
            )

    run(test())


def test_texts_to_give_back_count_as_queued_bytes() -> None:
    async def test() -> None:
        async with calling(fake_model(info=fake_info(Kind.RERANKER)), max_queued_bytes=30) as stub:
            found = await status(stub.collect("Rerank.RerankStream", iter(rerank(5, return_text=True))))
            assert found == ("RESOURCE_EXHAUSTED", "Model is overloaded")
            assert len((await stub.collect("Rerank.RerankStream", iter(rerank(5, return_text=False)))).ranks) == 5

    run(test())


# --- answers that nobody takes ----------------------------------------------------------------------------------------

WIDE = 1 << 10
"""Dimensions: an answer has 4 KiB."""


def test_a_stream_is_read_no_further_than_its_answers_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "MAX_STREAM", 1 << 16)
    engine = FakeEngine(dimensions=WIDE)

    async def test() -> None:
        async with calling(fake_model(engine, info=fake_info(dimensions=WIDE))) as stub:
            with closing(await Deaf.connect(stub.server.port)) as deaf:
                deaf.call("/tei.v1.Embed/EmbedStream", *[EMBED.SerializeToString()] * 500)
                await asyncio.to_thread(engine.wait_for, 1)
                for _ in range(50):
                    await stub("Embed.Embed", tei.EmbedRequest(inputs="2"))
            assert sum(batch.inputs.count([1]) for batch in engine.batches) < 30

    run(test())


@pytest.mark.parametrize("method", ["Embed", "EmbedStream"])
def test_who_takes_no_answer_loses_the_connection(method: str) -> None:
    async def test() -> None:
        async with calling(client_timeout=1) as stub:
            with closing(await Deaf.connect(stub.server.port)) as deaf:
                deaf.call(f"/tei.v1.Embed/{method}", EMBED.SerializeToString())
                await deaf.ended()
            assert list((await stub("Embed.Embed", EMBED)).embeddings)

    run(test())


def test_with_too_many_bytes_the_oldest_lose_their_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "GRACE_S", 0)
    model = fake_model(FakeEngine(dimensions=WIDE), info=fake_info(dimensions=WIDE))

    async def test() -> None:
        async with calling(model, max_queued_bytes=6_000) as stub:
            first, second = await Deaf.connect(stub.server.port), await Deaf.connect(stub.server.port)
            with closing(first), closing(second):
                first.call("/tei.v1.Embed/Embed", EMBED.SerializeToString())
                second.call("/tei.v1.Embed/Embed", EMBED.SerializeToString())
                await asyncio.wait(
                    [asyncio.ensure_future(each.ended()) for each in (first, second)], return_when="FIRST_COMPLETED"
                )

    run(test())


def test_bytes_of_other_ports_count_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bodies and answers of HTTP: its client that has read nothing for longest makes place."""
    monkeypatch.setattr(limits, "GRACE_S", 0)
    budget, unsent, aborted = MemoryBudget(100), UnsentAnswers(6_000), asyncio.Event()
    model = fake_model(FakeEngine(dimensions=WIDE), info=fake_info(dimensions=WIDE))

    class Slow:
        def abort(self) -> None:
            aborted.set()

    async def test() -> None:
        async with calling(model, budget=budget, unsent=unsent) as stub:
            unsent.hold(Slow(), 4_000)
            with closing(await Deaf.connect(stub.server.port)) as deaf:
                deaf.call("/tei.v1.Embed/Embed", EMBED.SerializeToString())
                await aborted.wait()
            budget.take(99)
            assert (await status(stub("Embed.Embed", EMBED)))[0] == "RESOURCE_EXHAUSTED"

    run(test())


# --- pauses -----------------------------------------------------------------------------------------------------------


def test_time_in_which_the_process_was_stopped_does_not_count() -> None:
    """The clock of the loop jumps, as after a SIGSTOP that is longer than the time-out."""
    jumped = 0.0

    async def test() -> None:
        nonlocal jumped
        loop, waits = asyncio.get_running_loop(), limits.Waits()
        time, message = loop.time, asyncio.Event()
        loop.time = lambda: time() + jumped  # type: ignore[method-assign]

        async def wait() -> None:
            async with waits.wait(60):
                await message.wait()

        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0)
        jumped = 100
        for _ in range(10):
            await asyncio.sleep(0)
        assert not waiting.done()
        jumped += 60.1
        with pytest.raises(RefusedError, match="no message came within 60 s"):
            await waiting

    asyncio.run(test())  # not `run`, whose own time-out goes by this clock


# --- the end ----------------------------------------------------------------------------------------------------------


def test_calls_that_have_no_end_do_not_hold_up_the_servers() -> None:
    """It is waited for within `run`'s time. What was read of a stream is answered."""
    engine = FakeEngine()

    async def test() -> None:
        async with calling(fake_model(engine)) as stub:
            seen = watch(stub)
            assert (await seen.read()).status == Status.SERVING
            engine.hold()
            idle = stub.stream("Embed.EmbedStream", one_and_silence())
            reflection = silent(stub, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
            await asyncio.to_thread(engine.wait_for, 1)
            stopping = asyncio.create_task(stub.server.stop())
            assert (await seen.read()).status == Status.NOT_SERVING
            assert await seen.read() is grpc.aio.EOF
            engine.let()
            assert (await idle.read()).embeddings
            for call in (idle, reflection):
                assert await status(call.read()) == ("UNAVAILABLE", "the server is shutting down")
            await stopping

    run(test())

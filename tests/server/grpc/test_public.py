"""Health and reflection, and the descriptors that it tells of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_tools import protoc

from tests.fakes import FakeEngine, fake_info, fake_model
from tests.server.grpc.calling import calling, run, status
from text_embeddings_inference.inference.model import Model
from text_embeddings_inference.server.grpc import tei_pb2 as tei
from text_embeddings_inference.types import Kind

SERVICES = ["tei.v1.Info", "tei.v1.Embed", "tei.v1.Predict", "tei.v1.Rerank", "tei.v1.Tokenize"]
Status = health_pb2.HealthCheckResponse.ServingStatus


def healths(model: Model | None = None) -> dict[str, str]:
    async def test() -> dict[str, str]:
        async with calling(model, api_key=("key",)) as stub:  # health needs no key
            health = health_pb2_grpc.HealthStub(stub.channel)
            found = {}
            for service in ("", *SERVICES):
                answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
                found[service] = Status.Name(answer.status)
            return found

    return run(test())


@pytest.mark.parametrize(
    ("kind", "serving"),
    [
        (Kind.EMBEDDING, {"tei.v1.Embed"}),
        (Kind.CLASSIFIER, {"tei.v1.Predict"}),
        (Kind.RERANKER, {"tei.v1.Predict", "tei.v1.Rerank"}),
    ],
)
def test_health_by_kind(kind: Kind, serving: set[str]) -> None:
    always = {"", "tei.v1.Info", "tei.v1.Tokenize"}
    found = healths(fake_model(info=fake_info(kind)))
    assert {service for service, state in found.items() if state == "SERVING"} == always | serving
    assert set(found.values()) == {"SERVING", "NOT_SERVING"}


@pytest.mark.parametrize(
    "path",
    [
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Watch",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ],
)
def test_messages_that_are_none(path: str, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> tuple[str, str]:
        async with calling() as stub:
            return await status(stub.channel.unary_unary(path)(b"\xff\xff"))

    code, message = run(test())
    assert code == "INTERNAL"
    assert message.startswith("failed to decode Protobuf message")
    assert caplog.messages == []


def test_health_of_what_is_no_service() -> None:
    async def test() -> tuple[str, str]:
        async with calling() as stub:
            health = health_pb2_grpc.HealthStub(stub.channel)
            return await status(health.Check(health_pb2.HealthCheckRequest(service="grpc.health.v1.Health")))

    assert run(test()) == ("NOT_FOUND", "service not registered")


def test_health_follows_the_engine() -> None:
    engine = FakeEngine()

    async def test() -> None:
        async with calling(fake_model(engine)) as stub:
            watch = health_pb2_grpc.HealthStub(stub.channel).Watch(
                health_pb2.HealthCheckRequest(service="tei.v1.Embed")
            )
            assert (await watch.read()).status == Status.SERVING
            engine.bad_ids = {0, 7}  # 0: what a health check runs
            await status(stub("Embed.Embed", tei.EmbedRequest(inputs="7")))
            assert (await watch.read()).status == Status.NOT_SERVING
            engine.bad_ids = set()
            await stub("Embed.Embed", tei.EmbedRequest(inputs="7"))
            assert (await watch.read()).status == Status.SERVING
            watch.cancel()

    run(test())


async def reflect(stub: Any, **request: Any) -> Any:
    asked = reflection_pb2.ServerReflectionRequest(**request)
    call = reflection_pb2_grpc.ServerReflectionStub(stub.channel).ServerReflectionInfo(iter([asked]))
    return await call.read()


def test_reflection() -> None:
    async def test() -> None:
        async with calling() as stub:
            listed = await reflect(stub, list_services="")
            names = [service.name for service in listed.list_services_response.service]
            assert sorted(names) == sorted([*SERVICES, "grpc.reflection.v1alpha.ServerReflection"])
            answer = await reflect(stub, file_containing_symbol="tei.v1.Embed")
            [content] = answer.file_descriptor_response.file_descriptor_proto
            file = descriptor_pb2.FileDescriptorProto.FromString(content)
            assert (file.name, file.package, list(file.dependency)) == ("tei.proto", "tei.v1", [])

    run(test())


def test_the_api_is_pinned() -> None:
    """To renew: print(described()) > tests/snapshots/grpc.txt, after a look at what changed."""
    assert described() == (Path(__file__).parents[2] / "snapshots" / "grpc.txt").read_text()


def described() -> str:
    """Every service, message and enum on lines of their own."""
    lines = []
    for service in tei.DESCRIPTOR.services_by_name.values():
        for method in service.methods:
            proto = descriptor_pb2.MethodDescriptorProto()
            method.CopyToProto(proto)
            streams = f"{'stream ' * proto.client_streaming}{method.input_type.name}"
            answer = f"{'stream ' * proto.server_streaming}{method.output_type.name}"
            lines.append(f"{service.full_name}/{method.name}({streams}) {answer}")
    for message in tei.DESCRIPTOR.message_types_by_name.values():
        proto = descriptor_pb2.DescriptorProto()
        message.CopyToProto(proto)
        for field in proto.field:
            kind = field.type_name.rpartition(".")[2] or descriptor_pb2.FieldDescriptorProto.Type.Name(field.type)
            label = "?" if field.proto3_optional else "*" if field.label == field.LABEL_REPEATED else ""
            lines.append(f"{proto.name}.{field.name} = {field.number} {kind.removeprefix('TYPE_').lower()}{label}")
    for enum in tei.DESCRIPTOR.enum_types_by_name.values():
        lines += [f"{enum.name}.{value.name} = {value.number}" for value in enum.values]
    return "\n".join(lines) + "\n"


def test_generated_modules_are_current(tmp_path: Path) -> None:
    """To renew: make proto."""
    source = Path(tei.__file__).parent
    arguments = ["protoc", f"-I{source}", f"--python_out={tmp_path}", f"--pyi_out={tmp_path}", "tei.proto"]
    assert protoc.main(arguments) == 0
    for name in ("tei_pb2.py", "tei_pb2.pyi"):
        assert (tmp_path / name).read_text() == (source / name).read_text(), f"{name} is not what make proto writes"

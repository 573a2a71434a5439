"""Reflection under the name that clients of today ask for."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from tests.integration.serving.grpc.test_server import serving

FIELD = descriptor_pb2.FieldDescriptorProto
PATH = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"


def v1_messages() -> tuple[Any, Any]:
    """Request and response of v1, typed from the public reflection.proto, as far as used here."""
    file = descriptor_pb2.FileDescriptorProto(
        name="v1.proto", package="grpc.reflection.v1", syntax="proto3"
    )

    def message(name: str, *fields: tuple[str, int, int, str]) -> None:
        one = file.message_type.add(name=name)
        if name == "ServerReflectionRequest":
            one.oneof_decl.add(name="message_request")
        for field, number, kind, type_name in fields:
            is_repeated = field in {"service", "file_descriptor_proto"}
            made = one.field.add(
                name=field,
                number=number,
                type=kind,  # type: ignore[arg-type]
                label=FIELD.LABEL_REPEATED if is_repeated else FIELD.LABEL_OPTIONAL,
            )
            if name == "ServerReflectionRequest" and field != "host":
                made.oneof_index = 0  # so that an empty text is sent
            if type_name:
                made.type_name = f".grpc.reflection.v1.{type_name}"

    text, part = FIELD.TYPE_STRING, FIELD.TYPE_MESSAGE
    message(
        "ServerReflectionRequest",
        ("host", 1, text, ""),
        ("file_by_filename", 3, text, ""),
        ("file_containing_symbol", 4, text, ""),
        ("list_services", 7, text, ""),
    )
    message("FileDescriptorResponse", ("file_descriptor_proto", 1, FIELD.TYPE_BYTES, ""))
    message("ServiceResponse", ("name", 1, text, ""))
    message("ListServiceResponse", ("service", 1, part, "ServiceResponse"))
    message(
        "ErrorResponse",
        ("error_code", 1, FIELD.TYPE_INT32, ""),
        ("error_message", 2, text, ""),
    )
    message(
        "ServerReflectionResponse",
        ("valid_host", 1, text, ""),
        ("original_request", 2, part, "ServerReflectionRequest"),
        ("file_descriptor_response", 4, part, "FileDescriptorResponse"),
        ("list_services_response", 6, part, "ListServiceResponse"),
        ("error_response", 7, part, "ErrorResponse"),
    )
    pool = DescriptorPool()
    pool.Add(file)
    return tuple(
        GetMessageClass(pool.FindMessageTypeByName(f"grpc.reflection.v1.ServerReflection{name}"))
        for name in ("Request", "Response")
    )  # type: ignore[return-value]


async def test_client_of_reflection_v1_lists_and_describes_every_service(database_url: str) -> None:
    request_type, response_type = v1_messages()
    async with serving(database_url) as address, grpc.aio.insecure_channel(address) as channel:
        ask = channel.stream_stream(
            PATH,
            request_serializer=request_type.SerializeToString,
            response_deserializer=response_type.FromString,
        )
        call = ask(timeout=20)

        async def asked(**request: str) -> Any:
            await call.write(request_type(**request))
            return await call.read()

        listed = (await asked(list_services="")).list_services_response.service
        names = {one.name for one in listed}
        assert names == {
            "candelabra.v1.MarketData",
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
        }
        for name in names:
            pool = DescriptorPool()
            found = (await asked(file_containing_symbol=name)).file_descriptor_response
            files = {
                file.name: file
                for file in map(
                    descriptor_pb2.FileDescriptorProto.FromString, found.file_descriptor_proto
                )
            }
            for missing in [
                one for file in files.values() for one in file.dependency if one not in files
            ]:
                answer = (await asked(file_by_filename=missing)).file_descriptor_response
                for raw in answer.file_descriptor_proto:
                    file = descriptor_pb2.FileDescriptorProto.FromString(raw)
                    pool.Add(file)
            for file in sorted(files.values(), key=lambda one: len(one.dependency)):
                pool.Add(file)
            assert pool.FindServiceByName(name).methods, name
        unknown = await asked(file_containing_symbol="no.such.Service")
        assert unknown.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
        assert unknown.original_request.file_containing_symbol == "no.such.Service"
        await call.done_writing()

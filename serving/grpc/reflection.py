"""gRPC reflection under both of its names: v1, and v1alpha for older clients.

grpcio-reflection serves v1alpha only. The messages of both versions are the same bytes, so v1 is
the same service under another name, with another description.
"""

from __future__ import annotations

from collections.abc import Sequence

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_reflection.v1alpha import reflection, reflection_pb2

OLD_PACKAGE, PACKAGE = "grpc.reflection.v1alpha", "grpc.reflection.v1"
SERVICE_NAME = f"{PACKAGE}.ServerReflection"
METHOD = "ServerReflectionInfo"


def enable_reflection(names: Sequence[str], server: grpc.aio.Server) -> None:
    """Let clients ask the server for its services and messages.

    Args:
        names: of the other services.
    """
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(_description().SerializeToString())
    all_names = (*names, SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(all_names, server)
    servicer = reflection.aio.ReflectionServicer(all_names)
    call = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(SERVICE_NAME, {METHOD: call}),)
    )


def _description() -> descriptor_pb2.FileDescriptorProto:
    """The .proto file of v1: that of v1alpha with the other package."""
    found = descriptor_pb2.FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(found)
    found.name = "grpc/reflection/v1/reflection.proto"
    found.package = PACKAGE
    found.ClearField("options")  # names of generated code, and that v1alpha is deprecated
    fields = [field for message in found.message_type for field in message.field]
    for field in fields:
        if field.type_name:
            field.type_name = field.type_name.replace(f".{OLD_PACKAGE}.", f".{PACKAGE}.")
    for service in found.service:
        for method in service.method:
            method.input_type = method.input_type.replace(f".{OLD_PACKAGE}.", f".{PACKAGE}.")
            method.output_type = method.output_type.replace(f".{OLD_PACKAGE}.", f".{PACKAGE}.")
    return found

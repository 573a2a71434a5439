"""Makes gRPC handlers that wrap others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

Handler = Any
"""``grpc.RpcMethodHandler``, which has no types."""


def handler_like(handler: Handler, call: Callable[..., Any]) -> Handler:
    """Return a handler of the same kind that calls another function."""
    make = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[handler.request_streaming, handler.response_streaming]
    return make(
        call,
        request_deserializer=handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )

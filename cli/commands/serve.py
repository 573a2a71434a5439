"""``candelabra serve``."""

from __future__ import annotations

from typing import Annotated

import typer

from include.config import GRPC_PORT


def serve(
    streamer: Annotated[
        str,
        typer.Option(
            help="gRPC address (host:port) of a streamer or another server. "
            f"[NATS_URL, or 127.0.0.1:{GRPC_PORT}]"
        ),
    ] = "",
    port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="Port of this server's gRPC. [GRPC_PORT]")
    ] = None,
) -> None:
    """Serve a streamer's data from another process, until SIGTERM or Ctrl-C.

    With NATS_URL, serve what all streamers publish there; --streamer takes precedence.
    """
    from include.config import load_settings
    from include.logs import configure_logging
    from serving.process import run

    settings = load_settings(**({} if port is None else {"grpc_port": port}))
    configure_logging(settings.log_level, settings.log_format)
    run(settings, streamer or ("" if settings.nats_url else f"127.0.0.1:{GRPC_PORT}"))

"""Settings of what is served: by the streamer about itself, and to readers of candles.

A part of ``include.config``, which alone reads the environment.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, field_validator
from pydantic_settings import BaseSettings, NoDecode

STREAMER_HTTP_PORT = 9464
"""The usual port of exporters of metrics."""

API_PORT = 8_300
"""Default port of REST; 8080 is Airflow's."""

GRPC_PORT = 50_051
"""The usual port of gRPC."""


TIMEFRAME_NAMES = (
    "1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d", "1w", "1M",
)  # fmt: skip
"""The timeframes of ``include.domain.timeframes``, repeated because settings import no domain."""


def _split_commas(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


CommaSeparated = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_commas)]


class ServingSettings(BaseSettings):
    """Addresses, certificates and limits; a base of ``include.config.Settings``."""

    # --- health and metrics of the streamer
    streamer_http: bool = Field(default=True, description="Serve /metrics, /health and /ready.")
    streamer_http_host: str = Field(default="127.0.0.1", description="Where they are served.")
    streamer_http_port: int | None = Field(
        default=None,
        ge=0,
        le=65_535,
        description="0: the system chooses; empty: 9464, or a free port if taken.",
    )

    # --- serving
    api: bool = Field(default=True, description="Serve REST.")
    api_host: str = Field(default="127.0.0.1", description="Where REST is served.")
    api_port: int | None = Field(
        default=None,
        ge=0,
        le=65_535,
        description="0: the system chooses; empty: 8300, or a free port if taken.",
    )
    api_allowed_origins: CommaSeparated = Field(
        default=(), description="Origins of other sites whose pages may send requests (CORS)."
    )
    api_requests_per_minute: int = Field(
        default=3_000, ge=1, le=10_000_000, description="Requests that a client may make."
    )
    grpc: bool = Field(default=True, description="Serve candles by gRPC.")
    grpc_host: str = Field(default="127.0.0.1", description="Where gRPC is served.")
    grpc_port: int | None = Field(
        default=None,
        ge=0,
        le=65_535,
        description="0: the system chooses; empty: 50051, or a free port if taken.",
    )
    grpc_tls_cert_file: Path | None = Field(
        default=None, description="PEM file of the certificate; with it gRPC accepts TLS only."
    )
    grpc_tls_key_file: Path | None = Field(default=None, description="PEM file of its private key.")
    grpc_trusted_file: Path | None = Field(
        default=None,
        description=(
            "PEM file of certificates that `candelabra serve` trusts; with it, it uses TLS."
        ),
    )

    # --- NATS
    nats_url: str = Field(
        default="",
        description="Publish candles to this NATS; servers subscribe there. Several by comma.",
    )
    nats_trusted_file: Path | None = Field(
        default=None, description="PEM file of who signed the certificate of NATS."
    )
    nats_timeframes: CommaSeparated = Field(
        default=(), description="Timeframes that are published beside 1m."
    )

    # --- accounts
    auth_required: bool = Field(default=False, description="Require a login or a token.")
    session_hours: int = Field(default=168, ge=1, le=8_760, description="How long a login lasts.")
    streamer_token: str = Field(
        default="", description="API token that `candelabra serve` asks the streamer with."
    )

    @field_validator("streamer_http_host", "grpc_host", "api_host")
    @classmethod
    def _host(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9._:-]+", value) or "//" in value:
            raise ValueError("should be an address or a host name, such as 127.0.0.1")
        return value

    @field_validator("streamer_token")
    @classmethod
    def _token(cls, value: str) -> str:
        if value and not re.fullmatch(r"cdl_[A-Za-z0-9_-]{43}", value):
            raise ValueError("should be what `candelabra user token add` showed: cdl_…")
        return value

    @field_validator("nats_url")
    @classmethod
    def _nats(cls, value: str) -> str:
        for one in value.split(",") if value else ():
            if not _is_nats(one):
                raise ValueError(
                    "should be nats://host:4222 or tls://host:4222, several by comma; "
                    "user:password@ before the host where NATS asks for it"
                )
        return value

    @field_validator("nats_timeframes")
    @classmethod
    def _timeframes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := sorted(set(value) - set(TIMEFRAME_NAMES)):
            raise ValueError(
                f"{', '.join(unknown)} is none; should be of {' '.join(TIMEFRAME_NAMES)}, by comma"
            )
        return value

    @field_validator("api_allowed_origins")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for one in value:
            if one != "*" and not re.fullmatch(r"https?://[A-Za-z0-9._\[\]:-]+", one):
                raise ValueError("should be origins such as https://charts.example.org, or *")
        return value

    @field_validator(
        "grpc_tls_cert_file", "grpc_tls_key_file", "grpc_trusted_file", "nats_trusted_file"
    )
    @classmethod
    def _pem(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_file():
            raise ValueError("should be a file in PEM format; there is none")
        return value


def _is_nats(url: str) -> bool:
    """Whether a URL leads to a NATS server."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises where it is no number
    except ValueError:
        return False
    return parts.scheme in {"nats", "tls"} and bool(parts.hostname) and parts.path in {"", "/"}

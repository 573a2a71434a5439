"""The only reader of the environment. Read once, at an entry point, never at import.

Every field is an environment variable of the same name in capitals; ``.env.example`` lists
them and ``docs/configuration.md`` explains them.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from include.errors import PermanentError, WrongValueError

STREAMER_HTTP_PORT = 9464
"""The usual port of exporters of metrics."""

API_PORT = 8_300
"""Default port of REST; 8080 is Airflow's."""

GRPC_PORT = 50_051
"""The usual port of gRPC."""


TIMEFRAME_NAMES = (
    "1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d", "1w", "1M",
)  # fmt: skip
"""Those of ``include.domain.timeframes``: settings do not import the domain."""


def _split_commas(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


CommaSeparated = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_commas)]


def _scheme_of(url: str) -> str:
    """Scheme of a URL; empty if host and port cannot be parsed."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises where it is no number
    except ValueError:
        return ""
    return parts.scheme


def _is_nats(url: str) -> bool:
    """Whether a URL leads to a NATS server."""
    parts = urlsplit(url) if _scheme_of(url) in {"nats", "tls"} else None
    return parts is not None and bool(parts.hostname) and parts.path in {"", "/"}


LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]
LogFormat = Literal["auto", "json", "console"]

_LIVE_HOSTS = {
    "binance_ws_url": "wss://data-stream.binance.vision",
    "binance_rest_url": "https://data-api.binance.vision",
    "binance_um_ws_url": "wss://fstream.binance.com",
    "binance_um_rest_url": "https://fapi.binance.com",
    "binance_cm_ws_url": "wss://dstream.binance.com",
    "binance_cm_rest_url": "https://dapi.binance.com",
}
_TESTNET_HOSTS = {
    "binance_ws_url": "wss://stream.testnet.binance.vision",
    "binance_rest_url": "https://testnet.binance.vision",
    "binance_um_ws_url": "wss://fstream.binancefuture.com",
    "binance_um_rest_url": "https://testnet.binancefuture.com",
    "binance_cm_ws_url": "wss://dstream.binancefuture.com",
    "binance_cm_rest_url": "https://testnet.binancefuture.com",
}


class Settings(BaseSettings):
    """All settings of Candelabra, validated.

    Durations carry their unit in the name. URLs of databases are libpq URLs
    (``postgresql://user:password@host:port/database``).
    """

    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore", frozen=True)

    # --- databases
    database_url: str = Field(
        default="", description="Owner of the database: runs migrations; fallback of the others."
    )
    streamer_database_url: str = Field(default="", description="Role candelabra_streamer.")
    jobs_database_url: str = Field(default="", description="Role candelabra_jobs.")
    dbt_database_url: str = Field(default="", description="Role candelabra_dbt.")
    reader_database_url: str = Field(default="", description="Role candelabra_reader.")
    serving_database_url: str = Field(default="", description="Role candelabra_serving.")
    accounts_database_url: str = Field(default="", description="Role candelabra_accounts.")

    # --- the exchange
    symbols: CommaSeparated = Field(
        default=(),
        description="Symbols to stream, by name or pattern: BTCUSDT,ETHUSDT.P or *USDT.",
    )
    symbols_file: Path | None = Field(
        default=None, description="File of one symbol or pattern a line, instead of SYMBOLS."
    )
    top: int | None = Field(default=None, ge=1, description="Keep the N of largest 24 h volume.")
    binance_testnet: bool = Field(default=False, description="Use the exchange's test hosts.")
    binance_ws_url: str = Field(default="", description="Spot WebSocket base URL.")
    binance_rest_url: str = Field(default="", description="Spot REST base URL.")
    binance_um_ws_url: str = Field(default="", description="USD-M WebSocket base URL.")
    binance_um_rest_url: str = Field(default="", description="USD-M REST base URL.")
    binance_cm_ws_url: str = Field(default="", description="COIN-M WebSocket base URL.")
    binance_cm_rest_url: str = Field(default="", description="COIN-M REST base URL.")
    binance_dump_url: str = Field(
        default="https://data.binance.vision", description="Base URL of the dump files."
    )
    binance_dump_list_url: str = Field(
        default="https://s3-ap-northeast-1.amazonaws.com/data.binance.vision",
        description="Base URL of the dump site's listing.",
    )
    rest_weight_share: float = Field(
        default=0.75, gt=0, le=1, description="Share of the host's request weight we use."
    )
    http_timeout_s: float = Field(
        default=20.0, gt=0, le=3_600, description="Timeout of one HTTP request."
    )
    https_proxy: str = Field(default="", description="Proxy for HTTP and WebSocket connections.")

    # --- the live path
    close_grace_spot_ms: int = Field(
        default=250, ge=0, le=60_000, description="Grace after a spot minute's end."
    )
    close_grace_um_ms: int = Field(
        default=400, ge=0, le=60_000, description="Grace after a USD-M or COIN-M minute's end."
    )
    kline_timeout_ms: int = Field(
        default=3_000, ge=100, description="Wait for the closed kline before doubting the stream."
    )
    stale_stream_s: float = Field(
        default=15.0,
        gt=0,
        le=3_600,
        description="Silence on a connection after which it is replaced.",
    )
    symbols_refresh_s: float = Field(
        default=30.0,
        gt=0,
        le=86_400,
        description="How often the exchange's list of symbols is read while streaming.",
    )
    follow_watchlists: bool = Field(
        default=True, description="Also stream the symbols of all watchlists."
    )
    rotate_after_s: float = Field(
        default=82_800.0,
        ge=1,
        le=86_000,
        description="Age at which a connection is succeeded by a new one.",
    )
    batch_size: int = Field(default=1_000, ge=1, le=100_000, description="Rows of one write.")
    batch_flush_timeout_ms: int = Field(
        default=250, ge=10, le=60_000, description="Longest wait before a write."
    )
    buffer_rows: int = Field(
        default=200_000, ge=1_000, description="Rows kept in memory while PostgreSQL is away."
    )
    fill_lookback_minutes: int = Field(
        default=1_440,
        ge=0,
        description="How far back the streamer fills at its start; DAGs fill older gaps.",
    )

    # --- raw capture
    capture: CommaSeparated = Field(
        default=(),
        description="Also store agg_trades, trades, book_tickers, liquidations, depth of the "
        "streamed symbols.",
    )
    capture_batch_rows: int = Field(
        default=20_000, ge=1, le=100_000, description="Captured rows of one write."
    )
    capture_flush_timeout_ms: int = Field(
        default=500, ge=10, le=60_000, description="Longest wait of a captured row for a write."
    )
    capture_buffer_rows: int = Field(
        default=100_000, ge=1_000, description="Captured rows kept in memory."
    )
    capture_spool_bytes: int = Field(
        default=1_073_741_824,
        ge=1_048_576,
        description="Disk for captured rows that the exchange cannot serve again.",
    )

    # --- files and local services
    candelabra_home: Path = Field(
        default=Path(".candelabra"), description="State of embedded services, inbox, quarantine."
    )
    inbox_folder: Path | None = Field(
        default=None, description="Files dropped here are loaded; else CANDELABRA_HOME/inbox."
    )

    # --- storage
    raw_retention_days: int | None = Field(
        default=None,
        ge=2,
        le=36_500,
        description="Days that captured rows stay in their tables; then they go to the archive.",
    )
    archive_folder: Path | None = Field(
        default=None, description="Parquet files of archived days; else CANDELABRA_HOME/archive."
    )
    ledger_retention_days: int = Field(
        default=90, ge=7, le=36_500, description="Days for which results of passed checks are kept."
    )

    # --- quality
    quality_stale_after_minutes: int = Field(
        default=10,
        ge=2,
        le=10_080,
        description="Age of a streamed symbol's newest minute that is an error.",
    )
    quality_unverified_after_minutes: int = Field(
        default=60,
        ge=5,
        le=1_440,
        description="How long a streamed minute may be unconfirmed, and a gap be open.",
    )
    quality_jump_multiple: Decimal = Field(
        default=Decimal(20),
        gt=1,
        le=1_000_000,
        description="Usual ranges by which a close may differ from the one before.",
    )
    quality_docs_folder: Path | None = Field(
        default=None, description="Pages with quality results; else CANDELABRA_HOME/quality."
    )

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
    api_sockets_per_client: int = Field(
        default=1_000, ge=1, le=10_000, description="WebSockets that a client may hold open."
    )
    trusted_proxies: CommaSeparated = Field(
        default=(), description="Proxies whose X-Forwarded-For names the client."
    )
    grpc: bool = Field(default=True, description="Serve candles by gRPC.")
    grpc_host: str = Field(default="127.0.0.1", description="Where gRPC is served.")
    grpc_port: int | None = Field(
        default=None,
        ge=0,
        le=65_535,
        description="0: the system chooses; empty: 50051, or a free port if taken.",
    )
    grpc_calls_per_client: int = Field(
        default=500, ge=1, le=1_000, description="Concurrent gRPC calls of a client."
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

    # --- logs and alerts
    log_level: LogLevel = Field(default="INFO", description="Least severe level that is logged.")
    log_format: LogFormat = Field(
        default="auto", description="json for machines, console for people, auto by terminal."
    )
    alert_webhook_url: str = Field(
        default="", description="Receives failed DAG tasks and runs, as JSON; its path is a secret."
    )

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator(
        "database_url",
        "streamer_database_url",
        "jobs_database_url",
        "dbt_database_url",
        "reader_database_url",
        "serving_database_url",
        "accounts_database_url",
    )
    @classmethod
    def _postgres_url(cls, value: str) -> str:
        first_host = re.sub(r",[^/@]*", "", value)  # a URL of PostgreSQL may name several
        if value and (_scheme_of(first_host) not in {"postgresql", "postgres"}):
            raise ValueError("should be postgresql://user:password@host:port/database")
        return value

    @field_validator(
        "binance_ws_url",
        "binance_rest_url",
        "binance_um_ws_url",
        "binance_um_rest_url",
        "binance_cm_ws_url",
        "binance_cm_rest_url",
        "binance_dump_url",
        "binance_dump_list_url",
        "https_proxy",
        "alert_webhook_url",
    )
    @classmethod
    def _base_url(cls, value: str, info: object) -> str:
        name = getattr(info, "field_name", "")
        schemes = {"ws", "wss"} if "_ws_" in name else {"http", "https"}
        if value and (_scheme_of(value) not in schemes or not urlsplit(value).hostname):
            raise ValueError(f"should be {' or '.join(sorted(schemes))}://host[:port]")
        return value if name == "alert_webhook_url" else value.rstrip("/")

    @field_validator("symbols")
    @classmethod
    def _symbol_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(len(name.split()) > 1 or ";" in name for name in value):
            raise ValueError("should be names or patterns separated by commas: BTCUSDT,ETHUSDT.P")
        return value

    @field_validator("capture")
    @classmethod
    def _datasets(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not set(value) <= {"agg_trades", "trades", "book_tickers", "liquidations", "depth"}:
            raise ValueError(
                "should be agg_trades, trades, book_tickers, liquidations and depth, separated by "
                "commas"
            )
        return value

    @field_validator("symbols_file")
    @classmethod
    def _file(cls, value: Path | None) -> Path | None:
        if value is not None and value.is_dir():
            raise ValueError("should be a file, one symbol or pattern a line; this is a folder")
        return value

    @field_validator("candelabra_home", "archive_folder", "inbox_folder", "quality_docs_folder")
    @classmethod
    def _folder(cls, value: Path | None) -> Path | None:
        if value is not None and value.exists() and not value.is_dir():
            raise ValueError("should be a folder, which may be absent; this is a file")
        return value

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

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for one in value:
            try:
                ipaddress.ip_network(one)
            except ValueError:
                raise ValueError(
                    f"{one!r}: should be addresses and networks of proxies, by comma, such as "
                    "127.0.0.1,10.0.0.0/8"
                ) from None
        return value

    @field_validator(
        "grpc_tls_cert_file", "grpc_tls_key_file", "grpc_trusted_file", "nats_trusted_file"
    )
    @classmethod
    def _pem(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_file():
            raise ValueError("should be a file in PEM format; there is none")
        return value

    def model_post_init(self, _context: object) -> None:
        hosts = _TESTNET_HOSTS if self.binance_testnet else _LIVE_HOSTS
        for name, url in hosts.items():
            if not getattr(self, name):
                object.__setattr__(self, name, url)

    @property
    def archive(self) -> Path:
        """The folder of archived raw capture."""
        return self.archive_folder or self.candelabra_home / "archive"

    @property
    def inbox(self) -> Path:
        """The folder whose files are loaded."""
        return self.inbox_folder or self.candelabra_home / "inbox"

    @property
    def quality_docs(self) -> Path:
        """The folder of the pages of what the checks found."""
        return self.quality_docs_folder or self.candelabra_home / "quality"

    @property
    def streamer_http_url(self) -> str:
        """Where a streamer of these settings serves; empty where it does not or chooses itself."""
        port = STREAMER_HTTP_PORT if self.streamer_http_port is None else self.streamer_http_port
        if not self.streamer_http or not port:
            return ""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(  # noqa: S104 - a bound address, not a peer
            self.streamer_http_host, self.streamer_http_host
        )
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def url_for(
        self, role: Literal["owner", "streamer", "jobs", "dbt", "reader", "serving", "accounts"]
    ) -> str:
        """The database URL for a role; serving processes may also have that of readers.

        Raises:
            PermanentError: neither the role's variable nor DATABASE_URL is set.
        """
        own = "" if role == "owner" else str(getattr(self, f"{role}_database_url"))
        shared = self.reader_database_url if role == "serving" else ""
        url = own or shared or self.database_url
        if not url:
            variable = "" if role == "owner" else f"{role.upper()}_DATABASE_URL or "
            raise PermanentError(
                f"no database: set {variable}DATABASE_URL to "
                "postgresql://user:password@host:port/database, or run `make demo`, "
                "which brings its own PostgreSQL"
            )
        return url

    def proxy_for(self, url: str) -> str:
        """The proxy on the way to a service; none to this machine's own."""
        host = urlsplit(url).hostname or ""
        is_loopback = host == "localhost" or host == "::1" or host.startswith("127.")
        return "" if is_loopback else self.https_proxy

    def role_urls(self) -> dict[str, str]:
        """Database URLs by role name, for roles with their own variable."""
        return {
            f"candelabra_{role}": url
            for role in ("streamer", "jobs", "dbt", "reader", "serving", "accounts")
            if (url := str(getattr(self, f"{role}_database_url")))
        }


_SECRET = ("database_url", "proxy", "webhook", "token", "nats_url")


def _remedy(problem: Mapping[str, Any]) -> str:
    """Return what would be right, in plain words where pydantic's describe its internals."""
    if problem["type"] == "bool_parsing":
        return "should be true or false"
    return str(problem["msg"]).removeprefix("Value error, ")


def load_settings(**overrides: object) -> Settings:
    """Settings from the environment, then ``overrides`` by field name.

    Raises:
        WrongValueError: names each wrong variable, its value and what would be right.
    """
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        lines = []
        for problem in error.errors(include_url=False):
            name = str(problem["loc"][0]) if problem["loc"] else "settings"
            shown = "(hidden)" if any(s in name for s in _SECRET) else repr(problem["input"])
            lines.append(f"{name.upper()}={shown}: {_remedy(problem)}")
        raise WrongValueError("wrong settings:\n  " + "\n  ".join(lines)) from None

"""Every setting of a gateway, with its form, its default and what it is for. Read and checked in config.py."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

SQLITE = "sqlite"  # log.url: one file in the data directory

_Path = Annotated[str, Meta(description="the path of a file", examples=["/etc/tillgate/tls.pem"])]
_Host = Annotated[str, Meta(min_length=1, description="an address to listen on", examples=["127.0.0.1"])]
_Port = Annotated[int, Meta(ge=0, le=65535, description="a port number, 0 to 65535 (0: any free one)", examples=[8080])]


class ServerConfig(msgspec.Struct, frozen=True):
    """Where tills and tools reach the gateway."""

    host: _Host = "127.0.0.1"
    port: _Port = 8080
    tls_cert: _Path = ""  # PEM, the chain; with tls_key or not at all
    tls_key: _Path = ""


class MetricsConfig(msgspec.Struct, frozen=True):
    """Where /metrics is: a port of its own, because it needs no token."""

    host: _Host = "127.0.0.1"
    port: _Port = 9108
    capacity_redeem_per_second: Annotated[
        float,
        Meta(ge=0, le=10_000_000, description="redemptions a second, 0 or more (0: not known)", examples=[5000]),
    ] = 0.0  # what the last load test certified: an alert compares the load with it


class ValkeyConfig(msgspec.Struct, frozen=True):
    """Which Valkey arbitrates. Empty `url`: a private one in the data directory."""

    url: Annotated[
        str,
        Meta(
            description="a URL: redis://host:port/0, rediss://..., unix:///path, or redis+cluster://host:port,host:port/",
            examples=["unix:///run/valkey/valkey.sock"],
        ),
    ] = ""
    password_file: _Path = ""  # never in the URL: URLs end up in logs and process lists


class LogConfig(msgspec.Struct, frozen=True):
    """Where the event log is: one file that one gateway holds, or a PostgreSQL database or NATS that several share."""

    url: Annotated[
        str,
        Meta(
            min_length=1,
            description="sqlite, or a URL: postgresql://user@host:5432/database, nats://host:4222/name",
            examples=["postgresql://tillgate@db.example/tillgate"],
        ),
    ] = SQLITE
    password_file: _Path = ""  # as for Valkey


class ConsoleConfig(msgspec.Struct, frozen=True):
    """The pages for people under /console."""

    served: Annotated[bool, Meta(description="true or false", examples=[True])] = (
        True  # false where they must not be reachable: then nothing is counted for them either
    )


class TracingConfig(msgspec.Struct, frozen=True):
    """Where OpenTelemetry spans go. Empty `url`: none are made."""

    url: Annotated[
        str,
        Meta(
            description="the URL that takes OTLP over HTTP; needs tillgate[otel]",
            examples=["http://127.0.0.1:4318/v1/traces"],
        ),
    ] = ""
    ratio: Annotated[
        float, Meta(ge=0, le=1, description="the share of messages and batches that is told, 0 to 1", examples=[0.01])
    ] = 0.01


class MessagesConfig(msgspec.Struct, frozen=True):
    """What a gateway says on standard error."""

    form: Annotated[
        Literal["text", "json"],
        Meta(description="text (for people) or json (an object a line)", examples=["json"]),
    ] = "text"
    slow_ms: Annotated[
        int, Meta(ge=0, le=60_000, description="milliseconds, 0 to 60000 (0: none is slow)", examples=[250])
    ] = 250  # in JSON: answers that took longer are told, some a minute


class Config(msgspec.Struct, frozen=True):
    """Everything `tillgate serve` wants to know."""

    data_dir: Annotated[
        str, Meta(min_length=1, description="the data directory's path", examples=["/var/lib/tillgate"])
    ] = msgspec.field(default="tillgate-data", name="data")
    server: ServerConfig = ServerConfig()
    metrics: MetricsConfig = MetricsConfig()
    console: ConsoleConfig = ConsoleConfig()
    valkey: ValkeyConfig = ValkeyConfig()
    log: LogConfig = LogConfig()
    tracing: TracingConfig = TracingConfig()
    messages: MessagesConfig = MessagesConfig()
    workers: Annotated[
        int, Meta(ge=1, le=64, description="how many worker processes share the port, 1 to 64", examples=[4])
    ] = 1
    drain_seconds: Annotated[
        float,
        Meta(ge=0, le=300, description="seconds between 0 and 300", examples=[5.0]),
    ] = 2.0  # how long tills have to leave before a stopping gateway closes their connections

"""What both services read from the environment."""

import sys
from pathlib import Path
from typing import Annotated, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import AmqpDsn, BeforeValidator, Field, HttpUrl, PostgresDsn, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "::1")

S = TypeVar("S", bound="ServiceSettings")


class ServiceSettings(BaseSettings):
    """An empty variable counts as not set, so that compose files can pass them on."""

    model_config = SettingsConfigDict(env_ignore_empty=True, frozen=True)

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    allowed_hosts: str = Field(
        "",
        description="Names, separated by commas, by which clients may call this service beside those of the loopback "
        'and what HOST and the other service\'s URL name; "*" is any.',
    )
    data_dir: Path = Field(Path(".data"), description="Folder of the SQLite files; made when missing.")
    database_url: PostgresDsn | None = Field(
        None, description="PostgreSQL, as postgresql://user:password@host/database, in place of the SQLite files."
    )
    amqp_url: AmqpDsn | None = Field(
        None, description="RabbitMQ, as amqp://user:password@host/vhost; without it no broker is used."
    )
    header_bytes_max: int = Field(
        65536,
        ge=1024,
        description="Bytes of a request's line and headers, or trailers, at most; each header counts 32 more.",
    )
    header_seconds: float = Field(10, gt=0, description="Seconds for a request's line and headers.")
    body_seconds: float = Field(30, gt=0, description="Seconds for a request's whole body.")
    idle_seconds: float = Field(30, gt=0, description="Seconds that a connection stays open without a request.")
    write_seconds: float = Field(30, gt=0, description="Seconds that a client may stop reading its answer.")
    connections_max: int | None = Field(
        None,
        ge=1,
        description="Open connections at most; one more gets a 503. Not set: what the limit on open files allows, "
        "at most 6000.",
    )
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], BeforeValidator(lambda level: str(level).lower())
    ] = Field("info", description="Least severe level that is logged: debug, info, warning or error.")
    log_format: Literal["console", "json"] = Field("console", description="console or json, one line an entry.")

    def store_name(self, path: Path) -> str:
        """The store for people and logs: the file at `path`, or the database without its password."""
        if self.database_url is None:
            return str(path)
        hosts = ",".join(f"{host['host']}:{host['port'] or 5432}" for host in self.database_url.hosts())
        return f"postgresql://{hosts}{self.database_url.path or '/'}"

    def hosts(self, *urls: str) -> list[str]:
        """The names by which clients may call this service; `urls` have some of them."""
        named = [urlsplit(url).hostname or "" for url in urls]
        allowed = [name.strip() for name in self.allowed_hosts.split(",")]
        return [name for name in (*LOOPBACK_HOSTS, self.host, *named, *allowed) if name]

    @property
    def broker_name(self) -> str:
        """The broker for people and logs: without its password."""
        if self.amqp_url is None:
            return "none"
        url = self.amqp_url
        return f"{url.scheme}://{url.host}:{url.port or 5672}{url.path or '/'}"


def shown_url(url: str) -> str:
    """An HTTP address for people and logs: without user, password, path and query, any of which may be secret."""
    parts = HttpUrl(url)
    return f"{parts.scheme}://{parts.host}:{parts.port}{'/…' if (parts.path or '/') != '/' else ''}"


def read_settings(settings: type[S]) -> S:
    """Read `settings` from the environment, or end the process with a line for each variable that is wrong."""
    try:
        return settings.model_validate({})
    except ValidationError as error:
        for problem in error.errors():
            print(f"{str(problem['loc'][0]).upper()}: {problem['msg']}", file=sys.stderr)
        raise SystemExit(2) from None


def describe_settings(settings: type[ServiceSettings]) -> str:
    """A line for each variable with its default, for `--help`."""
    return "\n\n".join(
        f"{name.upper()}: {field.description} Default: {'not set' if field.default is None else field.default}."
        for name, field in settings.model_fields.items()
    )

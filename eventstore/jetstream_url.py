"""Where a log in NATS JetStream is: nats://user@host:4222,host:4222/name?replicas=3&monitor=8222. Pure."""

import re

import msgspec

SCHEMES = ("nats", "tls")
REPLICAS = (1, 3, 5)  # what JetStream can agree by; even numbers survive no more than the odd one below
EXAMPLE = "nats://tillgate@a:4222,b:4222,c:4222/tillgate?replicas=3&monitor=8222"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SERVER = re.compile(r"(?P<host>[A-Za-z0-9._-]+|\[[0-9a-fA-F:]+\]):(?P<port>[0-9]{1,5})")


class Place(msgspec.Struct, frozen=True):
    """What such a URL says."""

    scheme: str
    user: str  # "": none
    servers: tuple[tuple[str, int], ...]
    name: str  # begins the streams' names
    replicas: int
    monitors: tuple[str, ...]  # http URL of each server's monitoring port, which tells how it syncs

    @property
    def urls(self) -> list[str]:
        return [f"{self.scheme}://{host}:{port}" for host, port in self.servers]


def place_of(url: str) -> Place:
    """Raises ValueError with what is wrong, never with a password."""
    scheme, _, rest = url.partition("://")
    if scheme not in SCHEMES:
        raise ValueError(f"it begins with none of {', '.join(f'{known}://' for known in SCHEMES)}")
    location, _, query = rest.partition("?")
    authority, _, name = location.partition("/")
    user, at, hosts = authority.rpartition("@")
    if at and ":" in user:
        raise ValueError("it has a password in it. Put the password in a file and name that in log.password_file")
    if not _NAME.fullmatch(name):
        raise ValueError(f"it names no log after the servers (letters, digits, - and _). Write for example {EXAMPLE}")
    servers = tuple(_server(text) for text in hosts.split(","))
    options = {key: value for key, _, value in (part.partition("=") for part in query.split("&") if part)}
    replicas, ports = options.pop("replicas", "3"), options.pop("monitor", "").split(",")
    if options:
        raise ValueError(f"{min(options)!r} is no option; there is: replicas, monitor")
    if not replicas.isdecimal() or int(replicas) not in REPLICAS:
        raise ValueError(f"replicas = {replicas!r} is none of {', '.join(map(str, REPLICAS))}")
    if len(ports) == 1:
        ports *= len(servers)
    if len(ports) != len(servers) or not all(port.isdecimal() and 0 < int(port) < 65536 for port in ports):
        raise ValueError("monitor must be the servers' monitoring port (http_port in their configuration), or one each")
    monitors = tuple(f"http://{host}:{port}" for (host, _), port in zip(servers, ports, strict=True))
    return Place(scheme, user, servers, name, int(replicas), monitors)


def _server(text: str) -> tuple[str, int]:
    found = _SERVER.fullmatch(text)
    if found is None or not 0 < int(found["port"]) < 65536:
        raise ValueError(f"{text!r} is no host:port")
    return found["host"], int(found["port"])

"""The forms of `valkey.url`: one server, or the nodes that are asked first for a cluster.

    redis://host:port/0   rediss://host:port/0   unix:///path        one server; rediss is with TLS
    redis+cluster://host:port,host:port/   rediss+cluster://...      a cluster, by any of its nodes

No library of ours to follow: redis-py has no such scheme for a cluster. Other clients of Python do, with this one.
"""

from urllib.parse import parse_qs, urlsplit

from gateway.slots import PORT, Address

CLUSTER_SCHEMES = {"redis+cluster": "redis", "rediss+cluster": "rediss"}
SCHEMES = ("redis", "rediss", "unix")
_EXAMPLE = "Write for example redis+cluster://10.0.0.1:6379,10.0.0.2:6379/"


def is_cluster(url: str) -> bool:
    """Whether the URL names nodes of a cluster."""
    return url.partition("://")[0] in CLUSTER_SCHEMES


def seeds_of(url: str) -> list[Address]:
    """The nodes that a cluster's URL names. Raises ValueError, in words."""
    return [_address(name) for name in _parted(url)[1].split(",")]


def plain_url(url: str) -> str:
    """The same as of one server, the first node: what redis-py reads all the other options from."""
    user, hosts, query = _parted(url)
    scheme = CLUSTER_SCHEMES[url.partition("://")[0]]
    return f"{scheme}://{user}{_address(hosts.split(',')[0])}/0{query}"


def fault_of(url: str) -> str | None:
    """What is wrong with the form of a URL, and the fix; None: nothing."""
    if is_cluster(url):
        try:
            seeds_of(url)
        except ValueError as error:
            return f"{error}. {_EXAMPLE}"
        return None
    try:
        parts = urlsplit(url)
        if parts.scheme in SCHEMES and "," in parts.netloc:
            return f"it names several servers, which only a cluster has. {_EXAMPLE}"
        whole = parts.path if parts.scheme == "unix" else parts.hostname and parts.port != 0
    except ValueError:
        return "it is no URL. Write for example redis://127.0.0.1:6379/0"
    if parts.scheme not in SCHEMES or not whole:
        forms = "redis://host:port/0, rediss://host:port/0, unix:///path, redis+cluster://host:port,host:port/"
        return f"it is none of {forms}. Mend the URL"
    return None


def has_password(url: str) -> bool:
    """Whether it has a password in it, where it must not be. The URL has no fault otherwise."""
    return urlsplit(plain_url(url) if is_cluster(url) else url).password is not None


def _parted(url: str) -> tuple[str, str, str]:
    """User with its @, hosts, query with its question mark."""
    parts = urlsplit(url)
    numbers = [parts.path.strip("/") or "0", *parse_qs(parts.query).get("db", [])]
    if any(number != "0" for number in numbers):
        raise ValueError(f"a cluster has database 0 only, not {next(n for n in numbers if n != '0')}")
    user, at, hosts = parts.netloc.rpartition("@")
    return user + at, hosts, f"?{parts.query}" if parts.query else ""


def _address(name: str) -> Address:
    try:
        parts = urlsplit(f"//{name}")
        port = PORT if parts.port is None else parts.port
    except ValueError:
        raise ValueError(f"{name!r} is no host:port of a node") from None
    if not parts.hostname or not port:
        raise ValueError(f"{name!r} is no host:port of a node")
    return Address(parts.hostname, port)

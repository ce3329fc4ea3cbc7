"""The deployment's Valkey for those who read it beside the gateway, and compare: nothing is claimed with this."""

from pathlib import Path
from typing import Any

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import parse_url
from redis.exceptions import RedisClusterException, RedisError

from gateway.embedded import Endpoint, endpoint_of
from gateway.keyfile import read_secret
from gateway.settings import Config
from gateway.valkey_url import is_cluster, plain_url, seeds_of

UNREADABLE = (RedisError, RedisClusterException, OSError)  # what a client may raise; the second is none of the first
Client = Redis | RedisCluster


def client_of(config: Config) -> Client | None:
    """Not connected yet, bytes in and bytes out; None for a private Valkey that never ran. Raises KeyFault."""
    url, name = config.valkey.url, config.valkey.password_file
    if not url:
        endpoint = endpoint_of(Path(config.data_dir))
        return None if endpoint is None else private_client(endpoint)
    password = read_secret(Path(name)).decode().strip() if name else None
    if not is_cluster(url):
        return Redis.from_url(url, password=password)
    options: dict[str, Any] = dict(parse_url(plain_url(url)))
    for known in ("host", "port", "db", "connection_class"):
        options.pop(known, None)
    nodes = [ClusterNode(node.host, node.port) for node in seeds_of(url)]
    return RedisCluster(startup_nodes=nodes, password=password, ssl=url.startswith("rediss"), **options)


def private_client(endpoint: Endpoint) -> Redis:
    """Of the private Valkey."""
    if endpoint.unix_path is not None:
        return Redis(unix_socket_path=endpoint.unix_path)
    return Redis(host=endpoint.host or "", port=endpoint.port or 0, password=endpoint.password)

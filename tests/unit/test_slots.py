"""Where a partition lies in a cluster, and the URLs that name one."""

from pathlib import Path

import pytest
from redis.asyncio import RedisCluster
from redis.asyncio.connection import Connection, SSLConnection
from redis.crc import key_slot

from eventstore.vouchers import head_key
from gateway.cluster import Cluster
from gateway.loading import NOBODY, run_of
from gateway.main import connector_of_url
from gateway.settings import Config, ValkeyConfig
from gateway.slots import SLOTS, Address, Range, fields_of, nodes_in, range_of, ranges_of, slot_of
from gateway.valkey_client import client_of
from gateway.valkey_url import fault_of, has_password, is_cluster, plain_url, seeds_of

ASKED = Address("10.0.0.9", 7009)


def test_a_partition_lies_where_its_keys_lie() -> None:
    for partition in range(300):
        assert slot_of(partition) == key_slot(head_key(partition)) == key_slot(b"{%d}v1:2" % partition)


def test_a_reply_tells_primaries_and_replicas() -> None:
    reply = [
        [0, 5460, [b"10.0.0.1", 7001, b"id1", []], [b"10.0.0.4", 7004, b"id4", []]],
        [5461, 16383, [b"", 7002, b"id2", {b"hostname": b"b"}], [None, 7005, b"id5", []]],
    ]
    ranges = ranges_of(reply, ASKED)
    assert ranges == [
        Range(0, 5460, Address("10.0.0.1", 7001), (Address("10.0.0.4", 7004),)),
        Range(5461, SLOTS - 1, Address("10.0.0.9", 7002), (Address("10.0.0.9", 7005),)),
    ]
    assert nodes_in(ranges)[:2] == [Address("10.0.0.1", 7001), Address("10.0.0.9", 7002)]
    assert range_of(ranges, 3) is ranges[0]  # slot 1584
    assert range_of(ranges, 0) is ranges[1]  # slot 13907
    assert range_of(ranges[:1], 0) is None


def test_an_address_is_written_as_people_write_it() -> None:
    assert [str(Address("a", 1)), str(Address("::1", 2))] == ["a:1", "[::1]:2"]


def test_info_is_read_line_by_line() -> None:
    assert fields_of(b"# Cluster\r\ncluster_state:ok\r\n\r\na:b:c\r\n") == {"cluster_state": "ok", "a": "b:c"}


def test_a_cluster_url_names_its_nodes() -> None:
    url = "rediss+cluster://till@a:7000,b,[::1]:7002/?ssl_ca_certs=/ca.pem"
    assert is_cluster(url)
    assert seeds_of(url) == [Address("a", 7000), Address("b", 6379), Address("::1", 7002)]
    assert plain_url(url) == "rediss://till@a:7000/0?ssl_ca_certs=/ca.pem"
    assert fault_of(url) is None
    assert not has_password(url)
    assert has_password("redis+cluster://till:secret@a/")


@pytest.mark.parametrize(
    ("url", "said"),
    (
        ("redis+cluster://a:7000/1", "database 0 only, not 1"),
        ("redis+cluster://a:7000/?db=2", "database 0 only, not 2"),
        ("redis+cluster://a:7000,/", "'' is no host:port"),
        ("redis+cluster://a:0/", "'a:0' is no host:port"),
        ("redis+cluster://a:x/", "'a:x' is no host:port"),
        ("redis+cluster:///", "'' is no host:port"),
        ("redis://a:7000,b:7001/0", "only a cluster has. Write for example redis+cluster://"),
        ("cluster://a", "it is none of redis://"),
    ),
)
def test_what_is_wrong_with_a_url_is_said(url: str, said: str) -> None:
    assert said in (fault_of(url) or "")


def test_every_node_is_reached_with_the_options_of_the_url(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.touch(0o600)
    secret.write_text("hunter2\n")
    secure = connector_of_url("rediss+cluster://till@a:7000,b/?ssl_ca_certs=/ca.pem", str(secret))
    assert isinstance(secure, Cluster)
    made = secure.make(Address("c", 7003))
    assert isinstance(made, SSLConnection)
    assert (made.host, made.port, made.username, made.password) == ("c", 7003, "till", "hunter2")
    assert made.ssl_context.ca_certs == "/ca.pem"
    assert made.retry.get_retries() == 0, "nothing is ever sent twice"
    plain = connector_of_url("redis+cluster://a:7000/", "")
    assert isinstance(plain, Cluster)
    assert type(plain.make(Address("c", 7003))) is Connection


def test_who_only_reads_gets_a_client_of_the_cluster(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.touch(0o600)
    secret.write_text("hunter2\n")
    url = "rediss+cluster://till@a:7000,b:7001/?ssl_ca_certs=/ca.pem"
    client = client_of(Config(valkey=ValkeyConfig(url=url, password_file=str(secret))))
    assert isinstance(client, RedisCluster)
    assert [(node.host, node.port) for node in client.get_nodes()] == []  # none before it has asked
    chosen = client.connection_kwargs
    assert (chosen["username"], chosen["password"], chosen["ssl_ca_certs"]) == ("till", "hunter2", "/ca.pem")


@pytest.mark.parametrize(
    ("version", "is_cluster", "former"),
    (
        (b"valkey_version:8.1.0", True, b"f"),
        (b"valkey_version:7.2.5", True, NOBODY),
        (b"redis_version:8.0.0", True, NOBODY),
        (b"redis_version:7.4.0", False, b"f"),
    ),
)
def test_a_promoted_replica_is_believed_if_it_knows_of_moves(version: bytes, is_cluster: bool, former: bytes) -> None:
    told = b"run_id:r\r\nmaster_replid:p\r\nmaster_replid2:f\r\n" + version + b"\r\n"
    assert run_of(told, is_cluster=is_cluster).former == former

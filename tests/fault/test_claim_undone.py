"""A claim that fails leaves Valkey as it was: whatever fails, and in its append-only file too."""

import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import redis
from log_batches import AT_MS, head_of, id16, record
from private_valkey import server_program
from redis.asyncio import UnixDomainSocketConnection

from eventstore.events import IMPORT, REDEEM, REVERSE, VOID, encode_records
from eventstore.log import EMPTY_HEAD, Batch
from eventstore.vouchers import apply_batch, empty_state
from gateway.claims import ValkeyArbiter, keyed_of
from gateway.messages import Verdict
from gateway.pipe import ArbiterRefused

CAMPAIGN = 1
FOREIGN = b"{0}v1:7"  # the hash of the last voucher of MIXED


def redeemed(serial: int, who: int = 1) -> bytes:
    return record(REDEEM, campaign=CAMPAIGN, serial=serial, claim_id=id16("claim", who), terminal=5)


def before() -> list[bytes]:
    """Vouchers that MIXED finds: redeemed, reversed, tombstoned, voided; an imported code."""
    return [
        *(redeemed(serial, serial) for serial in (1, 2, 3)),
        record(REVERSE, campaign=CAMPAIGN, serial=2, claim_id=id16("claim", 2), terminal=5),
        record(REVERSE, campaign=CAMPAIGN, serial=4, claim_id=id16("claim", 4), terminal=5),
        record(VOID, campaign=CAMPAIGN, serial=5, claim_id=id16("claim", 5), terminal=5),
        record(IMPORT, campaign=CAMPAIGN, serial=90, redemption_id=id16("code", 1)),
    ]


def mixed() -> list[bytes]:
    """Fresh ones in a hash that stands and in new ones, doubles, a reversal of a fresh one, and one key more."""
    return [
        *(redeemed(serial, 9) for serial in (10, 1, 2, 11, 70, 70, 130, 131, 5)),
        record(REVERSE, campaign=CAMPAIGN, serial=70, claim_id=id16("claim", 9), terminal=5),
        record(IMPORT, campaign=CAMPAIGN, serial=91, redemption_id=id16("code", 2)),
        redeemed(200, 9),
        redeemed(7 * 64 + 1, 9),
    ]


class Chain:
    """A Valkey that is called directly, and the log as it would be."""

    def __init__(self, client: redis.Redis) -> None:
        self.client, self.head, self.state = client, EMPTY_HEAD, empty_state(1)
        if not client.function_list(library="tillgate_1"):
            client.function_load(files("gateway").joinpath("claim.lua").read_text())

    def claim(self, records: list[bytes], map_: bytes | None = None) -> bytes:
        """The verdicts; raises redis.ResponseError."""
        seq = self.head.seq + 1
        payload = encode_records(records, {}, received_ms=AT_MS + seq)
        keyed, tip = keyed_of(0, payload), id16("tip", seq)
        keys = ["{0}head", "{0}log", "{0}load", *keyed.keys]
        args = (payload, map_ or keyed.map, tip, (AT_MS + seq).to_bytes(6, "big"), self.head.seq)
        got, prev, verdicts, _ = self.client.fcall("tillgate_claim_1", len(keys), *keys, *args)
        assert (got, prev) == (seq, self.head.tip)
        batch = Batch(0, seq, prev, tip, payload, verdicts)
        apply_batch(self.state, batch)
        self.head = head_of(batch)
        return bytes(verdicts)

    def holds_what_the_log_says(self) -> bool:
        held = {key: self.client.hgetall(key) for key in self.client.keys("*") if self.client.type(key) == b"hash"}
        return held == self.state.hashes and self.client.get("{0}head") == self.head.tip + b"%d" % self.head.seq


def picture(client: redis.Redis) -> dict[bytes, Any]:
    """All keys with what they hold."""
    readers: dict[bytes, Callable[[bytes], Any]] = {
        b"string": client.get,
        b"hash": client.hgetall,
        b"stream": lambda key: (client.xrange(key), client.xinfo_stream(key)["last-generated-id"]),
    }
    return {key: readers[client.type(key)](key) for key in client.keys("*")}


@pytest.fixture
def chain(valkey_endpoint: str) -> Iterator[Chain]:
    with redis.Redis.from_url(valkey_endpoint) as client:
        made = Chain(client)
        made.claim(before())
        yield made


def foreign_type(client: redis.Redis) -> Callable[[], Any]:
    client.set(FOREIGN, "not a hash")
    return lambda: client.delete(FOREIGN)


def stream_ahead(client: redis.Redis) -> Callable[[], Any]:
    as_it_was = client.dump("{0}log")
    client.xadd("{0}log", {"d": "x"}, id="9-0")
    return lambda: client.restore("{0}log", 0, as_it_was, replace=True)


def no_stream(client: redis.Redis) -> Callable[[], Any]:
    client.rename("{0}log", "{0}aside")
    client.set("{0}log", "not a stream")
    return lambda: client.rename("{0}aside", "{0}log")


def too_few_replicas(client: redis.Redis) -> Callable[[], Any]:
    client.config_set("min-replicas-to-write", 1)
    return lambda: client.config_set("min-replicas-to-write", 0)


def no_memory(client: redis.Redis) -> Callable[[], Any]:
    client.config_set("maxmemory", 1)
    return lambda: client.config_set("maxmemory", 0)


OBSTACLES = {
    "WRONGTYPE": [foreign_type, no_stream],
    "equal or smaller": [stream_ahead],
    "enough good replicas": [too_few_replicas],
    "maxmemory": [no_memory],
}


@pytest.mark.parametrize(("words", "put"), [(words, put) for words, puts in OBSTACLES.items() for put in puts])
def test_what_failed_left_nothing(chain: Chain, words: str, put: Callable[[redis.Redis], Callable[[], Any]]) -> None:
    take_away = put(chain.client)
    try:
        found = picture(chain.client)
        with pytest.raises(redis.ResponseError, match=words):
            chain.claim(mixed())
        assert picture(chain.client) == found
    finally:
        take_away()
    names = [Verdict(byte).name for byte in chain.claim(mixed())]
    accepted = [index for index, name in enumerate(names) if name == "ACCEPTED"]
    assert accepted == [0, 2, 3, 4, 6, 7, 9, 10, 11, 12], names
    assert chain.holds_what_the_log_says()


def test_a_call_that_makes_no_sense_left_nothing(chain: Chain) -> None:
    """A key map that names a key which was not sent, after records that were fresh."""
    found = picture(chain.client)
    with pytest.raises(redis.ResponseError):
        chain.claim([redeemed(20), redeemed(84)], map_=b"\x04\x00\x63\x00")
    assert picture(chain.client) == found


def test_memory_that_runs_out_in_the_middle_of_a_claim_is_seen_after_it(chain: Chain) -> None:
    """From too little for the call's start, in steps much smaller than what the call adds, until it goes through."""
    records = [redeemed(64 * number) for number in range(10, 1010)]
    used = int(chain.client.info("memory")["used_memory"])
    refused = 0
    try:
        for limit in range(used, used + 4_000_000, 8_192):
            chain.client.config_set("maxmemory", limit)
            found = picture(chain.client)
            try:
                assert chain.claim(records) == bytes(len(records))
                break
            except redis.exceptions.OutOfMemoryError:
                refused += 1
            assert picture(chain.client) == found
        assert refused
        assert int(chain.client.info("memory")["used_memory"]) > limit, "the limit was not reached in the middle"
        assert chain.holds_what_the_log_says()
    finally:
        chain.client.config_set("maxmemory", 0)


@contextmanager
def keeping_a_file(directory: Path) -> Iterator[redis.Redis]:
    """A Valkey with an append-only file, killed at the end."""
    socket = directory / "valkey.sock"
    options = ("--port", "0", "--unixsocket", socket, "--dir", directory, "--save", "")
    kept = ("--appendonly", "yes", "--appendfsync", "always", "--logfile", directory / "valkey.log")
    server = subprocess.Popen([server_program(), *options, *kept])
    retry = redis.retry.Retry(redis.backoff.ConstantBackoff(0.02), 400)
    errors = [redis.ConnectionError, redis.exceptions.BusyLoadingError]
    try:
        with redis.Redis(unix_socket_path=str(socket), retry=retry, retry_on_error=errors) as client:
            client.ping()
            yield client
    finally:
        server.send_signal(signal.SIGKILL)
        server.wait()
        socket.unlink(missing_ok=True)


def test_an_append_only_file_holds_the_taking_back_too(directory: Path) -> None:
    with keeping_a_file(directory) as client:
        chain = Chain(client)
        chain.claim(before())
        client.set(FOREIGN, "not a hash")
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            chain.claim(mixed())
        found = picture(client)
    written = b"".join(path.read_bytes() for path in sorted(directory.glob("appendonlydir/*.incr.aof")))
    words = re.findall(rb"^(MULTI|HSETNX|HDEL|EXEC)\r$", written, re.MULTILINE)
    taken_back = words[len(words) - 1 - words[::-1].index(b"MULTI") :]
    assert taken_back == [b"MULTI", *[b"HSETNX"] * 3, *[b"HDEL"] * 3, b"EXEC"]
    with keeping_a_file(directory) as client:
        assert picture(client) == found
        client.delete(FOREIGN)
        chain.client = client
        chain.claim(mixed())
        assert chain.holds_what_the_log_says()


async def test_a_user_who_could_not_take_back_is_told_so_before_any_claim(valkey_endpoint: str) -> None:
    with redis.Redis.from_url(valkey_endpoint) as client:
        client.acl_setuser("till", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-hdel"])
        path = valkey_endpoint.removeprefix("unix://")
        connection = lambda: UnixDomainSocketConnection(path=path, username="till", password="any")  # noqa: E731
        arbiter = ValkeyArbiter(connection, lambda partition: None)
        try:
            with pytest.raises(ArbiterRefused, match="hdel"):
                await arbiter.check(0)
        finally:
            await arbiter.close()
            client.acl_deluser("till")

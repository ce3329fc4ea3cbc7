"""What Valkey alone does with claims: calls packed beforehand, on one connection, against a private server of its own.

`python -m gateway.claim_bench --records 64 --seconds 3` prints one JSON object. The calls are those of a lane
(gateway/claims.py): fresh scans of random vouchers, the chain's tips, a durable seq that follows. Nothing waits for a
log, so this is what the arbiter allows at most, and what a verdict costs it at least.
"""

import argparse
import asyncio
import itertools
import socket
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import hiredis
import msgspec
import psutil

from eventstore.events import ENTRY_SCANNED, RECORD, REDEEM, encode_records
from eventstore.log import TIP_BYTES
from eventstore.vouchers import head_key
from gateway.claims import LIBRARY_TEXT, keyed_of
from gateway.embedded import EmbeddedValkey
from gateway.valkey_server import Endpoint

LATENCIES_MIN = 2  # a percentile needs two: a busy machine may take longer than the time that was asked for
CALLS_UNDER_WAY = 16  # so that the server never waits for this client; a lane has two
RECORDS_PER_SECOND_MAX = 500_000  # packed beforehand, for a server faster than any we measured (330,000)
PARTITION, CAMPAIGN, TERMINAL, CONTROL_SEQ = 0, 1, 1, 1
READ_BYTES = 1 << 20


class Figures(msgspec.Struct):
    """What was measured; `records` and `accepted` count the warm-up too."""

    seconds: float
    calls: int
    verdicts: int
    p50_ms: float
    p99_ms: float
    p999_ms: float
    valkey_cpu_s: float
    client_cpu_s: float
    elsewhere_cpu_s: float
    records: int
    accepted: int


def shuffled(count: int, rng: Random) -> list[int]:
    """Every serial of a range once, in random order."""
    serials = list(range(count))
    rng.shuffle(serials)
    return serials


def packed_calls(serials: Sequence[int], records: int, rng: Random) -> Iterator[bytes]:
    """The claim calls of a chain's first batches: each of these vouchers once, in this order."""
    now_ms = time.time_ns() // 1_000_000
    for call in range(len(serials) // records):
        batch = [_record(serial, now_ms, rng) for serial in serials[call * records : (call + 1) * records]]
        payload = encode_records(batch, {}, received_ms=now_ms)
        keyed = keyed_of(PARTITION, payload)
        keys = (head_key(PARTITION), b"{%d}log" % PARTITION, b"{%d}load" % PARTITION, *keyed.keys)
        durable_seq = max(0, call - CALLS_UNDER_WAY)
        args: tuple[str | bytes | int, ...] = (
            payload,
            keyed.map,
            rng.randbytes(TIP_BYTES),
            now_ms.to_bytes(6, "big"),
            durable_seq,
        )
        yield packed("FCALL", "tillgate_claim_1", len(keys), *keys, *args)


def packed(*call: Any) -> bytes:
    """A command as it is sent."""
    octets: bytes = hiredis.pack_command(call)
    return octets


def _record(serial: int, now_ms: int, rng: Random) -> bytes:
    redemption_id, claim_id = rng.randbytes(16), rng.randbytes(16)
    return RECORD.pack(
        REDEEM, 0, ENTRY_SCANNED, 0, CAMPAIGN, serial, redemption_id, claim_id, TERMINAL, now_ms, CONTROL_SEQ
    )


class Caller:
    """Sends packed calls over a blocking socket, CALLS_UNDER_WAY at a time, and counts what comes back."""

    def __init__(self, endpoint: Endpoint, calls: Iterable[bytes]) -> None:
        self._socket = connected(endpoint)
        self._reader = hiredis.Reader()
        self._calls = iter(calls)
        self._sent_s: deque[float] = deque()
        self.calls = self.records = self.accepted = 0
        self.latencies: list[float] = []

    def run(self, seconds: float) -> None:
        """Call until the time is over or no call is left; what is under way stays under way."""
        until_s = time.perf_counter() + seconds
        while time.perf_counter() < until_s or len(self.latencies) < LATENCIES_MIN:
            self._fill()
            if not self._sent_s:
                return
            self._take()

    def finish(self) -> None:
        """Take the answers that are still to come."""
        while self._sent_s:
            self._take()
        self._socket.close()

    def _fill(self) -> None:
        ready = list(itertools.islice(self._calls, CALLS_UNDER_WAY - len(self._sent_s)))
        if ready:
            self._sent_s.extend([time.perf_counter()] * len(ready))
            self._socket.sendall(b"".join(ready))

    def _take(self) -> None:
        self._reader.feed(self._socket.recv(READ_BYTES))
        while (reply := self._reader.gets()) is not False:
            if isinstance(reply, hiredis.ReplyError):
                raise reply
            _, _, verdicts, _ = reply
            self.latencies.append(time.perf_counter() - self._sent_s.popleft())
            self.calls += 1
            self.records += len(verdicts)
            self.accepted += verdicts.count(0)


def connected(endpoint: Endpoint) -> socket.socket:
    """A blocking connection to a private Valkey."""
    if endpoint.unix_path:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(endpoint.unix_path)
        return connection
    connection = socket.create_connection((endpoint.host, endpoint.port))
    connection.sendall(packed("AUTH", endpoint.password or ""))
    assert connection.recv(READ_BYTES) == b"+OK\r\n"
    return connection


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _machine_s() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0))


def measured(endpoint: Endpoint, pid: int, calls: list[bytes], seconds: float, warm_seconds: float) -> Figures:
    """Warm up, then measure. Raises hiredis.ReplyError if a call is refused."""
    server, client, caller = psutil.Process(pid), psutil.Process(), Caller(endpoint, calls)
    caller.run(warm_seconds)
    caller.latencies.clear()
    calls_before, records_before = caller.calls, caller.records
    before = (time.perf_counter(), _cpu_s(server), _cpu_s(client), _machine_s())
    caller.run(seconds)
    after = (time.perf_counter(), _cpu_s(server), _cpu_s(client), _machine_s())
    spent_s, server_s, client_s, machine_s = (late - early for early, late in zip(before, after, strict=True))
    made = caller.calls - calls_before, caller.records - records_before
    cuts_ms = _percentiles_ms(caller.latencies)
    caller.finish()
    others_s = machine_s - server_s - client_s
    return Figures(spent_s, *made, *cuts_ms, server_s, client_s, others_s, caller.records, caller.accepted)


def _percentiles_ms(seconds: Sequence[float]) -> tuple[float, float, float]:
    cuts = statistics.quantiles(seconds, n=1000, method="inclusive")
    return cuts[499] * 1e3, cuts[989] * 1e3, cuts[998] * 1e3


def install(endpoint: Endpoint) -> None:
    """Load the claim function."""
    with connected(endpoint) as connection:
        connection.sendall(packed("FUNCTION", "LOAD", LIBRARY_TEXT.read_bytes()))
        answer = connection.recv(READ_BYTES)
        assert answer.startswith(b"$"), answer


async def _bench(records: int, seconds: float, warm_seconds: float) -> Figures:
    count = int(RECORDS_PER_SECOND_MAX * (seconds + warm_seconds) / records)
    rng = Random(1)  # noqa: S311 - load, not secrets
    calls = list(packed_calls(shuffled(count * records, rng), records, rng))
    with tempfile.TemporaryDirectory(prefix="tillgate-") as directory:
        embedded = EmbeddedValkey(Path(directory), on_report=lambda text: print(text, file=sys.stderr))
        endpoint = await embedded.start()
        try:
            assert embedded.pid is not None
            await asyncio.to_thread(install, endpoint)
            return await asyncio.to_thread(measured, endpoint, embedded.pid, calls, seconds, warm_seconds)
        finally:
            await embedded.stop()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m gateway.claim_bench", description="Measure the claim alone.")
    parser.add_argument("--records", type=int, default=64, help="records a call, 1 to 1024")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--warm-seconds", type=float, default=0.5)
    asked = parser.parse_args()
    figures = asyncio.run(_bench(asked.records, asked.seconds, asked.warm_seconds))
    print(msgspec.json.encode(figures).decode())


if __name__ == "__main__":
    main()

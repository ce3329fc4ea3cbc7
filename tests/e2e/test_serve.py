"""The gateway as a process: its ports, its file, its end by signal, and the end of what it needs."""

import asyncio
import os
import resource
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from core_world import new_id, until
from private_valkey import end_private_valkeys
from prometheus_client.parser import text_string_to_metric_families
from stream_world import Closed, TillClient, config_for, prepared, site
from tls_files import write_tls_files

from gateway.config import BadConfig
from gateway.core import wall_ms
from gateway.embedded import EmbeddedLocked
from gateway.ends import ENDS_FILE, Ends
from gateway.keyfile import KeyFault
from gateway.main import GATEWAY_FILE, Served, running
from gateway.messages import Drain, Redeem, RedeemMany, Verdict, Verdicts
from gateway.settings import ServerConfig

PROGRAM = Path(__file__).resolve().parent.parent / "serve_process.py"
END_S = 20.0


async def test_it_answers_over_http_and_tells_where_it_is(tmp_path: Path) -> None:
    async with site(tmp_path / "data") as here:
        assert (await here.get("/livez"))[0] == 200
        status, body = await here.get("/readyz?verbose")
        assert (status, msgspec.json.decode(body)["troubles"]) == (200, [])
        served = msgspec.json.decode((tmp_path / "data" / GATEWAY_FILE).read_bytes(), type=Served)
        assert served == Served(os.getpid(), here.gateway.url, here.gateway.metrics_url)
        assert here.gateway.url.startswith("http://127.0.0.1:")
        assert (await here.get("/metrics"))[0] == 404, "metrics have a port of their own"
    assert not (tmp_path / "data" / GATEWAY_FILE).exists()


async def test_nothing_in_the_data_directory_is_open_to_others(tmp_path: Path) -> None:
    async with site(tmp_path / "data") as here, here.till(1) as till:
        (code,) = await here.w.codes(1)
        assert (await till.verdict(here.w.scan(code)))[0] is Verdict.ACCEPTED
        found = {path.name: path.stat().st_mode & 0o077 for path in (tmp_path / "data").rglob("*")}
    assert {"log.db", "index.db", "index.db-wal", "valkey.log", GATEWAY_FILE} <= found.keys()
    assert [name for name, open_bits in found.items() if open_bits] == []


async def test_what_was_redeemed_is_on_the_metrics_page(tmp_path: Path) -> None:
    async with site(tmp_path / "data") as here:
        (code,) = await here.w.codes(1)
        async with here.till(1) as till:
            assert (await till.verdict(here.w.scan(code)))[0] is Verdict.ACCEPTED
            status, text = await here.get(here.gateway.metrics_url)
        assert status == 200
        assert code not in text.decode()
        samples = {
            (sample.name, *sorted(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(text.decode())
            for sample in family.samples
        }
        assert samples["tillgate_redeem_requests_total", "accepted", "accepted", "stream"] == 1
        assert samples["tillgate_redeem_store_requests_total", "accepted", "s1"] == 1
        assert samples["tillgate_terminals_connected", "s1"] == 1
        assert samples["tillgate_ready",] == 1
        assert samples["tillgate_events_appended_total", "voucher"] == 1
        assert samples["tillgate_event_log_fsync_duration_seconds_count",] >= 1


async def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    async with site(tmp_path / "data") as here:
        one, two = await here.w.codes(2)
        async with here.till(1) as till:
            first = here.w.scan(one)
            assert (await till.verdict(first))[0] is Verdict.ACCEPTED
    async with site(tmp_path / "data") as here, here.till(1) as till, here.till(2) as other:
        assert (await till.verdict(first))[0] is Verdict.ACCEPTED
        assert (await other.verdict(here.w.scan(one)))[0] is Verdict.ALREADY_REDEEMED
        assert (await other.verdict(here.w.scan(two)))[0] is Verdict.ACCEPTED


async def test_a_valkey_that_dies_is_replaced_and_recovered(tmp_path: Path) -> None:
    async with site(tmp_path / "data") as here, here.till(1) as till:
        one, two = await here.w.codes(2)
        scan, later = here.w.scan(one), here.w.scan(two)
        assert (await till.verdict(scan))[0] is Verdict.ACCEPTED
        valkey = here.gateway.valkey
        assert valkey is not None
        assert valkey.pid is not None
        os.kill(valkey.pid, signal.SIGKILL)
        verdict = Verdict.UNRESOLVED
        while verdict is Verdict.UNRESOLVED:  # what a till does: the same again until something is known
            verdict = (await till.verdict(later))[0]
        assert verdict is Verdict.ACCEPTED
        assert (await till.verdict(scan))[0] is Verdict.ACCEPTED
        assert here.gateway.scrapes.snapshot().valkey_restarts == 1


async def test_tls_from_files(tmp_path: Path) -> None:
    cert, key = write_tls_files(tmp_path)
    server = ServerConfig(port=0, tls_cert=str(cert), tls_key=str(key))
    async with site(tmp_path / "data", server=server) as here:
        assert here.gateway.url.startswith("https://")
        trusting = ssl.create_default_context(cafile=str(cert))
        url = here.gateway.url.replace("127.0.0.1", "localhost") + "/v1/stream"
        async with here.session.ws_connect(url, protocols=["tillgate.v1"], ssl=trusting) as ws:
            till = TillClient(ws, "tillgate.v1")
            await till.greet(1)
            (code,) = await here.w.codes(1)
            assert (await till.verdict(here.w.scan(code)))[0] is Verdict.ACCEPTED


# --- what cannot start says why ---


async def _refused(directory: Path, **changes: Any) -> None:
    async with running(config_for(directory, **changes)):
        raise AssertionError("it started")


async def test_a_directory_without_keys_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyFault, match="tillgate init"):
        await _refused(tmp_path)


async def test_a_certificate_that_is_none_is_refused_by_name(tmp_path: Path) -> None:
    await prepared(tmp_path / "data")
    (tmp_path / "a.pem").write_text("nonsense")
    server = ServerConfig(port=0, tls_cert=str(tmp_path / "a.pem"), tls_key=str(tmp_path / "b.pem"))
    with pytest.raises(BadConfig, match=r"server\.tls_cert .*a\.pem"):
        await _refused(tmp_path / "data", server=server)


async def test_a_second_gateway_on_the_directory_is_refused_and_harms_nothing(tmp_path: Path) -> None:
    async with site(tmp_path / "data") as here:
        with pytest.raises(EmbeddedLocked):
            await _refused(tmp_path / "data")
        assert (tmp_path / "data" / GATEWAY_FILE).exists()
        assert (await here.get("/readyz"))[0] == 200


async def test_a_taken_port_is_an_error_and_leaves_nothing_behind(tmp_path: Path) -> None:
    await prepared(tmp_path / "data")
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match=r"in use: 'server\.host 127"):
        await _refused(tmp_path / "data", server=ServerConfig(port=taken.getsockname()[1]))
    async with site(tmp_path / "data") as here:
        assert (await here.get("/readyz"))[0] == 200


# --- as a process ---


class Process:
    def __init__(self, child: subprocess.Popen[str], url: str) -> None:
        self.child, self.url = child, url


@contextmanager
def process(directory: Path, drain_seconds: float, *more: str) -> Iterator[Process]:
    """A gateway of its own on a prepared directory; its Valkey, which outlives one that ends at once, ends as well."""
    root = PROGRAM.parent.parent
    environ = os.environ | {"PYTHONPATH": f"{root}:{PROGRAM.parent}"}
    command = [sys.executable, str(PROGRAM), str(directory), str(drain_seconds), *more]
    with subprocess.Popen(command, env=environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            line = child.stdout.readline()
            assert line.startswith("ready "), child.stderr and child.stderr.read()
            yield Process(child, line.split()[1])
        finally:
            child.kill()
            child.wait()
            end_private_valkeys(directory)


async def ended(child: subprocess.Popen[str]) -> int:
    return await asyncio.to_thread(child.wait, END_S)


@pytest.fixture
async def furnished(tmp_path: Path) -> tuple[Path, list[str]]:
    """A directory with terminals, a campaign and codes, and no gateway."""
    async with site(tmp_path / "data") as here:
        return tmp_path / "data", await here.w.codes(200)


@asynccontextmanager
async def connected(url: str, number: int) -> AsyncIterator[TillClient]:
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(url + "/v1/stream", protocols=["tillgate.v1"], compress=0) as ws,
    ):
        till = TillClient(ws, "tillgate.v1")
        await till.greet(number)
        yield till


async def status_of(url: str) -> int:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status


async def test_sigterm_drains_and_ends_with_0(furnished: tuple[Path, list[str]]) -> None:
    directory, codes = furnished
    with process(directory, 1.5) as served:
        async with connected(served.url, 1) as till:
            assert await status_of(served.url + "/readyz") == 200
            served.child.send_signal(signal.SIGTERM)
            assert (await till.next(Drain)).within_ms == 1500
            assert await status_of(served.url + "/readyz") == 503
            assert (await till.verdict(_scan(codes[0])))[0] is Verdict.ACCEPTED, "everything works until the end"
            for ref, code in enumerate(codes[1:33]):
                await till.send(RedeemMany(ref, [_scan(code)]))
            answers, closed = await _until_closed(till)
            assert len(answers) == 32, "what was under way is answered"
            assert {answer.codes for answer in answers} == {b"\0"}
            assert (closed.code, closed.notices[0].code) == (1012, "draining")
        assert await ended(served.child) == 0
    assert not (directory / GATEWAY_FILE).exists()


def _scan(code: str) -> Redeem:
    return Redeem(new_id(), code, wall_ms())


async def _until_closed(till: TillClient) -> tuple[list[Verdicts], Closed]:
    answers: list[Verdicts] = []
    while True:
        try:
            answers.append(await till.next(Verdicts))
        except Closed as closed:
            return answers, closed


async def test_a_message_under_way_is_answered_before_the_goodbye(tmp_path: Path) -> None:
    async with site(tmp_path / "data") as here, here.till(1) as till:
        (code,) = await here.w.codes(1)
        valkey = here.gateway.valkey
        assert valkey is not None
        assert valkey.pid is not None
        os.kill(valkey.pid, signal.SIGSTOP)
        await till.send(RedeemMany(1, [here.w.scan(code)]))
        await until(lambda: here.gateway.stream.redeemed.in_flight == 1)
        closing = asyncio.get_running_loop().create_task(here.gateway.stream.close())
        await asyncio.sleep(0)
        os.kill(valkey.pid, signal.SIGCONT)
        assert (await till.next(Verdicts)).codes == b"\0"
        assert (await till.ended()).code == 1012
        await closing


async def test_a_bug_in_a_callback_ends_the_process_with_1(furnished: tuple[Path, list[str]]) -> None:
    with process(furnished[0], 0.0, "bug") as served:
        assert await ended(served.child) == 1
        assert served.child.stderr is not None
        assert "AssertionError: a bug" in served.child.stderr.read()
    ends = Ends(furnished[0] / ENDS_FILE)
    assert ends.counts == {"log": 0, "index": 0, "bug": 1}, "the next gateway tells it"
    ends.close()


async def test_a_second_signal_ends_at_once_with_1(furnished: tuple[Path, list[str]]) -> None:
    directory, codes = furnished
    with process(directory, 60.0) as served:
        async with connected(served.url, 1) as till:
            assert (await till.verdict(_scan(codes[0])))[0] is Verdict.ACCEPTED
            served.child.send_signal(signal.SIGINT)
            await till.next(Drain)
            served.child.send_signal(signal.SIGTERM)
            assert await ended(served.child) == 1
    async with site(directory) as here, here.till(2) as other:
        assert (await other.verdict(here.w.scan(codes[0])))[0] is Verdict.ALREADY_REDEEMED


async def test_a_log_that_fails_ends_the_process_with_1_and_tells_no_yes(furnished: tuple[Path, list[str]]) -> None:
    directory, codes = furnished
    with process(directory, 0.0) as served:
        async with connected(served.url, 1) as till:
            assert (await till.verdict(_scan(codes[0])))[0] is Verdict.ACCEPTED
            full = (1, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
            resource.prlimit(served.child.pid, resource.RLIMIT_FSIZE, full)  # no file grows any more
            scans = [_scan(code) for code in codes[1:65]]
            await till.send(RedeemMany(1, scans))
            answers, _ = await _until_closed(till)
            assert all(set(answer.codes) == {Verdict.UNRESOLVED} for answer in answers)
        assert await ended(served.child) == 1
        assert served.child.stderr is not None
        assert "the gateway ends at once" in served.child.stderr.read()
    async with site(directory) as here, here.till(1) as till:
        await until(lambda: not here.w.core.troubles())
        assert set((await till.redeem(*scans)).codes) == {Verdict.ACCEPTED}, "the same ids, sent again, are answered"

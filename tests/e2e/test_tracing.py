"""Spans as a collector gets them, over real HTTP."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from stream_world import site

from gateway.settings import TracingConfig

pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="not installed: pip install tillgate[otel]")
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from gateway.tracing import TracedMetrics

WAIT_S = 20.0


class Collector:
    """What takes OTLP over HTTP."""

    def __init__(self) -> None:
        self.url = ""
        self.spans: list[object] = []
        self.bodies = b""
        self.service: set[str] = set()

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.bodies += body
        message = ExportTraceServiceRequest.FromString(body)
        for resource in message.resource_spans:
            self.service |= {
                one.value.string_value for one in resource.resource.attributes if one.key == "service.name"
            }
            self.spans += [span for scope in resource.scope_spans for span in scope.spans]
        return web.Response()


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    made, app = Collector(), web.Application()
    app.router.add_post("/v1/traces", made.take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = "http://{}:{}/v1/traces".format(*runner.addresses[0][:2])
    yield made
    await runner.cleanup()


async def test_a_message_and_its_batch_are_told_and_no_secret_is(tmp_path: Path, collector: Collector) -> None:
    tracing = TracingConfig(url=collector.url, ratio=1.0)
    async with site(tmp_path / "data", tracing=tracing) as here:
        codes = await here.w.codes(2)
        scans = [here.w.scan(code) for code in (*codes, codes[0])]
        async with here.till(1) as till:
            await till.redeem(*scans)
    names = {span.name for span in collector.spans}  # type: ignore[attr-defined]
    assert names >= {"redeem", "batch"}
    assert collector.service == {"tillgate"}
    (told,) = [span for span in collector.spans if span.name == "redeem"]  # type: ignore[attr-defined]
    attributes = {one.key: one.value.int_value or one.value.string_value for one in told.attributes}  # type: ignore[attr-defined]
    assert attributes["tillgate.transport"] == "stream"
    assert (attributes["tillgate.scans"], attributes["tillgate.accepted"]) == (3, 2)
    assert told.start_time_unix_nano < told.end_time_unix_nano  # type: ignore[attr-defined]
    for secret in (*codes, *(scan.redemption_id.hex() for scan in scans)):
        assert secret.encode() not in collector.bodies


async def test_what_is_slow_or_unresolved_is_told_without_being_drawn(collector: Collector) -> None:
    metrics = TracedMetrics("1", TracingConfig(url=collector.url, ratio=0.0))
    tally = metrics.tally("redeem", "http")
    tally.in_flight = 3
    tally.answered("s1", b"\x00", 0.001)
    tally.answered("s1", b"\x00", 0.3)
    tally.answered("s1", b"\xff", 0.001)
    await asyncio.to_thread(metrics.close)
    assert sorted(span.status.code for span in collector.spans) == [0, 2]  # type: ignore[attr-defined]
    assert metrics.tally("redeem", "http") is tally
    assert tally.verdicts[0] == 2


async def test_a_collector_that_is_away_holds_up_nobody(tmp_path: Path) -> None:
    tracing = TracingConfig(url="http://127.0.0.1:9/v1/traces", ratio=1.0)
    async with asyncio.timeout(WAIT_S), site(tmp_path / "data", tracing=tracing) as here:
        (code,) = await here.w.codes(1)
        async with here.till(1) as till:
            assert (await till.redeem(here.w.scan(code))).codes == b"\x00"

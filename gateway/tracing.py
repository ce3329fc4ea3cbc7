"""OpenTelemetry spans, for those who collect them: one for a message a till sent, one for a batch of the log.

Made by hand and after the fact, from what is measured anyway: a message's span is from its receipt to its durable
answer, a batch's from its claim until it is durable. A share of `ratio` is told, and of messages every slow or
unresolved one. Without `tracing.url` none of this is loaded and nothing is paid; with it a message costs some 2 us
more, and one that is told some 80 (`make bench-tracing`). No span names a voucher, a code, a terminal or an id.
"""

import logging
import random
import time
from typing import TYPE_CHECKING

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode

from eventstore.log import Batch
from gateway.messages import Verdict
from gateway.metrics import Metrics, Tally

if TYPE_CHECKING:
    from gateway.settings import TracingConfig

SLOW_S = 0.25  # the latency objective of 99.9 %: whoever waited longer is always told
SPANS_WAITING_MAX = 2048  # a collector that is away for long loses the rest; verdicts never wait for it
NANOSECONDS = 1_000_000_000

logging.getLogger("opentelemetry").setLevel(logging.ERROR)  # it would tell each try of a collector that is away


class TracedMetrics(Metrics):
    """Metrics that also tell spans."""

    def __init__(self, version: str, config: "TracingConfig") -> None:
        super().__init__(version)
        resource = Resource.create({"service.name": "tillgate", "service.version": version})
        # Which spans are told is decided here, before one is made.
        self._provider = TracerProvider(resource=resource)
        exporter = OTLPSpanExporter(endpoint=config.url)
        self._provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=SPANS_WAITING_MAX))
        self._tracer = self._provider.get_tracer("tillgate", version)
        self._ratio = config.ratio

    def tally(self, op: str, transport: str) -> Tally:
        """`op`: redeem or reverse; `transport`: stream or http."""
        known = self.tallies.get((op, transport))
        if known is None:
            known = self.tallies[op, transport] = _TracedTally(self, op, transport)
        return known

    def batch(self, batch: Batch, seconds: float) -> None:
        super().batch(batch, seconds)
        if random.random() < self._ratio:  # noqa: S311 - a sample, no secret
            where = {"tillgate.partition": batch.partition, "tillgate.seq": batch.seq}
            self._tell("batch", seconds, {**where, "tillgate.records": len(batch.verdicts)}, SpanKind.INTERNAL)

    def answered(self, op: str, transport: str, codes: bytes | bytearray, seconds: float) -> None:
        """A message was answered: tell it, if it is drawn or remarkable."""
        unresolved = codes.count(Verdict.UNRESOLVED)
        if seconds < SLOW_S and not unresolved and random.random() >= self._ratio:  # noqa: S311 - as above
            return
        counts = {"tillgate.scans": len(codes), "tillgate.accepted": codes.count(0), "tillgate.unresolved": unresolved}
        self._tell(op, seconds, {"tillgate.transport": transport, **counts}, SpanKind.SERVER, failed=unresolved > 0)

    def close(self) -> None:
        """Send what waits, for as long as that takes at most (a few seconds). Blocks."""
        self._provider.shutdown()

    def _tell(
        self, name: str, seconds: float, attributes: dict[str, int | str], kind: SpanKind, *, failed: bool = False
    ) -> None:
        now_ns = time.time_ns()
        began_ns = now_ns - int(seconds * NANOSECONDS)
        span = self._tracer.start_span(name, kind=kind, attributes=attributes, start_time=began_ns)
        if failed:
            span.set_status(Status(StatusCode.ERROR, "unresolved: the till asks again"))
        span.end(end_time=now_ns)


class _TracedTally(Tally):
    __slots__ = ("_metrics", "_op", "_transport")

    def __init__(self, metrics: TracedMetrics, op: str, transport: str) -> None:
        super().__init__(metrics.stores if op == "redeem" else {})
        self._metrics, self._op, self._transport = metrics, op, transport

    def answered(self, store: str, codes: bytes | bytearray, seconds: float) -> None:
        super().answered(store, codes, seconds)
        self._metrics.answered(self._op, self._transport, codes, seconds)

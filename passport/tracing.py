"""Traces of transactions, from the commit to the destination: off unless `tracing.every` is set.

OpenTelemetry is imported when it is on, and finds its collector in OTEL_* variables. Attributes
never hold anything of a patient; those of messaging and Kafka are named as in the semantic
conventions 1.45, which still change.
"""

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from passport.errors import Fatal
from passport.settings import Tracing

TRACEPARENT = "traceparent"  # W3C, as a header of a record

SYSTEM, OPERATION = "messaging.system.name", "messaging.operation.type"
TOPIC, PARTITION, OFFSET = (
    "messaging.destination.name",
    "messaging.destination.partition.id",
    "kafka.offset",
)
COUNT, ERROR = "messaging.batch.message_count", "error.type"
HOSPITAL, DESTINATION = "passport.hospital", "passport.destination"

Attributes = Mapping[str, str | int]
_MS = 1_000_000  # ns

_tracer: Any = None  # None: off
every = 0  # one transaction in so many begins a trace


def start(settings: Tracing) -> None:
    """For the whole process. Fatal when it is asked for, and its packages are not there."""
    global _tracer, every
    if not settings.every:
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        hint = "pip install 'openmrs-passport[otel]', or tracing.every: 0"
        raise Fatal("tracing.every is set, and OpenTelemetry is not installed", hint=hint) from None
    os.environ.setdefault("OTEL_SERVICE_NAME", "openmrs-passport")
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _tracer, every = provider.get_tracer("openmrs-passport"), settings.every


class Trace:
    """Of one transaction at the reader: from its commit until Kafka has its last record."""

    def __init__(self, topic: str, ts_ms: int, attributes: Attributes) -> None:
        from opentelemetry.trace import SpanKind, set_span_in_context

        self._root = _tracer.start_span(
            "transaction", attributes=attributes, start_time=ts_ms * _MS
        )
        parent, known = set_span_in_context(self._root), {**kafka("send", topic), **attributes}
        self._send = _tracer.start_span(
            f"send {topic}", parent, kind=SpanKind.PRODUCER, attributes=known
        )

    @property
    def header(self) -> tuple[str, bytes] | None:
        """Names the span that the consumers go on from; None when the sampler does not want it."""
        at = self._send.get_span_context()
        value = f"00-{at.trace_id:032x}-{at.span_id:016x}-{at.trace_flags:02x}"
        return (TRACEPARENT, value.encode()) if at.trace_flags.sampled else None

    def end(self, count: int, offset: int | None) -> None:
        """`offset`: of the last of `count` records; None: Kafka did not take it."""
        self._send.set_attribute(COUNT, count)
        self._send.set_attribute(
            *((ERROR, "not_acknowledged") if offset is None else (OFFSET, offset))
        )
        self._send.end()
        self._root.end()


def kafka(operation: str, topic: str) -> dict[str, str | int]:
    """What a span says of an operation on a topic."""
    return {SYSTEM: "kafka", OPERATION: operation, TOPIC: topic}


@contextmanager
def step(
    name: str, items: Iterable[Any], attributes: Attributes, *, waited: bool = False
) -> Iterator[None]:
    """A span in each trace of `items` (consumers.partition.Item), of what is done within; `waited`:
    since published.
    """
    found = _traced(items) if _tracer is not None else {}
    began, failed = time.time_ns(), {}
    try:
        yield
    except Exception as error:
        failed = {ERROR: type(error).__name__}
        raise
    finally:
        for parent, item in found.items():
            since = item.event.ts_ms * _MS if waited and item.event else began
            known = {
                **attributes,
                PARTITION: str(item.record.partition),
                OFFSET: item.record.offset,
                **failed,
            }
            _end_one(name, parent, waited, attributes=known, start_time=since)


def _traced(items: Iterable[Any]) -> dict[bytes, Any]:
    """The first item of each trace, by traceparent."""
    found: dict[bytes, Any] = {}
    for item in items:
        for name, value in item.record.headers:
            if name == TRACEPARENT:
                found.setdefault(value, item)
    return found


def _end_one(name: str, traceparent: bytes, waited: bool, **span: Any) -> None:
    """A span that ends now; none where the header is not one."""
    from opentelemetry.trace import SpanKind, get_current_span
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    context = TraceContextTextMapPropagator().extract(
        {TRACEPARENT: traceparent.decode(errors="replace")}
    )
    if get_current_span(context).get_span_context().is_valid:
        kind = SpanKind.CONSUMER if waited else SpanKind.INTERNAL
        _tracer.start_span(name, context, kind=kind, **span).end()

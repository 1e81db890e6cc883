"""Traces of transactions, from the commit to the destination: off unless `tracing.every` is set.

OpenTelemetry is imported only when tracing is on; it finds its collector in OTEL_* variables.
Attributes never hold anything of a patient. Those of messaging and Kafka are named as in the
semantic conventions 1.45, which still change.

The tracer is kept once a process, in this module, as OpenTelemetry itself keeps its provider. When
tracing is off, the cost of a step is one look at it: nothing is passed along with every batch.
"""

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from passport.errors import Fatal
from passport.settings import Tracing

TRACEPARENT = "traceparent"  # the header of a Kafka record, as W3C defines it

# Names of attributes.
SYSTEM = "messaging.system.name"
OPERATION = "messaging.operation.type"
TOPIC = "messaging.destination.name"
PARTITION = "messaging.destination.partition.id"
OFFSET = "kafka.offset"
COUNT = "messaging.batch.message_count"
ERROR = "error.type"
HOSPITAL = "passport.hospital"
DESTINATION = "passport.destination"

Attributes = Mapping[str, str | int]
_MS = 1_000_000  # nanoseconds

_tracer: Any = None  # None: tracing is off


def start(settings: Tracing) -> None:
    """Trace in this process from now on, if the settings say so.

    Raises Fatal when tracing is asked for and its packages are not installed.
    """
    global _tracer  # noqa: PLW0603  # the docstring of the module says why
    if not settings.every:
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise Fatal(
            "tracing.every is set, and OpenTelemetry is not installed",
            hint="pip install 'openmrs-passport[otel]', or tracing.every: 0",
        ) from None
    os.environ.setdefault("OTEL_SERVICE_NAME", "openmrs-passport")
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _tracer = provider.get_tracer("openmrs-passport")


class Trace:
    """One transaction's trace at the reader: from its commit until Kafka has its last record."""

    def __init__(self, topic: str, ts_ms: int, attributes: Attributes) -> None:
        from opentelemetry.trace import SpanKind, set_span_in_context

        self._root = _tracer.start_span(
            "transaction", attributes=attributes, start_time=ts_ms * _MS
        )
        self._send = _tracer.start_span(
            f"send {topic}",
            set_span_in_context(self._root),
            kind=SpanKind.PRODUCER,
            attributes={**kafka("send", topic), **attributes},
        )

    @property
    def header(self) -> tuple[str, bytes] | None:
        """The record header that the consumers' spans go on from.

        It is None when the sampler doesn't want this trace.
        """
        at = self._send.get_span_context()
        if not at.trace_flags.sampled:
            return None
        value = f"00-{at.trace_id:032x}-{at.span_id:016x}-{at.trace_flags:02x}"
        return TRACEPARENT, value.encode()

    def end(self, count: int, offset: int | None) -> None:
        """End the trace of `count` records.

        `offset` is that of the last record. It is None if Kafka did not take it.
        """
        self._send.set_attribute(COUNT, count)
        if offset is None:
            self._send.set_attribute(ERROR, "not_acknowledged")
        else:
            self._send.set_attribute(OFFSET, offset)
        self._send.end()
        self._root.end()


def kafka(operation: str, topic: str) -> dict[str, str | int]:
    """Return the attributes of a span about an operation on a topic."""
    return {SYSTEM: "kafka", OPERATION: operation, TOPIC: topic}


@contextmanager
def step(
    name: str, items: Iterable[Any], attributes: Attributes, *, waited: bool = False
) -> Iterator[None]:
    """Add a span about what is done within to the trace of each of `items`.

    `items` are those of consumers/partition.py. With `waited` a span begins when its record was
    published, and not now.
    """
    first_items = _first_items(items) if _tracer is not None else {}
    began_ns = time.time_ns()
    failure: dict[str, str | int] = {}
    try:
        yield
    except Exception as error:
        failure = {ERROR: type(error).__name__}
        raise
    finally:
        for traceparent, item in first_items.items():
            start_ns = began_ns
            if waited and item.published_ms is not None:
                start_ns = item.published_ms * _MS
            own_attributes = {
                **attributes,
                PARTITION: str(item.record.partition),
                OFFSET: item.record.offset,
                **failure,
            }
            _add_span(name, traceparent, waited, attributes=own_attributes, start_time=start_ns)


def _first_items(items: Iterable[Any]) -> dict[bytes, Any]:
    """Return the first item of each trace, by its traceparent."""
    first_items: dict[bytes, Any] = {}
    for item in items:
        for name, value in item.record.headers:
            if name == TRACEPARENT:
                first_items.setdefault(value, item)
    return first_items


def _add_span(name: str, traceparent: bytes, waited: bool, **span: Any) -> None:
    """Add a span that ends now. A header that is no traceparent adds none."""
    from opentelemetry.trace import SpanKind, get_current_span
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    context = TraceContextTextMapPropagator().extract(
        {TRACEPARENT: traceparent.decode(errors="replace")}
    )
    if get_current_span(context).get_span_context().is_valid:
        kind = SpanKind.CONSUMER if waited else SpanKind.INTERNAL
        _tracer.start_span(name, context, kind=kind, **span).end()

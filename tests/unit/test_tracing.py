"""Traces: nothing of them when they are off; when on, a header that the consumer's spans go on
from.
"""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Sampler

from cdc.binlog.changes import RowChange
from cdc.transaction import Transaction, TransactionTraces
from consumers.partition import RejectedRecord
from passport import tracing
from passport.errors import Fatal, NotReady, Reject
from passport.kafka import Record
from passport.settings import Tracing
from passport.version import Position

AT = Position("b.000001", 4)


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    switch_on(monkeypatch, exporter)
    return exporter


def switch_on(
    monkeypatch: pytest.MonkeyPatch, exporter: InMemorySpanExporter, sampler: Sampler | None = None
) -> None:
    provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "_tracer", provider.get_tracer("test"))


class Publisher:
    """cdc.publisher.Publisher's stand-in: everything is acknowledged when the test says so."""

    def __init__(self) -> None:
        self.sent = 0
        self.headers: list[Any] = []
        self._header: Any = None
        self.told: list[Any] = []

    def send(self, kind: str, value: bytes) -> int:
        self.headers.append(self._header)
        self.sent += 1
        return self.sent

    def set_trace_header(self, header: Any) -> None:
        self._header = header

    def when_acked(self, tell: Any) -> None:
        self.told.append(tell)


class Envelopes:
    def row(self, *_: Any, **__: Any) -> bytes:
        return b""


def transactions(publisher: Publisher, *sizes: int, one_in: int = 1) -> None:
    kafka: Any = publisher
    envelopes: Any = Envelopes()
    attributes = {tracing.HOSPITAL: "kigali"}
    traces = TransactionTraces(kafka, "changes", attributes, one_in=one_in)
    transaction = Transaction("kigali", kafka, envelopes, AT, traces)
    for size in sizes:
        for number in range(size):
            transaction.row(RowChange("c", None, "{}", AT, number, 1_768_471_390, ""))
        transaction.commit(AT)


def item(*headers: tuple[str, bytes], offset: int = 7) -> RejectedRecord:
    return RejectedRecord(Record(0, offset, b"kigali", b"", headers), Reject("malformed"))


def test_off_nothing_of_it_is_imported() -> None:
    code = (
        "import sys, passport.tracing as t, cli;"
        " from passport.settings import Tracing; t.start(Tracing());"
    )
    code += (
        " import cdc.reader, consumers.worker; sys.exit(any('opentelemetry' in name for"
        " name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_off_a_step_does_not_look_at_the_records() -> None:
    with tracing.step("write", None, {}):  # type: ignore[arg-type]
        pass


def test_without_its_packages_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(Fatal, match=r"openmrs-passport\[otel\]"):
        tracing.start(Tracing(every=1))


def test_the_consumers_spans_go_on_from_the_header(spans: InMemorySpanExporter) -> None:
    publisher = Publisher()
    transactions(publisher, 2)
    assert not spans.get_finished_spans(), "Kafka has not said that it has it"
    (tell,) = publisher.told
    tell(41)
    header, again = publisher.headers
    assert header == again
    with tracing.step("write", [item(), item(("ce_type", b"row"), header)], {tracing.COUNT: 2}):
        pass
    send, root, write = spans.get_finished_spans()
    assert (root.parent, parent(send), parent(write)) == (None, identity(root), identity(send))
    assert root.start_time == 1_768_471_390 * 10**9
    assert said(send) >= {(tracing.COUNT, 2), (tracing.OFFSET, 41), (tracing.TOPIC, "changes")}
    assert said(write) == {(tracing.COUNT, 2), (tracing.OFFSET, 7), (tracing.PARTITION, "0")}


def identity(span: ReadableSpan) -> tuple[int, int]:
    assert span.context
    return span.context.trace_id, span.context.span_id


def parent(span: ReadableSpan) -> tuple[int, int]:
    assert span.parent
    return span.parent.trace_id, span.parent.span_id


def said(span: ReadableSpan) -> set[tuple[str, Any]]:
    return set((span.attributes or {}).items())


@pytest.mark.usefixtures("spans")
def test_one_transaction_in_so_many() -> None:
    publisher = Publisher()
    transactions(publisher, 1, 2, 1, 2, 1, one_in=3)
    assert [header is not None for header in publisher.headers] == [
        True,
        False,
        False,
        False,
        True,
        True,
        False,
    ]


def test_what_the_sampler_does_not_want_has_no_header(monkeypatch: pytest.MonkeyPatch) -> None:
    switch_on(monkeypatch, InMemorySpanExporter(), ALWAYS_OFF)
    publisher = Publisher()
    transactions(publisher, 1)
    assert publisher.headers == [None]


def test_a_step_that_fails_is_said_to_be_without_its_text(spans: InMemorySpanExporter) -> None:
    publisher = Publisher()
    transactions(publisher, 1)
    with pytest.raises(NotReady), tracing.step("enrich", [item(publisher.headers[0])], {}):
        raise NotReady("Alice", hint="Uwase")
    (enrich,) = spans.get_finished_spans()
    assert (tracing.ERROR, "NotReady") in said(enrich)
    assert "Alice" not in enrich.to_json()
    assert not enrich.events


def test_what_kafka_does_not_take_is_an_error(spans: InMemorySpanExporter) -> None:
    publisher = Publisher()
    transactions(publisher, 1)
    publisher.told[0](None)
    assert (tracing.ERROR, "not_acknowledged") in said(spans.get_finished_spans()[0])


@pytest.mark.parametrize(
    "value", [b"", b"\xff", b"00-0-0-01", b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01"]
)
def test_a_header_that_is_none_makes_no_span(spans: InMemorySpanExporter, value: bytes) -> None:
    with tracing.step("write", [item((tracing.TRACEPARENT, value))], {}):
        pass
    assert not spans.get_finished_spans()

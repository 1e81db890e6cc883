"""One connected trace from the hospital's commit to MongoDB, on real servers; it says where a late
result waited.
"""

import json
import threading
import time
import uuid
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from dev import hospital as generator
from passport import tracing
from tests.e2e.roles import Role
from tests.e2e.stage import Hospital, Stage, opened
from tests.e2e.test_privacy import found_in, private
from tests.e2e.topic import TOPIC, raw
from tests.eventually import eventually

KNOWN = {
    value for name, value in vars(tracing).items() if name.isupper() and isinstance(value, str)
}
AWAY_S = 3.0
CLOCK_S = 0.01  # a time in ms is cut off, and two of them are compared


@dataclass
class Span:
    """As it came over OTLP; times in s."""

    trace: str
    id: str
    parent: str
    name: str
    start: float
    end: float
    attributes: dict[str, Any]
    text: str


@dataclass
class Collector:
    """An OTLP/HTTP receiver. `text`: all that it was sent, as JSON."""

    url: str = ""
    spans: list[Span] = field(default_factory=list)
    text: str = ""

    def take(self, body: bytes) -> None:
        told = MessageToDict(ExportTraceServiceRequest.FromString(body))
        self.text += json.dumps(told)
        for resource in told["resourceSpans"]:
            for scope in resource["scopeSpans"]:
                self.spans += map(as_span, scope["spans"])

    def spans_of(self, traceparent: str, name: str) -> list[Span]:
        """The spans of this name in that trace.

        There are several if a consumer got the records of one transaction in several batches.
        """
        trace = traceparent.split("-")[1]
        found = [span for span in self.spans if span.trace == trace]
        return [span for span in found if span.name.removesuffix(f" {TOPIC}") == name]

    def trace_of(self, traceparent: str) -> dict[str, Span]:
        """The spans of that trace, by name: of several of a name the one that ended last."""
        found = [span for span in self.spans if span.trace == traceparent.split("-")[1]]
        found.sort(key=lambda span: span.end)
        return {span.name.removesuffix(f" {TOPIC}"): span for span in found}


def as_span(one: dict[str, Any]) -> Span:
    said = {each["key"]: next(iter(each["value"].values())) for each in one.get("attributes", ())}
    trace, own, parent = (
        b64decode(one.get(name, "")).hex() for name in ("traceId", "spanId", "parentSpanId")
    )
    start, end = (int(one[name]) / 1e9 for name in ("startTimeUnixNano", "endTimeUnixNano"))
    return Span(trace, own, parent, one["name"], start, end, said, json.dumps(one))


@contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            collector.take(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Requests are not logged."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Scene:
    """A hospital that is read and applied, with each transaction traced."""

    def __init__(self, stage: Stage, collector: Collector, person: int) -> None:
        self.stage, self.collector, self.person = stage, collector, person
        self.kigali = stage.hospitals["kigali"]
        extra = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "200"}
        self.reader: Role = stage.role("cdc", "run", "--hospital", "kigali", **extra)
        self.consumer: Role = stage.role("consume", "--destination", "passport", **extra)
        self.secrets: list[str] = []

    def commit(self) -> tuple[str, float, float]:
        """Three results in words that nothing else holds: (the last one's, Unix times around the
        transaction).
        """
        words = [f"CANARY{uuid.uuid4().hex}" for _ in range(3)]
        self.secrets += words
        with self.kigali.connect(autocommit=False) as connection, connection.cursor() as cursor:
            before = time.time()
            for word in words:
                cursor.execute(
                    "INSERT INTO obs (person_id, concept_id, obs_datetime, value_text,"
                    " creator, date_created,"
                    " voided, uuid) SELECT %s, MIN(concept_id), NOW(), %s, 1, NOW(), 0,"
                    " UUID() FROM concept"
                    " JOIN concept_datatype d ON d.concept_datatype_id = datatype_id"
                    " WHERE d.name = 'Text'",
                    (self.person, word),
                )
            connection.commit()
            return words[-1], before, time.time()

    def stored(self, word: str) -> float:
        eventually(
            lambda: self.stage.db["observations"].find_one({"row.value_text": word}), "it is stored"
        )
        return time.time()

    def headers(self, word: str) -> dict[str, str]:
        """Of the record that carries it, with its offset."""
        record = [one for one in raw(self.stage, 0) if word.encode() in one.value][-1]
        return {name: value.decode() for name, value in record.headers} | {
            "offset": str(record.offset)
        }


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder: Path = tmp_path_factory.mktemp("tracing")
    kigali = Hospital("kigali", 0, generator.NATIONAL_ID_TYPE)
    with collecting() as collector, opened(folder, kigali, tracing={"every": 1}) as stage:
        with kigali.connect() as connection:
            generator.create(connection, seed=43, patients=20, visits=1)
            able = generator.registrable(connection)
        generator.passport_patients(stage.db, [digits for _, digits in able])
        stage.grant()
        scene = Scene(stage, collector, able[0][0])
        scene.stored(scene.commit()[0])
        yield scene


def whole(scene: Scene, word: str) -> dict[str, Span]:
    """The trace of the transaction whose last result says `word`, once it is here."""
    at = scene.headers(word)
    assert at["ce_type"] == "row"
    wanted = {"transaction", "send", "receive", "enrich", "write"}

    def rows_in(name: str) -> int:
        """The rows that the spans of this name tell of."""
        spans = scene.collector.spans_of(at["traceparent"], name)
        return sum(int(span.attributes[tracing.COUNT]) for span in spans)

    def is_whole() -> bool:
        names = scene.collector.trace_of(at["traceparent"]).keys()
        batches = {
            len(scene.collector.spans_of(at["traceparent"], name))
            for name in ("receive", "enrich", "write")
        }
        return names == wanted and rows_in("enrich") == rows_in("send") and len(batches) == 1

    eventually(is_whole, "the whole trace is here", 30)
    spans = scene.collector.trace_of(at["traceparent"])
    assert spans["send"].id == at["traceparent"].split("-")[2]
    assert spans["send"].attributes[tracing.OFFSET] == at["offset"]
    return spans


def test_it_is_connected_from_the_commit_to_mongodb(scene: Scene) -> None:
    word, before, after = scene.commit()
    stored = scene.stored(word)
    spans = whole(scene, word)
    root, send, receive, enrich, write = (
        spans[one] for one in ("transaction", "send", "receive", "enrich", "write")
    )
    assert (root.parent, send.parent) == ("", root.id)
    assert {receive.parent, enrich.parent, write.parent} == {send.id}
    assert int(before) <= root.start <= after, "the binlog knows whole seconds"
    assert root.start <= send.start <= send.end <= root.end
    assert before <= send.start <= receive.start + CLOCK_S
    assert (
        receive.start
        <= receive.end
        <= enrich.start
        <= enrich.end
        <= write.start
        <= write.end
        <= stored + 1
    )
    assert send.attributes[tracing.COUNT] == "3"
    assert (
        send.attributes.items()
        >= {tracing.SYSTEM: "kafka", tracing.TOPIC: TOPIC, tracing.PARTITION: "0"}.items()
    )


def test_it_says_where_a_late_result_waited(scene: Scene) -> None:
    scene.consumer.stop()
    word, *_ = scene.commit()
    time.sleep(AWAY_S)
    scene.consumer.start()
    scene.stored(word)
    took = {name: span.end - span.start for name, span in whole(scene, word).items()}
    assert took["receive"] > AWAY_S
    assert max(took[one] for one in ("send", "enrich", "write")) < AWAY_S


def test_nothing_of_a_patient_is_in_it(scene: Scene) -> None:
    assert {name for span in scene.collector.spans for name in span.attributes} <= KNOWN
    with scene.kigali.connect() as connection:
        secrets = [*scene.secrets, *private(connection)]
    assert len(scene.collector.spans) >= 10
    assert not found_in(scene.collector.text, secrets)
    assert found_in(scene.collector.text + secrets[0], secrets), "the search finds what is there"

"""Lag and readiness are told as they are: while Kafka takes nothing, while a reader waits for its
lease, and while polling fails.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import NewTopic
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from cdc.lease import Lease
from cdc.polling import poll
from cdc.positions import Positions
from dev.stack import Kafka, MariaDB
from passport import health
from passport import kafka as passport_kafka
from passport.errors import NotReady, PassportError
from passport.kafka import read_topic, topic_offsets
from passport.settings import Settings
from tests.beside import beside
from tests.eventually import eventually
from tests.hospitals import assert_equal, hospital, is_snapshot_done, reading
from tests.reader_process import catch_up, running
from tests.servers import Address, fresh_name
from tests.settings import kafka_settings

READER = "hospital kigali: reader"
LEASE = "hospital kigali: lease"
POLLING = "hospital kigali: polling"


@pytest.fixture(scope="module")
def server(module_own: Callable[..., Any]) -> MariaDB:
    own: MariaDB = module_own(MariaDB)
    return own


@pytest.fixture(scope="module")
def address(server: MariaDB) -> Address:
    return hospital(server, patients=5)


@pytest.fixture(scope="module")
def kafka(module_own: Callable[..., Any]) -> Kafka:
    own: Kafka = module_own(Kafka)
    return own


def lag_s() -> float:
    lag = REGISTRY.get_sample_value("passport_cdc_lag_seconds", {"hospital": "kigali"})
    assert lag is not None
    return lag


def is_streaming() -> bool:
    """Return whether the reader reads, and says that it is well."""
    connected = REGISTRY.get_sample_value("passport_cdc_connected", {"hospital": "kigali"})
    return connected == 1 and not {READER, LEASE} & health.failures().keys()


def is_snapshot_saved(settings: Settings) -> bool:
    try:
        return is_snapshot_done(settings)
    except PassportError:  # a busy broker
        return False


def topic_end(settings: Settings) -> int:
    return topic_offsets(settings.kafka, settings.kafka.topic)[0].end


def account_of(address: Address) -> str:
    ((user, host),) = address.execute("SELECT user, host FROM mysql.user WHERE user = 'cdc'")
    return f"'{user}'@'{host}'"


def reason(part: str) -> str:
    return health.failures().get(part, "")


@contextmanager
def resumed(kafka: Kafka) -> Iterator[None]:
    """Let the broker go on at the end, also after a failure: other tests need it."""
    try:
        yield
    finally:
        kafka.resume()


def test_a14_lag_and_readiness_while_kafka_acknowledges_nothing(
    address: Address, kafka: Kafka
) -> None:
    settings = reading(address, kafka.url)
    with running(settings), resumed(kafka):
        # From then on there is no position to be saved, and only heartbeats are sent. After some of
        # them the reader has all its connections to Kafka.
        eventually(lambda: is_snapshot_saved(settings), "the snapshot is done")
        end = topic_end(settings)
        eventually(lambda: topic_end(settings) >= end + 10, "heartbeats are sent")
        eventually(lambda: is_streaming() and lag_s() == 0, "all is published")
        kafka.pause()
        # Quiet: nothing is late, and yet Kafka takes no heartbeat.
        eventually(
            lambda: "acknowledges nothing" in reason(READER), "the reader isn't ready", within_s=30
        )
        assert lag_s() == 0

        before = time.time()
        address.execute("UPDATE obs SET comments = 'waits' WHERE obs_id = 1")
        committed = time.time()
        eventually(lambda: lag_s() > 2, "the lag grows", within_s=30)
        # The binlog's clock has whole seconds.
        assert time.time() - committed - 0.1 <= lag_s() <= time.time() - before + 1.1
        kafka.resume()
        eventually(lambda: is_streaming() and lag_s() == 0, "the reader is ready, without a lag")
    catch_up(settings)
    assert_equal(settings, address)


def test_a14_a_reader_that_waits_for_its_lease_is_not_ready(
    address: Address, kafka_bootstrap: str
) -> None:
    settings = reading(address, kafka_bootstrap)
    mysql = settings.hospitals["kigali"].mysql
    with closing(Lease("kigali", mysql)) as other:
        assert other.take(Positions(settings.kafka).reader_name("kigali"), threading.Event())
        with running(settings):
            eventually(lambda: reason(LEASE), "the reader waits", within_s=30)
            assert "another reader holds the lease" in reason(LEASE)
            assert "passport status" in reason(LEASE)
            other.close()
            eventually(is_streaming, "the reader has the lease")
            assert LEASE not in health.failures()


def test_a21_polling_that_fails_is_not_ready_and_says_the_newest_cause(
    server: MariaDB, address: Address, kafka_bootstrap: str
) -> None:
    settings = reading(
        address, kafka_bootstrap, hospital={"capture": "polling", "poll_interval_s": 0.5}
    )

    account = account_of(address)

    def work(stop: threading.Event) -> None:
        poll.run("kigali", settings, once=False, stop=stop)

    with capture_logs() as logs, beside(work):
        eventually(lambda: any(line["event"] == "polled" for line in logs), "it is polled")
        assert POLLING not in health.failures()

        address.execute(f"ALTER USER {account} ACCOUNT LOCK")
        eventually(lambda: "OperationalError 4151" in reason(POLLING), "the cause is told")
        server.kill()
        eventually(lambda: "OperationalError 2003" in reason(POLLING), "the next cause is told")
        assert "passport check --hospital kigali" in reason(POLLING)

        server.start()
        address.execute(f"ALTER USER {account} ACCOUNT UNLOCK")
        eventually(lambda: POLLING not in health.failures(), "it is polled again")
    interrupted = [line for line in logs if line["event"] == "polling interrupted"]
    assert interrupted
    for line in interrupted:
        assert line["hint"]
        assert "kigali" in line["reason"]


@pytest.mark.long
def test_a24_whatever_query_of_a_poll_fails_is_told(address: Address, kafka_bootstrap: str) -> None:
    """The server refuses the account's n-th statement, for each n until a poll gets through."""
    settings = reading(address, kafka_bootstrap, hospital={"capture": "polling"})
    account = account_of(address)

    def limit_to(statements: int) -> None:
        address.execute(
            f"ALTER USER {account} WITH MAX_QUERIES_PER_HOUR {statements}",
            "FLUSH USER_RESOURCES",
        )

    refused = 0
    try:
        for statements in range(1, 200):
            limit_to(statements)
            try:
                poll.run("kigali", settings, once=True, stop=threading.Event())
                break
            except PassportError as error:
                refused += "1226" in error.reason
    finally:
        limit_to(0)
    assert refused > 20


def test_a24_a_read_of_a_topic_ends_when_kafka_gives_nothing_more(
    kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = fresh_name()
    admin = KafkaAdminClient(bootstrap_servers=kafka.url)
    admin.create_topics([NewTopic(topic, 1, 1)])
    admin.close()
    producer = KafkaProducer(bootstrap_servers=kafka.url)
    for _ in range(1_000):
        producer.send(topic, b"x" * 10_000, partition=0)
    producer.close()

    monkeypatch.setattr(passport_kafka, "READ_S", 1.0)
    pages = read_topic(kafka_settings(kafka.url, topic), topic)
    read = [len(next(pages))]
    ended_with: list[PassportError] = []

    def read_on() -> None:
        try:
            read.extend(len(page) for page in pages)
        except PassportError as error:
            ended_with.append(error)

    kafka.pause()
    reader = threading.Thread(target=read_on, daemon=True)
    reader.start()
    try:
        eventually(lambda: not reader.is_alive(), "the read has ended", within_s=60)
    finally:
        kafka.resume()
    (error,) = ended_with
    assert isinstance(error, NotReady)
    assert f"gives nothing of topic {topic}" in error.reason
    assert 0 < sum(read) < 1_000, "it broke off within the topic"

"""TLS to every server, with an authority of the tests: a good certificate is taken, every other is
refused.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ScramMechanism, UserScramCredentialUpsertion
from pymongo import MongoClient

from cdc import topics
from cdc.kafka import close_producer, open_producer
from destinations.mongo.client import connected
from dev.stack import Kafka, MariaDB, Mongo, MySQL, ports
from openmrs import connection as source
from passport import settings
from passport.errors import Fatal, NotReady, PassportError
from passport.kafka import read_topic, topic_offsets
from tests import stream
from tests.certificates import Authority
from tests.eventually import eventually
from tests.hospitals import PASSWORD, assert_equal, hospital
from tests.reader_process import catch_up
from tests.servers import fresh_name


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Of whom no server has a certificate."""
    return Authority(tmp_path_factory.mktemp("stranger"), "a stranger")


def encrypted(connection: Any) -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SHOW STATUS LIKE 'Ssl_cipher'")
        return bool(cursor.fetchone()[1])


# --- the hospital's server


def flags(authority: Authority, **options: Any) -> list[str]:
    certificate, key = authority.server("mysql", **options)
    return [f"--ssl-ca={authority.file}", f"--ssl-cert={certificate}", f"--ssl-key={key}"]


@pytest.mark.parametrize("kind", [MariaDB, MySQL])
def test_a_hospital_is_read_over_verified_tls(
    own: Callable[..., Any],
    kafka_bootstrap: str,
    authority: Authority,
    stranger: Authority,
    kind: Any,
) -> None:
    address = hospital(own(kind, flags=flags(authority)), patients=3)
    own_account = {"user": "cdc", "password": PASSWORD}
    address.execute("ALTER USER cdc@'%' REQUIRE SSL")
    tls = settings.Tls(mode="verify_identity", ca=str(authority.file))
    with source.connect("kigali", address.settings(**own_account, tls=tls)) as connection:
        assert encrypted(connection)
    reading = stream.settings(
        address.settings(**own_account, tls=tls), kafka_bootstrap, fresh_name()
    )
    catch_up(reading)
    assert_equal(reading, address)
    for wrong in (
        settings.Tls(mode="verify_identity", ca=str(stranger.file)),
        settings.Tls(mode="verify_identity"),
    ):
        with pytest.raises(Fatal, match="TLS") as caught:
            source.connect("kigali", address.settings(**own_account, tls=wrong))
        assert "mysql.tls" in caught.value.hint
    with pytest.raises(Fatal, match="refuses"):
        source.connect("kigali", address.settings(**own_account, tls=settings.Tls(mode="disabled")))


@pytest.mark.parametrize(
    ("options", "taken"), [({"host": "elsewhere.example"}, "verify_ca"), ({"days": -1}, None)]
)
def test_row_47_a_hospitals_wrong_certificate_is_refused(
    own: Callable[..., Any], authority: Authority, options: dict[str, Any], taken: str | None
) -> None:
    server = own(MariaDB, flags=flags(authority, **options))
    for mode in ("verify_identity", "verify_ca"):
        mysql = settings.MySQL(
            host="127.0.0.1",
            port=server.port,
            user="root",
            database="mysql",
            tls=settings.Tls(mode=mode, ca=str(authority.file)),
        )
        if mode == taken:
            source.connect("kigali", mysql).close()
        else:
            with pytest.raises(Fatal, match="TLS"):
                source.connect("kigali", mysql)


# --- Kafka


@pytest.fixture(scope="module")
def secured(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority
) -> Iterator[tuple[Kafka, str]]:
    """A broker that takes SCRAM over TLS at the address given, and an account there."""
    folder = tmp_path_factory.mktemp("kafka")
    port = ports.kept(folder / "secured.port")
    module = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    broker_ = Kafka(
        folder,
        settings=[
            f"listeners=PLAINTEXT://127.0.0.1:{{port}},SECURED://127.0.0.1:{port},CONTROLLER://127.0.0.1:{{controller}}",
            f"advertised.listeners=PLAINTEXT://127.0.0.1:{{port}},SECURED://127.0.0.1:{port}",
            "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SECURED:SASL_SSL",
            "ssl.keystore.type=PEM",
            f"ssl.keystore.location={authority.bundle('kafka')}",
            "listener.name.secured.sasl.enabled.mechanisms=SCRAM-SHA-512",
            f"listener.name.secured.scram-sha-512.sasl.jaas.config={module}",
        ],
    )
    with broker_:
        admin = KafkaAdminClient(bootstrap_servers=broker_.url)
        mechanism = ScramMechanism.SCRAM_SHA_512
        admin.alter_user_scram_credentials(
            [UserScramCredentialUpsertion("passport", mechanism, b"a-password", 4096)]
        )
        admin.close()
        yield broker_, f"127.0.0.1:{port}"


def scram(address: str, ca: Path, password: str = "a-password") -> settings.Kafka:  # noqa: S107
    return settings.Kafka(
        bootstrap=address,
        topic=fresh_name(),
        positions_topic=fresh_name(),
        dead_letters_topic=fresh_name(),
        security_protocol="SASL_SSL",
        sasl_mechanism="SCRAM-SHA-512",
        sasl_username="passport",
        sasl_password=password,
        ssl_cafile=str(ca),
    )


def test_kafka_is_written_and_read_over_verified_tls_with_scram(
    secured: tuple[Kafka, str], authority: Authority
) -> None:
    kafka = scram(secured[1], authority.file)
    topics.ensure(kafka, [])
    producer = open_producer(kafka)
    producer.send(kafka.positions_topic, b"there", key=b"kigali", partition=0).get(10)
    close_producer(producer)
    batches = read_topic(kafka, kafka.positions_topic)
    assert [record.value for batch in batches for record in batch] == [b"there"]


def test_kafka_with_an_unknown_authority_is_not_used(
    secured: tuple[Kafka, str], stranger: Authority
) -> None:
    with pytest.raises((Fatal, NotReady)) as failed:
        topic_offsets(scram(secured[1], stranger.file), "any")
    assert "kafka.sasl_*" in failed.value.hint
    assert "kafka.ssl_cafile" in failed.value.hint


def test_a_refusal_that_the_client_keeps_to_itself_is_told(
    secured: tuple[Kafka, str], authority: Authority
) -> None:
    """It says that it found no broker, and in its log what the broker answered.

    It loses some of the answers, since the broker closes the connection at once.
    """
    wrong = scram(secured[1], authority.file, password="wrong")

    def is_refused() -> bool:
        with pytest.raises((Fatal, NotReady)) as failed:
            topic_offsets(wrong, "any")
        return isinstance(failed.value, Fatal) and ".sasl_*" in failed.value.hint

    eventually(is_refused, "the broker's answer is told")


# --- MongoDB


def test_mongodb_over_verified_tls_and_what_is_refused(
    own: Callable[..., Any], authority: Authority, stranger: Authority
) -> None:
    options = ["--tlsMode", "preferTLS", "--tlsCertificateKeyFile", str(authority.bundle("mongo"))]
    options += ["--tlsCAFile", str(authority.file), "--tlsAllowConnectionsWithoutCertificates"]
    mongo = own(Mongo, flags=options)
    good = f"{mongo.url}&tls=true&tlsCAFile={authority.file}"
    client, database = connected(good, "passport")
    with client:
        database["things"].insert_one({"it": "is there"})
    with MongoClient[Any](mongo.url) as plain:
        assert plain["passport"]["things"].count_documents({}) == 1
    with pytest.raises(PassportError):
        connected(f"{mongo.url}&tls=true&tlsCAFile={stranger.file}", "passport")

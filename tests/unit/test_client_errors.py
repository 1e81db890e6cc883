"""An error that no module has expected ends no thread: it is told, and the thread tries again."""

import pytest
from kafka import errors as kafka_errors
from pymysql import err

from cdc.client_errors import translate_client_errors
from passport.errors import KAFKA, NotReady, Origin, Retry
from tests.settings import build_settings, hospital_settings, kafka_settings

SETTINGS = build_settings({"kigali": hospital_settings()}, kafka_settings("nowhere:1", "t"))


@pytest.mark.parametrize(
    "error",
    [
        err.OperationalError(2013, "Lost connection, which may quote a value"),
        err.InterfaceError(0, ""),
        err.InternalError("Packet sequence number wrong"),
        err.OperationalError(4031, "disconnected because of inactivity"),
    ],
)
def test_a24_an_error_of_pymysql_is_translated(error: Exception) -> None:
    with pytest.raises(NotReady) as raised, translate_client_errors("kigali", SETTINGS):
        raise error
    assert raised.value.origin == Origin.hospital("kigali")
    assert "quote a value" not in str(raised.value)
    assert raised.value.hint


@pytest.mark.parametrize(
    "error", [kafka_errors.KafkaTimeoutError("t"), kafka_errors.IllegalStateError("closed")]
)
def test_a24_an_error_of_kafkas_client_is_translated(error: Exception) -> None:
    with pytest.raises(Retry) as raised, translate_client_errors("kigali", SETTINGS):
        raise error
    assert raised.value.origin == KAFKA


def test_other_errors_pass() -> None:
    with pytest.raises(ZeroDivisionError), translate_client_errors("kigali", SETTINGS):
        raise ZeroDivisionError

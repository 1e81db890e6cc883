"""Turns what the clients of MySQL and Kafka raise into this project's errors, for a whole thread.

Each module translates the errors that it expects. An error that none has expected would end the
thread that it comes through, and with it a hospital's capture. So the loop of each thread that
tries again is inside this.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from cdc.kafka import KafkaError
from openmrs.connection import translate_errors
from passport.kafka import translate_error
from passport.settings import Settings


@contextmanager
def translate_client_errors(hospital_id: str, settings: Settings) -> Iterator[None]:
    """Raise an error of PyMySQL or of Kafka's client as NotReady, Retry or Fatal."""
    try:
        with translate_errors(hospital_id, settings.hospital(hospital_id).mysql):
            yield
    except KafkaError as error:
        raise translate_error(error, settings.kafka) from None

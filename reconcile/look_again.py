"""Looks a second time at what differs: it may only have been on its way.

A destination is always a little behind its hospitals, so a first look finds differences that are
none. Comparing and verifying therefore look once, wait until the destination has applied what the
hospital held then, and look again at what differed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from threading import Event

from openmrs.read import Source
from passport.errors import NotReady, Retry
from passport.settings import Settings
from passport.sink import Progress
from reconcile.caught_up import Target
from reconcile.mongo_reader import MongoReader


@dataclass(frozen=True, slots=True)
class Patience:
    """The times and the number of rounds to wait for a destination.

    After `settle_s` seconds the destination knows of whoever has just registered in the Passport.
    It then gets up to `caught_up_s` seconds to catch up with the hospital. What still changes is
    looked at up to `rounds` times.
    """

    settle_s: float = 2.0
    caught_up_s: float = 30.0
    rounds: int = 3


PATIENCE = Patience()


class Behind(NotReady):
    """The destination hasn't caught up in time, so what differs means nothing."""


class LookAgain:
    """The rounds of second looks at one hospital."""

    def __init__(
        self,
        settings: Settings,
        source: Source,
        mongo: MongoReader,
        patience: Patience,
        stop: Event,
        *,
        polled_too: bool,
    ) -> None:
        self._settings = settings
        self._source = source
        self._mongo = mongo
        self._patience = patience
        self._stop = stop
        self._polled_too = polled_too

    def rounds(self) -> Iterator[int]:
        """Yield each time when the destination has caught up with the hospital.

        Raises Behind when it doesn't in time, and Retry when the hospital is polled by now but
        `polled_too` is False.
        """
        hospital_id = self._source.hospital
        for number in range(self._patience.rounds):
            self._stop.wait(self._patience.settle_s)
            target = Target.now(self._settings, hospital_id, self._source)
            if target.is_polled and not self._polled_too:
                raise Retry(
                    f"hospital {hospital_id}: it is polled instead of streamed, "
                    "which compares in its own way"
                )
            if not target.wait(self._progress, self._patience.caught_up_s):
                raise Behind(
                    f"hospital {hospital_id}: the destination is behind, "
                    "what differs means nothing",
                    hint=target.hint,
                )
            yield number

    def _progress(self) -> Progress | None:
        return self._mongo.progress(self._source.hospital)

"""How far each hospital is: read, published, applied, matched; what is wrong, and what repairs it."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from math import isfinite
from typing import Any

from pydantic import SecretStr

from openmrs.connection import end_of_binlog
from openmrs.read import Source
from passport.errors import PassportError
from passport.kafka import OffsetRange, topic_offsets
from passport.settings import Settings

Row = dict[str, Any]


def collect(settings: Settings, sink: Any) -> list[Row]:
    """One dict a hospital: what ``status --json`` prints. NotReady when Kafka or `sink` is away."""
    from cdc.positions import Positions

    ends = topic_offsets(settings.kafka, settings.kafka.topic)
    positions = Positions(settings.kafka).all()
    rows = [
        _hospital(settings, name, positions.get(name), ends, sink) for name in settings.hospitals
    ]
    return [row | {"problems": list(problems(row))} for row in rows]


class Reading:
    """The Passport's database for `collect`, without writing to it; `close` it. Fatal, NotReady.

    What has to be counted is counted again after `kept_s`.
    """

    def __init__(
        self,
        settings: Settings,
        destination: str,
        *,
        uri: SecretStr | None = None,
        kept_s: float = 1,
    ) -> None:
        from destinations.mongo.client import connected
        from destinations.mongo.reports import Reports
        from passport import sink as sinks

        given = sinks.options(destination, settings.destinations[destination])
        self._settings, self._destination = settings, destination
        self.uri = (uri or given.uri).get_secret_value()
        self.database = given.database
        self._client, found = connected(self.uri, self.database)
        self._reports = Reports(found)
        self._kept_s = kept_s
        self._kept: tuple[float, dict[str, Row]] = (0, {})
        self.progress = self._reports.progress

    def collect(self) -> list[Row]:
        return collect(self._settings, self)

    def counts(self, hospital: str) -> Row:
        if time.monotonic() - self._kept[0] > self._kept_s:
            self._kept = time.monotonic(), self._counted()
        return self._kept[1][hospital]

    def _counted(self) -> dict[str, Row]:
        from consumers import dead_letters

        letters: dict[str, Counter[str]] = {name: Counter() for name in self._settings.hospitals}
        for one in dead_letters.listed(self._settings, destination=self._destination):
            letters.setdefault(one.hospital, Counter())[one.reason] += 1
        return {
            name: {
                **self._reports.counts(name),
                "unmatched_by": self._reports.unmatched_by(name),
                "dead_letters": dict(letters[name]),
                "verified": self._reports.verified(name),
            }
            for name in self._settings.hospitals
        }

    def close(self) -> None:
        self._client.close()


def _hospital(
    settings: Settings, name: str, saved: Any, ends: dict[int, OffsetRange], sink: Any
) -> Row:
    hospital = settings.hospitals[name]
    first, end = ends.get(hospital.partition, OffsetRange(0, 0))
    progress = sink.progress(name)
    counts = sink.counts(name)
    behind, left = _at_the_server(settings, name, saved)
    return {
        "hospital": name,
        "state": _state(hospital.capture, saved),
        "snapshot": saved.snapshot.state if saved and saved.snapshot else None,
        "snapshot_key": saved.snapshot.next_key if saved and saved.snapshot else None,
        "epoch": saved.epoch if saved else None,
        "position": f"{saved.position.file}:{saved.position.pos}" if saved else None,
        "behind": behind,
        "headroom_s": left if left is None or isfinite(left) else "never purged",
        "captured": end - first,
        "applied_offset": progress.offset if progress else None,
        "lag_records": max(0, end - (progress.offset if progress else first)),
        "last_event_s": round(time.time() - progress.at_ms / 1000, 1)
        if progress and progress.at_ms
        else None,
        **counts,
    }


def _state(capture: str, saved: Any) -> str:
    if saved is None:
        return "never started"
    if capture == "polling":
        return "polling"
    if saved.capture == "polling":
        return "polled instead of streaming"
    return "streaming" if saved.snapshot is None or saved.snapshot.state == "done" else "snapshot"


def _at_the_server(settings: Settings, name: str, saved: Any) -> tuple[bool | None, float | None]:
    """Whether the hospital's binlog goes on past the saved position, and how long that is surely
    kept there.

    None where that can't be said now; inf: for ever.
    """
    from cdc.retention import headroom

    if saved is None or saved.capture == "polling":
        return None, None
    try:
        with closing(Source(name, settings.hospitals[name].mysql)) as source:
            end = end_of_binlog(source.connection())
            left, _ = headroom(source, saved.position, saved.ts_ms)
    except PassportError:
        return None, None
    return end is not None and end.order > saved.position.order, left


def problems(row: Row) -> Iterator[dict[str, str]]:
    """``{"what", "command"}`` for each thing that somebody should do something about. Pure."""
    name = row["hospital"]
    for wrong, what, command in (
        (
            row["state"] == "never started",
            "its reader has never run",
            f"passport cdc run --hospital {name}",
        ),
        (
            row["behind"] is None and row["state"] in ("streaming", "snapshot"),
            "its server does not answer",
            _CHECK,
        ),
        (
            row["last_event_s"] is not None and row["last_event_s"] > 300,
            "nothing has come for five minutes",
            _CHECK,
        ),
        (
            row["state"] == "polled instead of streaming",
            "its stream is silent, so it is polled",
            _CHECK,
        ),
        (
            row["lag_records"] > 10_000,
            "the consumer is far behind: start one more",
            "passport consume",
        ),
        (
            bool(row.get("dead_letters")),
            "records could not be carried",
            "passport dead-letters list --hospital {}",
        ),
        (
            _soon(row.get("headroom_s")),
            "its binlog may be purged within a day before it is read",
            _CHECK,
        ),
        (
            bool(row.get("conflicts")),
            "people's edits wait for a decision",
            "passport conflicts list --hospital {}",
        ),
        (
            _wrong(row.get("verified")),
            "the last verify found differences",
            "passport reconcile --hospital {} --once",
        ),
    ):
        if wrong:
            yield {"what": what, "command": command.format(name)}


_CHECK = "passport check --hospital {}"


def _wrong(verified: Row | None) -> bool:
    return verified is not None and not verified["equal"]


def _soon(headroom_s: float | str | None) -> bool:
    return isinstance(headroom_s, float) and headroom_s < 86_400

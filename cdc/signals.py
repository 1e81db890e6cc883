"""What operators ask of a hospital's running reader, by `passport signal`.

Each signal is a record of its own in the positions topic, under a key of its own that is never
deleted. So all of them together say who asked for what, and when.

A signal says what it means, and means it for good: a snapshot is asked for, or stopped, by its
number within an epoch. So a reader may meet a signal as often as it likes, also after it went back
to an earlier position, and does once what was asked for once. Of pause and resume, and of the
budgets, the last one holds.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from uuid import uuid4

import msgspec

from cdc.kafka import TopicTail
from passport.errors import KAFKA, Fatal
from passport.settings import Kafka, LoadBudget
from passport.version import Position

_SIGNAL = "signal"

# How often a reader looks for new signals.
LOOK_S = 1.0


@dataclass(frozen=True, slots=True)
class Signal:
    """One thing that an operator asked for.

    - `action`: pause, resume, snapshot, stop-snapshot, budget or skip-transaction. One of a later
      release may be another, which nobody obeys here.
    - `epoch` and `number`: the snapshot that is to be taken, or stopped. Of skip-transaction the
      epoch in which it holds, and the newest snapshot then. Else 0.
    - `rows_per_s`: the budget; 0 is that of the settings.
    - `gtid`: the transaction that is to be skipped.
    - `at_ms` and `by`: when it was asked for, in Unix milliseconds, and by whom.
    """

    action: str
    at_ms: int
    by: str
    epoch: int = 0
    number: int = 0
    rows_per_s: int = 0
    gtid: str = ""

    def describe(self) -> str:
        """Return what was asked for, as it is typed."""
        if self.action == "budget":
            return f"budget={self.rows_per_s or 'default'}"
        if self.gtid:
            return f"{self.action} {self.gtid}"
        return self.action

    def encode(self, hospital: str, partition: int) -> bytes:
        """Return the value of the signal's record.

        It has the fields of a position, too, because an earlier release reads it as one. With the
        epoch 0 that position holds nowhere.
        """
        record = {
            "v": 1,
            "hospital": hospital,
            "partition": partition,
            "server": "",
            "format_ts": 0,
            "epoch": 0,
            "position": Position("signal.0", 0),
            "columns": {},
            "snapshot": None,
            "signal": asdict(self),
        }
        return json.dumps(record, separators=(",", ":")).encode()


class _Record(msgspec.Struct):
    signal: Signal


_RECORD = msgspec.json.Decoder(_Record)


def parse(value: bytes) -> Signal:
    """Return the signal of a record. Raises ValueError if it is none."""
    try:
        return _RECORD.decode(value).signal
    except msgspec.MsgspecError as error:
        raise ValueError(f"no signal ({type(error).__name__})") from None


def new_key(hospital: str, at_ms: int) -> bytes:
    """Return the key of a new signal's record."""
    return f"{hospital}/{_SIGNAL}/{at_ms}/{uuid4().hex[:8]}".encode()


def is_key(hospital: str, key: bytes) -> bool:
    """Return whether a record of this key is a signal of the hospital."""
    return key.startswith(f"{hospital}/{_SIGNAL}/".encode())


def name_transaction(error: Fatal, hospital: str, gtid: str) -> Fatal:
    """Return the error with the transaction that it is about, and how to go on without that.

    A server without GTIDs has no name for it: `gtid` is "", and the error stays as it is.
    """
    if not gtid:
        return error
    return Fatal(
        f"{error.reason}, in transaction {gtid}",
        details=error.details,
        hint=f"{error.hint}; or without its rows:"
        f" passport signal --hospital {hospital} skip-transaction {gtid}",
        origin=error.origin,
    )


@contextmanager
def translate_strange_records(kafka: Kafka) -> Iterator[None]:
    """Raise the ValueError of a record of the positions topic that can't be read as Fatal."""
    try:
        yield
    except ValueError as error:
        raise Fatal(
            f"topic {kafka.positions_topic} holds a record that is not a position ({error})",
            hint="does another program, or a newer version of this one, write to it?",
            origin=KAFKA,
        ) from None


class Signals:
    """All signals of one hospital, oldest first, and what they come to."""

    def __init__(self) -> None:
        self._by_key: dict[bytes, Signal] = {}

    def take(self, hospital: str, key: bytes | None, value: bytes | None) -> None:
        """Take a record of the topic, if it is a signal of the hospital.

        Raises ValueError if it can't be read.
        """
        if key is not None and value is not None and is_key(hospital, key):
            self._by_key[key] = parse(value)

    def __len__(self) -> int:
        return len(self._by_key)

    def __iter__(self) -> Iterator[Signal]:
        return iter(self._by_key.values())

    @property
    def pause(self) -> Signal | None:
        """The pause that holds; None if the reader is to run."""
        last = self._last("pause", "resume")
        if last is None or last.action == "resume":
            return None
        return last

    @property
    def rows_per_s(self) -> int:
        """The rows a second that were asked for; 0 if the budget of the settings holds."""
        last = self._last("budget")
        return 0 if last is None else last.rows_per_s

    def budget(self, settings: LoadBudget) -> LoadBudget:
        """Return the load budget that holds: that of the settings, unless another was asked for."""
        if not self.rows_per_s:
            return settings
        return settings.model_copy(update={"rows_per_s": self.rows_per_s})

    def snapshot(self, epoch: int) -> Signal | None:
        """Return the snapshot with the highest number that was asked for in this epoch."""
        asked = [signal for signal in self if signal.action == "snapshot" and signal.epoch == epoch]
        return max(asked, key=lambda signal: signal.number, default=None)

    def stop(self, epoch: int, number: int) -> Signal | None:
        """Return the signal that stops this snapshot; None if there is none."""
        for signal in self:
            is_meant = (signal.epoch, signal.number) == (epoch, number)
            if signal.action == "stop-snapshot" and is_meant:
                return signal
        return None

    def skipped(self, epoch: int) -> dict[str, Signal]:
        """Return the signals that ask for a transaction to be skipped, by its GTID.

        They hold in their epoch alone: after a RESET MASTER another transaction may have the GTID.
        """
        return {
            signal.gtid: signal
            for signal in self
            if signal.action == "skip-transaction" and signal.epoch == epoch
        }

    def skipped_since(self, epoch: int, number: int) -> list[str]:
        """Return the GTIDs whose rows are missing, if this snapshot is the newest that is done.

        A snapshot that began after the transaction was committed has its rows.
        """
        return [
            signal.gtid
            for signal in self
            if signal.action == "skip-transaction"
            and (signal.epoch, signal.number) >= (epoch, number)
        ]

    def _last(self, *actions: str) -> Signal | None:
        last = None
        for signal in self:
            if signal.action in actions:
                last = signal
        return last


class SignalWatch:
    """Watches the positions topic for signals of one hospital. Not thread-safe. `close` it.

    `signals` are those before `next_offset`, from which it goes on. It adds to them.
    """

    def __init__(self, kafka: Kafka, hospital: str, signals: Signals, next_offset: int) -> None:
        self._kafka = kafka
        self._hospital = hospital
        self._signals = signals
        self._next_offset = next_offset
        self._tail: TopicTail | None = None
        self._looked_at = time.monotonic()

    def look(self) -> Signals:
        """Return all signals so far. New ones are asked for at most every LOOK_S, without waiting.

        Raises NotReady and Fatal.
        """
        now = time.monotonic()
        if now - self._looked_at >= LOOK_S:
            self._looked_at = now
            if self._tail is None:
                self._tail = TopicTail(self._kafka, self._kafka.positions_topic, self._next_offset)
            with translate_strange_records(self._kafka):
                for record in self._tail.poll():
                    self._signals.take(self._hospital, record.key, record.value)
        return self._signals

    def close(self) -> None:
        if self._tail is not None:
            self._tail.close()

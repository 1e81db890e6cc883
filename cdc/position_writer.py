"""Saves how far the reader is, and never further than Kafka has acknowledged.

The stream marks each place where it is safe to go on: the end of a transaction. A mark waits in the
checkpoint until every record before it is acknowledged. Then it may be saved.
"""

import time
from dataclasses import replace

from cdc.checkpoint import Checkpoint, Mark
from cdc.column_lists import ColumnLists
from cdc.durability import SeenDurable
from cdc.envelopes import now_ms
from cdc.lease import Lease
from cdc.positions import Positions, RowPlace, Saved, Snapshot
from cdc.publisher import Publisher
from passport.errors import Origin, Retry
from passport.version import Position

# How many records of a transaction are sent before a position within it is worth a save.
LARGE_TRANSACTION = 10_000


class PositionWriter:
    """The position of one session. `saved` is what was saved last."""

    def __init__(self, saved: Saved, positions: Positions, publisher: Publisher) -> None:
        self.saved = saved
        self._positions = positions
        self._publisher = publisher
        self._gtid_set = saved.gtid_set
        self._last_mark = Mark(
            saved.position, saved.gtid_set, saved.format_ts, saved.columns, saved.next_row
        )
        self._sent_before = 0  # the records up to the last mark
        self._checkpoint = Checkpoint.at(self._last_mark)
        self._looked_at = time.monotonic()
        # Whether an older release, which needs a position in full, would go on from `saved`.
        self._is_in_full = True

    def mark(
        self, at: Position, gtid_set: str | None, format_ts: int, columns: ColumnLists
    ) -> None:
        """Note that it is safe to go on from `at`, once all records sent so far are acknowledged.

        `gtid_set` is what the server has executed up to there; None if it is as before. `format_ts`
        dates the binlog file of `at`; 0 if that is unknown.
        """
        if gtid_set is not None:
            self._gtid_set = gtid_set  # also for the next file's first mark, which has no commit
        # Without its date a file can't be told from another of the same name. And rows behind `at`
        # can't be decoded with lists that hold from a later position on. A later mark follows.
        if not format_ts or not columns.hold_at(at):
            return
        self._last_mark = Mark(at, self._gtid_set, format_ts, columns.columns)
        self._commit(self._last_mark)

    def mark_within(self, next_row: RowPlace, *, however_few: bool = False) -> None:
        """Note that all rows before `next_row` are sent, within a transaction that is still open.

        A session that goes on from the last transaction's end reads these rows again, since it
        needs what the transaction begins with. It does not publish them again: a row has the same
        version each time. Unless `however_few` is set, only so many records as make a transaction
        large are worth a mark.
        """
        if however_few or self._publisher.sent - self._sent_before >= LARGE_TRANSACTION:
            self._commit(self._last_mark._replace(next_row=next_row))

    def _commit(self, mark: Mark) -> None:
        self._sent_before = self._publisher.sent
        self._checkpoint.commit(self._publisher.sent, mark)

    def date_file(self, format_ts: int) -> None:
        """Take the date of the file in which a new epoch begins."""
        self._last_mark = self._checkpoint.acknowledged._replace(format_ts=format_ts)
        self._checkpoint = Checkpoint.at(self._last_mark)

    def save(
        self,
        snapshot: Snapshot,
        source_ms: int,
        seen_durable: SeenDurable,
        *,
        at_most_every_s: float,
    ) -> bool:
        """Save the newest acknowledged mark, if it is time to. Return whether it was time.

        Call it often: it also takes what Kafka has acknowledged, and raises if a record failed.
        NotReady, Gap, Fatal.
        """
        mark = self._checkpoint.acked(self._publisher.acked())
        now = time.monotonic()
        if now - self._looked_at < at_most_every_s:
            return False
        self._looked_at = now
        has_same_file = seen_durable.end.file == self.saved.seen_durable.end.file
        saved = replace(
            self.saved,
            format_ts=mark.format_ts,
            position=mark.at,
            next_row=mark.next_row,
            gtid_set=mark.gtid_set,
            columns=mark.columns,
            snapshot=snapshot,
            seen_durable=self.saved.seen_durable if has_same_file else seen_durable,
        )
        # An idle hospital costs no record: its time alone is no reason to save.
        if saved != self.saved:
            saved = replace(
                saved,
                ts_ms=source_ms or now_ms(),
                topic_end=self._publisher.end_offset,
                seen_durable=seen_durable,
            )
            self._positions.save(saved)
            self.saved = saved
            self._is_in_full = False
        return True

    def save_in_full(self) -> None:
        """Save once more what was saved last, so that an older release can go on from there."""
        if not self._is_in_full:
            self._positions.save(self.saved, in_full=True)
            self._is_in_full = True

    def refuse_newer_epoch(self, lease: Lease) -> None:
        """Raise Retry if another reader has begun a new epoch meanwhile. NotReady, Fatal."""
        newest = self._positions.load(self.saved.hospital, keep=lease.keep)
        if newest is not None and newest.epoch != self.saved.epoch:
            raise Retry(
                f"hospital {self.saved.hospital}: another reader came meanwhile, and began a new"
                " epoch",
                origin=Origin.hospital(self.saved.hospital),
            )

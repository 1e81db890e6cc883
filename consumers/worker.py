"""One consumer process of one destination: serves the partitions that its group gives it, each
hospital by itself.

The one order of things, for each partition:

    poll -> parse -> enrich -> sink.write, sink.retain -> dead letters -> re-enrichment that key
    changes ask for, slice by slice -> sink.record(progress) -> commit the offset

An offset is stored when everything before it is written, parked, and enriched again where a key
change asked for it; a crash anywhere repeats work that is idempotent. A start takes the lower of the
group's offset and the destination's own, so that a restored destination catches up. A hospital that
is away (Retry), or that can't go on without a person (Fatal), pauses its partition, which goes back
to `next`, and no other; what is wrong with the destination stops the process.
"""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing

import structlog

from consumers.apply import Applier
from consumers.dead_letters import DeadLetters
from consumers.partition import Item, Partition
from consumers.subscription import OutOfRange, Subscription
from passport import health, metrics, tracing
from passport import sink as sinks
from passport.errors import Fatal, Retry
from passport.kafka import Record
from passport.settings import Settings
from passport.sink import KnowsAmbiguous, Progress, Sink, WantsPersons
from passport.version import LOWEST

IDLE_S = 0.1
ASK_S = 0.5  # between questions which persons the destination wants
STORE_S = 0.5  # between records of how far all is; what comes again after a crash is idempotent
WANTED = 50
NOTHING_S = 15.0  # without a partition so long: others of the group have them all

log = structlog.get_logger()


def run(
    destination_name: str, settings: Settings, *, until_caught_up: bool, stop: threading.Event
) -> None:
    """Works until `stop`, or until all that its partitions hold at that moment is applied.

    Raises Fatal; with `until_caught_up` also NotReady, when Kafka or the destination isn't there at
    the start.
    """
    while not stop.is_set():
        try:
            with closing(sinks.connect(destination_name, settings)) as sink:
                Worker(destination_name, settings, sink, until_caught_up=until_caught_up).follow(
                    stop
                )
                return
        except Retry as error:
            if until_caught_up:
                raise
            log.warning(
                "consumer waits",
                destination=destination_name,
                reason=error.reason,
                after_s=error.after,
            )
            stop.wait(error.after)


class Worker:
    """The loop. One thread; a frozen hospital costs the others one timeout, then only its probe's
    thread waits.
    """

    def __init__(
        self, destination: str, settings: Settings, sink: Sink, *, until_caught_up: bool
    ) -> None:
        self._destination, self._settings, self._sink = destination, settings, sink
        # Whether it may ask for persons, and knows who is ambiguous: its own abilities, seen once.
        self._wanting = sink if isinstance(sink, WantsPersons) else None
        self._knows_ambiguous = isinstance(sink, KnowsAmbiguous)
        if not self._knows_ambiguous:
            log.warning(
                "destination of an earlier contract",
                destination=destination,
                hint="give its sink the method `ambiguous` (docs/how-to/add-a-destination.md): "
                "the next release won't start without",
            )
        self._until_caught_up = until_caught_up
        self._hospitals = {
            hospital.partition: name for name, hospital in settings.hospitals.items()
        }
        self._subscription = Subscription(
            settings.kafka, f"passport.{destination}", settings.consumer.batch_records
        )
        self._letters = DeadLetters(settings.kafka, destination)
        order = sinks.module(settings.destinations[destination].type).ORDER
        self._applier = Applier(
            destination, sink, self._letters, newest_wins=order == "newest-wins"
        )
        self._assigned: tuple[int, frozenset[int]] = (-1, frozenset())
        self._nothing_since = time.monotonic()
        self._partitions: dict[int, Partition] = {}

    def follow(self, stop: threading.Event) -> None:
        """Polls and applies until `stop` or, if asked for, until caught up."""
        done = False
        try:
            while not done:
                try:
                    self._round(stop)
                    health.working(f"consumer {self._destination}")
                    done = stop.is_set() or (self._until_caught_up and self._caught_up())
                    for partition in self._mine() if done else ():
                        self._store(partition, now=True)
                except Retry as error:
                    done = stop.is_set()
                    log.warning(
                        "consumer waits", destination=self._destination, reason=error.reason
                    )
                    health.failing(f"consumer {self._destination}", error.reason)
                    stop.wait(error.after)
        finally:
            self._close()

    def _round(self, stop: threading.Event) -> None:
        lost: list[int] = []
        polled: dict[int, list[Record]] = {}
        try:
            polled = self._subscription.poll(0 if any(map(self._busy, self._mine())) else IDLE_S)
        except OutOfRange as gap:
            lost = gap.partitions
        if self._subscription.assigned() != self._assigned:
            self._assign(*self._subscription.assigned())
            return
        for number in lost:
            self._restart(number)
        for number, records in polled.items():
            if number in self._partitions:
                self._partitions[number].receive(records)
        for partition in list(self._partitions.values()):
            if stop.is_set():
                return
            self._serve(partition)

    def _busy(self, partition: Partition) -> bool:
        return not partition.paused and bool(partition.buffered or partition.reenrichment.due())

    def _serve(self, partition: Partition) -> None:
        """Apply one batch and one slice of re-enrichment of one partition."""
        if partition.paused:
            if partition.waiting():
                return
            self._go_on(partition)
        try:
            items = partition.take(self._settings.consumer.batch_records)
            if items:
                self._received(partition, items)
                self._applier.batch(partition, items)
            self._ask(partition)
            self._applier.reenrich(
                partition, busy=partition.next < (self._subscription.high(partition.number) or 0)
            )
            self._store(partition, now=partition.failures > 0)
        except (Retry, Fatal) as error:
            # A hospital that can't go on without a person costs the others nothing. What is wrong
            # with the destination or with Kafka is wrong for all of them.
            at_hospital = partition.is_own_failure(error)
            if isinstance(error, Fatal) and (self._alone() or not at_hospital):
                raise
            self._pause(partition, error)
            if at_hospital:  # the destination is there, and the pause may be long
                self._store(partition, now=True)

    def _received(self, partition: Partition, items: Sequence[Item]) -> None:
        """For its traces: how long records waited from when they were published until now."""
        topic = self._settings.kafka.topic
        where = {tracing.HOSPITAL: partition.hospital_id, tracing.DESTINATION: self._destination}
        known = tracing.kafka("receive", topic) | where | {tracing.COUNT: len(items)}
        with tracing.step(f"receive {topic}", items, known, waited=True):
            pass

    def _ask(self, partition: Partition) -> None:
        """Have persons read whole: those who are ambiguous, once, and those the destination wants.

        Not before an event has shown which epoch it is.
        """
        now = time.monotonic()
        if now < partition.ask_at or not partition.lookups.newest > LOWEST:
            return
        partition.ask_at = now + ASK_S
        # In portions, so that a person whom a key change concerns doesn't wait for all of them.
        if partition.ambiguous and not partition.reenrichment.pending_persons():
            portion = partition.ambiguous[:WANTED]
            partition.ambiguous = partition.ambiguous[WANTED:]
            partition.reenrichment.add_persons(portion, None, partition.latest)
        if self._wanting is not None:
            wanted = self._wanting.wanted(partition.hospital_id, WANTED)
            partition.reenrichment.add_persons(wanted, None, partition.latest)

    def _store(self, partition: Partition, *, now: bool) -> None:
        """Progress in the destination, then the offset in Kafka, when either has moved; `now`: also
        if it just was.
        """
        if not now and time.monotonic() < partition.store_at:
            return
        state = offset, version, rereads = (
            partition.offset,
            partition.lookups.newest,
            partition.reenrichment.as_json(),
        )
        if state == partition.recorded:
            return
        partition.store_at = time.monotonic() + STORE_S
        self._sink.record(
            Progress(partition.hospital_id, offset, version, partition.at_ms, rereads)
        )
        if not self._subscription.commit({partition.number: offset}):
            log.info(
                "offset not committed",
                partition=partition.number,
                reason="the group is being rearranged",
            )
        partition.recorded = state
        if partition.failures and not partition.paused:
            self._recovered(partition)
        high = self._subscription.high(partition.number)
        if high is not None:
            metrics.CONSUMER_LAG.labels(self._destination, str(partition.number)).set(
                max(0, high - partition.next)
            )

    def _recovered(self, partition: Partition) -> None:
        partition.failures = 0
        metrics.PAUSED.labels(partition.hospital_id, self._destination).set(0)
        health.working(f"hospital {partition.hospital_id}")
        log.info("partition resumed", hospital=partition.hospital_id, offset=partition.next)

    def _pause(self, partition: Partition, error: Retry | Fatal) -> None:
        seconds = partition.wait(error)
        self._subscription.pause(partition.number)
        self._subscription.seek(partition.number, partition.next)
        metrics.PAUSED.labels(partition.hospital_id, self._destination).set(1)
        health.failing(f"hospital {partition.hospital_id}", error.reason)
        if isinstance(error, Fatal):
            level, hint = logging.ERROR, error.hint
        else:
            level, hint = logging.WARNING, ""
        log.log(
            level,
            "partition paused",
            hospital=partition.hospital_id,
            reason=error.reason,
            hint=hint,
            after_s=round(seconds, 1),
        )

    def _go_on(self, partition: Partition) -> None:
        partition.paused = False
        self._subscription.resume(partition.number)

    def _alone(self) -> bool:
        return self._until_caught_up or len(self._partitions) == 1

    def _assign(self, generation: int, assigned: frozenset[int]) -> None:
        """The group was rearranged: everything that was known of the partitions may be outdated."""
        for partition in self._partitions.values():
            partition.close()
        self._partitions = {}
        for number in sorted(assigned):
            if number in self._hospitals:
                self._start(number)
            else:
                self._subscription.pause(number)
                self._subscription.seek(number, 0)
                log.warning(
                    "partition of no hospital",
                    partition=number,
                    hint="add its hospital to the settings",
                )
        self._assigned = generation, assigned
        self._nothing_since = time.monotonic()
        if assigned:
            log.info("partitions assigned", destination=self._destination, count=len(assigned))

    def _start(self, number: int) -> None:
        name = self._hospitals[number]
        progress = self._sink.progress(name)
        start = self._first_offset(number, name, progress)
        self._subscription.seek(number, start)
        self._subscription.resume(
            number
        )  # the client keeps a pause over a rearrangement that gives it back
        hospital = self._settings.hospitals[name]
        partition = Partition(number, name, hospital, self._settings.consumer, start)
        if progress is not None:
            partition.lookups.seen(progress.version)
            partition.reenrichment.restore(progress.rereads)
            partition.at_ms = progress.at_ms
        # Which id was whose is known only to the process that followed the hospital until now. If
        # one of two holders of an id has given it up since, no key change names the other one.
        if self._knows_ambiguous:
            partition.ambiguous = list(self._sink.ambiguous(name))
        self._partitions[number] = partition

    def _first_offset(self, number: int, name: str, progress: Progress | None) -> int:
        """Where to start: the lower of the group's offset and the destination's; the topic's start
        if one has none.

        Kafka forgets a group's offset with its topic: one that was made anew may have as many
        records by now.
        """
        first, end = self._subscription.bounds([number])[number]
        committed = self._subscription.committed(number)
        if progress is None:
            if first > 0:
                self._gap(name, "the topic does not reach back to its start")
            return first
        start = progress.offset if committed is None else min(progress.offset, committed)
        if not first <= start <= end:
            self._gap(name, f"offset {start} is not in the topic ({first} to {end})")
            return first
        return first if committed is None else start

    def _restart(self, number: int) -> None:
        """The next offset is not in the topic; or an offset before the last `seek` was not."""
        partition = self._partitions.get(number)
        if partition is not None:
            first, end = self._subscription.bounds([number])[number]
            if first <= partition.next <= end and self._subscription.committed(number) is not None:
                self._subscription.seek(number, partition.next)
                return
            self._partitions.pop(number).close()
        if number in self._hospitals:
            self._start(number)
        else:
            self._subscription.seek(number, 0)

    def _gap(self, hospital: str, cause: str) -> None:
        """Changes may be missing that only the hospital still knows: said until the backfill has
        been asked for.
        """
        log.error(
            "gap in the topic",
            hospital=hospital,
            reason=cause,
            hint=f"passport backfill --hospital {hospital}",
        )

    def _caught_up(self) -> bool:
        if not self._partitions:
            return time.monotonic() - self._nothing_since > NOTHING_S
        if any(p.failures or p.buffered or p.reenrichment.pending() for p in self._mine()):
            return False
        ends = self._subscription.bounds([partition.number for partition in self._mine()])
        return all(
            partition.next >= ends[partition.number][1]
            and not partition.ambiguous
            and not (self._wanting and self._wanting.wanted(partition.hospital_id, 1))
            for partition in self._mine()
        )

    def _mine(self) -> Iterator[Partition]:
        return iter(self._partitions.values())

    def _close(self) -> None:
        for partition in self._mine():
            partition.close()
        self._letters.close()
        self._subscription.close()

"""One consumer process of one destination. It serves the partitions that its group gives it, and
each hospital goes its own way.

The one order of things, for each partition:

    poll -> parse -> enrich -> sink.write, sink.retain -> dead letters
         -> re-enrichment that key changes ask for, slice by slice
         -> sink.record(progress) -> commit the offset

A destination that has one writer for each hospital is taken before a partition's progress is read.
If another consumer or a command takes the hospital, the partition waits and starts anew.

An offset is stored when everything before it is written, parked, and enriched again where a key
change asked for it. A crash anywhere repeats work, and the work is idempotent. A start takes the
lower of the group's offset and the destination's own, so that a restored destination catches up.

A hospital may be away (Retry), or unable to go on without a person (Fatal). That pauses its
partition, which goes back to `next`, and no other. What is wrong with the destination stops the
process.
"""

import logging
import threading
import time
from collections.abc import Sequence
from contextlib import closing

import structlog

from consumers.apply import Applier
from consumers.dead_letters import DeadLetters
from consumers.partition import Item, Partition
from consumers.subscription import OutOfRange, Subscription
from passport import health, metrics, tracing
from passport import sink as sinks
from passport.errors import Fatal, Overtaken, Retry
from passport.kafka import Record
from passport.settings import Settings
from passport.sink import HasRules, KnowsAmbiguous, OneWriter, Progress, Sink, WantsPersons
from passport.version import LOWEST

IDLE_S = 0.1
ASK_S = 0.5  # between questions which persons the destination wants
STORE_S = 0.5  # between records of how far all is; what comes again after a crash is idempotent
PERSONS_AT_ONCE = 50  # that are asked for
WITHOUT_PARTITION_S = 15.0  # after so long the other members of the group have them all

log = structlog.get_logger()


def run(
    destination_name: str, settings: Settings, *, until_caught_up: bool, stop: threading.Event
) -> None:
    """Work until `stop`, or until all that the partitions hold at that moment is applied.

    Raises Fatal. With `until_caught_up` it raises NotReady too, when Kafka or the destination isn't
    there at the start; without, it waits for them.
    """
    while not stop.is_set():
        try:
            with closing(sinks.connect(destination_name, settings)) as sink:
                worker = Worker(destination_name, settings, sink, until_caught_up=until_caught_up)
                worker.follow(stop)
                return
        except Retry as error:
            if until_caught_up:
                raise
            log.warning(
                "consumer waits",
                destination=destination_name,
                reason=error.reason,
                hint=error.hint,
                after_s=error.after,
            )
            health.failing(f"consumer {destination_name}", error.reason, error.hint)
            stop.wait(error.after)


class Worker:
    """The loop over one destination's partitions, in one thread.

    A frozen hospital costs the others one timeout. After that only its probe's thread waits.
    """

    def __init__(
        self, destination: str, settings: Settings, sink: Sink, *, until_caught_up: bool
    ) -> None:
        self._destination = destination
        self._settings = settings
        self._sink = sink
        # What the sink is able to do beyond the contract is looked at once.
        self._one_writer = sink if isinstance(sink, OneWriter) else None
        self._wants_persons = sink if isinstance(sink, WantsPersons) else None
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
        self._dead_letters = DeadLetters(settings.kafka, destination)
        module = sinks.module(settings.destinations[destination].type)
        self._applier = Applier(
            destination, sink, self._dead_letters, newest_wins=module.ORDER == "newest-wins"
        )
        # The group's generation, and the partitions that are ours in it.
        self._assigned: tuple[int, frozenset[int]] = (-1, frozenset())
        self._without_partition_since = time.monotonic()
        self._partitions: dict[int, Partition] = {}

    def follow(self, stop: threading.Event) -> None:
        """Poll and apply until `stop` or, if asked for, until caught up."""
        done = False
        try:
            while not done:
                try:
                    self._round(stop)
                    health.working(f"consumer {self._destination}")
                    done = stop.is_set() or (self._until_caught_up and self._caught_up())
                    if done:
                        for partition in self._partitions.values():
                            self._store(partition, now=True)
                except Retry as error:
                    # The destination or Kafka is away. What isn't stored comes again.
                    done = stop.is_set()
                    log.warning(
                        "consumer waits",
                        destination=self._destination,
                        reason=error.reason,
                        hint=error.hint,
                    )
                    health.failing(f"consumer {self._destination}", error.reason, error.hint)
                    stop.wait(error.after)
        finally:
            self._close()

    def _round(self, stop: threading.Event) -> None:
        """Poll once, and serve each partition once."""
        is_busy = any(
            not partition.paused and (partition.buffered or partition.reenrichment.due())
            for partition in self._partitions.values()
        )
        lost: list[int] = []
        polled: dict[int, list[Record]] = {}
        try:
            polled = self._subscription.poll(0 if is_busy else IDLE_S)
        except OutOfRange as gap:
            lost = gap.partitions
        if self._subscription.assigned() != self._assigned:
            # What was polled is from before the `seek` to where the new partitions start.
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

    def _serve(self, partition: Partition) -> None:
        """Apply one batch and one slice of re-enrichment of one partition."""
        if partition.paused:
            if partition.waiting():
                return
            if partition.overtaken:
                self._start_again(partition)
                return
            partition.paused = False
            self._subscription.resume(partition.number)
        try:
            items = partition.take(self._settings.consumer.batch_records)
            if items:
                self._received(partition, items)
                self._applier.batch(partition, items)
            self._ask_for_persons(partition)
            self._applier.reenrich(
                partition, busy=partition.next < (self._subscription.high(partition.number) or 0)
            )
            self._store(partition, now=partition.failures > 0)
        except Overtaken as error:
            # A command, or the consumer that the partition belongs to by now. It gets some time.
            seconds = partition.wait_overtaken(error)
            self._hold(partition)
            log.info(
                "hospital taken by another writer",
                hospital=partition.hospital_id,
                after_s=round(seconds, 1),
            )
        except (Retry, Fatal) as error:
            # A hospital that can't go on without a person costs the others nothing. What is wrong
            # with the destination or with Kafka is wrong for all of them.
            is_own_failure = partition.is_own_failure(error)
            is_alone = self._until_caught_up or len(self._partitions) == 1
            if isinstance(error, Fatal) and (is_alone or not is_own_failure):
                raise
            self._pause(partition, error)
            if is_own_failure:  # the destination is there, and the pause may be long
                self._store(partition, now=True)

    def _received(self, partition: Partition, items: Sequence[Item]) -> None:
        """Add to the traces how long the records waited, from when they were published."""
        topic = self._settings.kafka.topic
        attributes = {
            **tracing.kafka("receive", topic),
            tracing.HOSPITAL: partition.hospital_id,
            tracing.DESTINATION: self._destination,
            tracing.COUNT: len(items),
        }
        with tracing.step(f"receive {topic}", items, attributes, waited=True):
            pass

    def _ask_for_persons(self, partition: Partition) -> None:
        """Have persons read whole: those who are ambiguous, once, and those the destination wants.

        Not before an event has shown which epoch it is.
        """
        now = time.monotonic()
        if now < partition.ask_at or not partition.lookups.newest > LOWEST:
            return
        partition.ask_at = now + ASK_S
        # In portions, so that a person whom a key change concerns doesn't wait for all of them.
        if partition.ambiguous and not partition.reenrichment.pending_persons():
            portion = partition.ambiguous[:PERSONS_AT_ONCE]
            partition.ambiguous = partition.ambiguous[PERSONS_AT_ONCE:]
            partition.reenrichment.add_persons(portion, None, None)
        if self._wants_persons is not None:
            wanted_ids = self._wanted(self._wants_persons, partition)
            # Not at the newest event: the destination may know a later reading of this person, and
            # would take nothing of an older one.
            partition.reenrichment.add_persons(wanted_ids, None, None)

    def _wanted(self, sink: WantsPersons, partition: Partition) -> set[int]:
        """Return some of the persons whom the destination wants.

        Those who are parked, or are being read, are left out.
        """
        left_out = partition.parked_persons | partition.reenrichment.big_persons()
        limit = PERSONS_AT_ONCE + len(left_out)
        return {*sink.wanted(partition.hospital_id, limit)} - left_out

    def _store(self, partition: Partition, *, now: bool) -> None:
        """Store the progress in the destination, then the offset in Kafka, if anything has moved.

        `now`: even if they were stored a moment ago.
        """
        if not now and time.monotonic() < partition.store_at:
            return
        offset = partition.offset
        version = partition.lookups.newest
        rereads = [*partition.reenrichment.as_json(), partition.enriched_as]
        if (offset, version, rereads) == partition.recorded:
            return
        partition.store_at = time.monotonic() + STORE_S
        self._sink.record(
            Progress(partition.hospital_id, offset, version, partition.at_ms, rereads)
        )
        if not self._subscription.commit({partition.number: offset}):
            # The destination's own offset is enough for whoever goes on.
            log.info(
                "offset not committed",
                partition=partition.number,
                reason="the group is being rearranged",
            )
        partition.recorded = (offset, version, rereads)
        if partition.failures and not partition.paused:
            self._recovered(partition)
        high = self._subscription.high(partition.number)
        if high is not None:
            lag = metrics.CONSUMER_LAG.labels(self._destination, str(partition.number))
            lag.set(max(0, high - partition.next))

    def _recovered(self, partition: Partition) -> None:
        partition.failures = 0
        metrics.PAUSED.labels(partition.hospital_id, self._destination).set(0)
        health.working(f"hospital {partition.hospital_id}")
        log.info("partition resumed", hospital=partition.hospital_id, offset=partition.next)

    def _pause(self, partition: Partition, error: Retry | Fatal) -> None:
        seconds = partition.wait(error)
        self._hold(partition)
        health.failing(f"hospital {partition.hospital_id}", error.reason, error.hint)
        is_fatal = isinstance(error, Fatal)
        log.log(
            logging.ERROR if is_fatal else logging.WARNING,
            "partition paused",
            hospital=partition.hospital_id,
            reason=error.reason,
            hint=error.hint,
            after_s=round(seconds, 1),
        )

    def _hold(self, partition: Partition) -> None:
        """Let Kafka send nothing of a partition that waits, and then from `next` on."""
        self._subscription.pause(partition.number)
        self._subscription.seek(partition.number, partition.next)
        metrics.PAUSED.labels(partition.hospital_id, self._destination).set(1)

    def _assign(self, generation: int, assigned: frozenset[int]) -> None:
        """Begin anew with the partitions that the group gives to this process.

        Another member may have served them meanwhile, so what was known of them may be outdated.
        """
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
        self._without_partition_since = time.monotonic()
        if assigned:
            log.info("partitions assigned", destination=self._destination, count=len(assigned))

    def _start_again(self, partition: Partition) -> None:
        """Start a partition anew, after another writer had its hospital."""
        self._start(partition.number)
        fresh = self._partitions[partition.number]
        fresh.failures = partition.failures
        fresh.overtaken_times = partition.overtaken_times
        fresh.overtaken_at = partition.overtaken_at
        partition.close()

    def _start(self, number: int) -> None:
        """Take the partition's hospital, and begin where its destination is."""
        hospital_id = self._hospitals[number]
        if self._one_writer is not None:
            self._one_writer.take(hospital_id)
        progress = self._sink.progress(hospital_id)
        start = self._first_offset(number, hospital_id, progress)
        self._subscription.seek(number, start)
        # The client keeps a pause over a rearrangement that gives the partition back.
        self._subscription.resume(number)
        hospital = self._settings.hospitals[hospital_id]
        rules = self._sink.rules(hospital_id) if isinstance(self._sink, HasRules) else ""
        partition = Partition(
            number, hospital_id, hospital, self._settings.consumer, start, rules=rules
        )
        if progress is not None:
            partition.lookups.seen(progress.version)
            partition.reenrichment.restore(progress.rereads)
            if partition.enriched_as not in progress.rereads:
                # An earlier release has written what the destination holds, names were kept in
                # other locales, or records were made by other rules.
                partition.reenrichment.add_everyone()
                log.info("everybody is read again in the background", hospital=hospital_id)
            partition.at_ms = progress.at_ms
        # The index of national ids begins empty, at a rebalance too. If one of two holders of an id
        # gives it up before the index is loaded, the index shows no change, and no event names the
        # other holder. So whoever the destination has as ambiguous is read again.
        if self._knows_ambiguous:
            partition.ambiguous = list(self._sink.ambiguous(hospital_id))
        self._partitions[number] = partition

    def _first_offset(self, number: int, hospital_id: str, progress: Progress | None) -> int:
        """Return where to start: the lower of the group's offset and the destination's.

        If one of them has none, it is the topic's start. Kafka forgets a group's offset with its
        topic, and a topic that was made anew may have as many records by now.
        """
        first, end = self._subscription.bounds([number])[number]
        committed = self._subscription.committed(number)
        if progress is None:
            if first > 0:
                self._report_gap(hospital_id, "the topic does not reach back to its start")
            return first
        start = progress.offset if committed is None else min(progress.offset, committed)
        if not first <= start <= end:
            self._report_gap(hospital_id, f"offset {start} is not in the topic ({first} to {end})")
            return first
        return first if committed is None else start

    def _restart(self, number: int) -> None:
        """Start a partition whose next offset is not in the topic.

        The client may also mean an offset from before the last `seek`. Then the partition goes on.
        """
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

    def _report_gap(self, hospital_id: str, reason: str) -> None:
        """Log that changes may be missing which only the hospital still knows.

        It is logged at each start, until the backfill has been asked for.
        """
        log.error(
            "gap in the topic",
            hospital=hospital_id,
            reason=reason,
            hint=f"passport backfill --hospital {hospital_id}",
        )

    def _caught_up(self) -> bool:
        """Return whether all that the partitions hold now is applied, and nothing waits."""
        partitions = self._partitions.values()
        if not partitions:
            return time.monotonic() - self._without_partition_since > WITHOUT_PARTITION_S
        for partition in partitions:
            if partition.failures or partition.buffered or partition.reenrichment.pending():
                return False
        # Kafka and the destination are asked last: these questions cost a round trip.
        bounds = self._subscription.bounds([partition.number for partition in partitions])
        for partition in partitions:
            _, end = bounds[partition.number]
            if partition.next < end or partition.ambiguous:
                return False
            if self._wants_persons and self._wanted(self._wants_persons, partition):
                return False
        return True

    def _close(self) -> None:
        for partition in self._partitions.values():
            partition.close()
        self._dead_letters.close()
        self._subscription.close()

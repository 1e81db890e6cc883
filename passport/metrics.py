"""Declares every metric: base units, few labels, never anything of a patient."""

from collections.abc import Iterator

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, Metric

# The readers, cdc/.
EVENTS = Counter(
    "passport_cdc_events_total", "Events published to Kafka", ["hospital", "table", "op"]
)
SKIPPED = Counter(
    "passport_cdc_events_skipped_total",
    "Statements that no row event carries, and transactions that an operator had skipped",
    ["hospital", "reason"],
)
CDC_LAG = Gauge(
    "passport_cdc_lag_seconds",
    "Age of the oldest committed change that Kafka has not acknowledged, 0 if there is none",
    ["hospital"],
)
LAST_EVENT = Gauge(
    "passport_cdc_last_event_timestamp_seconds", "Source time of the last change", ["hospital"]
)
HEADROOM = Gauge(
    "passport_cdc_binlog_headroom_seconds",
    "Seconds for which the server surely keeps the saved position's file; +Inf is for ever",
    ["hospital"],
)
CONNECTED = Gauge("passport_cdc_connected", "1 while the binlog is being read", ["hospital"])
CDC_PAUSED = Gauge(
    "passport_cdc_paused", "1 while an operator has paused the hospital's reader", ["hospital"]
)
DISCONNECTS = Counter("passport_cdc_disconnects_total", "Binlog connections lost", ["hospital"])
SNAPSHOT_ROWS = Counter("passport_cdc_snapshot_rows_total", "Rows read by snapshots", ["hospital"])
SNAPSHOT_DONE = Gauge(
    "passport_cdc_snapshot_done_ratio",
    "Share of the obs keys that the snapshot has read",
    ["hospital"],
)
SNAPSHOT_RUNNING = Gauge("passport_cdc_snapshot_running", "1 while a snapshot runs", ["hospital"])
SNAPSHOT_WAITING = Gauge(
    "passport_cdc_snapshot_waiting",
    "1 while a snapshot waits for the hospital's quiet hours",
    ["hospital"],
)

# The consumers, consumers/, and the destinations.
APPLY_SECONDS = Histogram(
    "passport_apply_seconds",
    "Time from the commit at the hospital until the destination has stored it",
    ["hospital", "destination"],
    # from a lone change, which takes a few ms, to a hospital that was away for an hour
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300, 900, 3600),
)
RECORDS = Counter(
    "passport_consumer_records_total",
    "Observations by what became of them: stored, unchanged, stale, unmatched, rejected",
    ["hospital", "destination", "outcome"],
)
CONSUMER_LAG = Gauge(
    "passport_consumer_lag_records", "Records not yet applied", ["destination", "partition"]
)
PAUSED = Gauge(
    "passport_consumer_paused", "1 while a hospital's partition waits", ["hospital", "destination"]
)
LOOKUPS = Counter(
    "passport_lookup_total", "Lookups by kind and result (hit, miss)", ["kind", "result"]
)
REENRICHED = Counter(
    "passport_reenriched_rows_total",
    "Obs rows that were re-enriched after a key change",
    ["hospital"],
)
WRITE_SECONDS = Histogram(
    "passport_sink_write_seconds", "Time that the destination took to write one batch", ["sink"]
)
DEAD_LETTERS = Counter(
    "passport_dead_letters_total", "Records parked as dead letters", ["destination", "reason"]
)
UNMATCHED = Gauge(
    "passport_people_unmatched",
    "People not matched, by state, as the consumer that watches registrations reports them",
    ["hospital", "state"],
)
CONTRADICTING = Gauge(
    "passport_people_contradicting",
    "People whose birth_year or sex is another one in the Passport, linked or not",
    ["hospital", "field"],
)
# Comparing and polling, reconcile/ and cdc/polling/.
REPAIRED = Counter(
    "passport_reconcile_repaired_total", "Differences found and published again", ["hospital"]
)
POLLED_INSTEAD = Gauge(
    "passport_reconcile_polled_instead",
    "1 while a silent stream's hospital is polled",
    ["hospital"],
)
# Every role.
BUILD = Gauge("passport_build_info", "Always 1; the label is the version that runs", ["version"])


class _FormerNames:
    """Shows a renamed metric under its former name too, for one release."""

    def __init__(self, former_names: dict[str, Counter]) -> None:
        self._former_names = former_names

    def collect(self) -> Iterator[Metric]:
        for former_name, metric in self._former_names.items():
            for family in metric.collect():
                help_text = f"The former name of {family.name}_total"
                former = Metric(former_name, help_text, family.type)
                for sample in family.samples:
                    name = sample.name.replace(family.name, former_name)
                    former.samples.append(sample._replace(name=name))
                yield former


REGISTRY.register(_FormerNames({"passport_reread_rows": REENRICHED}))

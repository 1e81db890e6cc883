"""What a hospital that is away costs the others: ``make bench-isolation``.

Two hospitals, each with its reader, and one consumer for both. Kigali commits 100 one-row
transactions a second; Huye's server is in turn there, refusing connections, and hanging, with names
to be read again at it so that the consumer asks for it too. Timed: from each COMMIT in Kigali until
the record is found by patientId.

Last line: one JSON. `p99_ratios`: the median of the rounds' p99, against that of the rounds with
both there.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from benchmarks.pipeline.measure import Clock
from dev import hospital as generator
from tests.e2e.roles import Role
from tests.e2e.stage import Hospital, Stage, opened
from tests.eventually import eventually
from tests.faults.proxy import Proxy

PAUSED = "partition paused"
RECOVERED_S = 90


def main() -> None:
    """Print each round, then the numbers."""
    arguments = _arguments()
    with (
        tempfile.TemporaryDirectory(prefix="bench-isolation-") as folder,
        _site(Path(folder)) as (stage, proxy),
    ):
        consumer = stage.roles[-1]
        ways: dict[str, Callable[[], None] | None] = {
            "there": None,
            "refusing": proxy.refuse,
            "hanging": proxy.hold,
        }
        rounds: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
        _round(stage, proxy, consumer, None, 10)  # caches are cold: not counted
        for number in range(arguments.rounds):
            for way, break_it in ways.items():
                latency = _round(stage, proxy, consumer, break_it, arguments.seconds)
                rounds[way].append(latency)
                shown = f"p50 {latency['p50']:.0f} ms, p99 {latency['p99']:.0f} ms"
                print(f"round {number + 1}, {way:9} {shown}", flush=True)
    medians = {}
    for way, latencies in rounds.items():
        medians[way] = {
            "p50": statistics.median(latency["p50"] for latency in latencies),
            "p99": statistics.median(latency["p99"] for latency in latencies),
        }
    there = medians.pop("there")
    ratios = {way: round(median["p99"] / there["p99"], 2) for way, median in medians.items()}
    print(json.dumps({"latency_ms": {"there": there, **medians}, "p99_ratios": ratios}))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.isolation")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60)  # mongod writes a checkpoint a minute
    return parser.parse_args()


@contextmanager
def _site(folder: Path) -> Iterator[tuple[Stage, Proxy]]:
    """Yield a stage on which all is applied, and the proxy in front of Huye.

    The consumer is the stage's last role.
    """
    kigali = Hospital("kigali", 0, generator.NATIONAL_ID_TYPE)
    hospitals = [kigali, Hospital("huye", 1, generator.NATIONAL_ID_TYPE)]
    with opened(folder, *hospitals) as stage:
        for number, hospital in enumerate(hospitals):
            stage.fill(hospital, seed=7 + number, patients=300)
        proxy = Proxy(stage.hospitals["huye"].sql.port)
        stage.hospitals["huye"].settings = {
            "mysql": {"port": proxy.port, "read_timeout_s": 5, "connect_timeout_s": 3}
        }
        stage.write_config()
        stage.grant()
        stage.readers()
        stage.role("consume", "--destination", "passport")
        stage.wait_equal(120)
        with closing(proxy):
            yield stage, proxy


def _round(
    stage: Stage, proxy: Proxy, consumer: Role, break_it: Callable[[], None] | None, seconds: float
) -> dict[str, float]:
    """Measure the latency in Kigali while Huye is broken in this way (None: it is there)."""
    paused = consumer.said().count(PAUSED)
    if break_it is not None:
        # Names that changed must be read again at Huye: the consumer asks for it, too.
        stage.hospitals["huye"].sql.execute(
            "UPDATE openmrs.location SET name = CONCAT(LEFT(name, 40), UUID())"
        )
        time.sleep(0.1)
        break_it()
        eventually(
            lambda: consumer.said().count(PAUSED) > paused, "the consumer waits for Huye", 30
        )
    with closing(Clock(stage, stage.hospitals["kigali"])) as clock:
        latency = clock.run(seconds)
    proxy.heal()
    if break_it is None:
        assert consumer.said().count(PAUSED) == paused, "Huye was there"
    stage.wait_equal(RECOVERED_S)
    return latency


if __name__ == "__main__":
    main()

"""What more hospitals and more consumers cost: ``make bench-scale``.

For 1, 2, 4 and 8 hospitals, each with its MariaDB and its reader: all first snapshots at once, then
the topic consumed into an empty Passport by 1, 2 and 4 consumers in turn (never more than
hospitals, each of which is one partition), all on this machine. Each Passport is then compared with
the oracle.

Last line: one JSON; costs are CPU seconds per 100,000 obs.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.pipeline import hospital as work
from benchmarks.pipeline.measure import cpu, peak_rss_mb, per_100k, until_shown
from dev import hospital as generator
from tests.e2e.roles import Role
from tests.e2e.stage import LINK_KEY, Hospital, Stage, opened

NAMES = ("kigali", "huye", "musanze", "rubavu", "rusizi", "nyagatare", "kayonza", "muhanga")
CONSUMERS = (1, 2, 4)
ROWS = 20_000  # obs of one hospital
VISITS = 4
OBS_A_VISIT = 20
DEADLINE_S = 600.0


def main() -> None:
    """Print each run, then the numbers."""
    arguments = _arguments()
    runs = []
    for hospitals in arguments.hospitals:
        with tempfile.TemporaryDirectory(prefix="bench-scale-") as folder:
            runs += _hospitals(Path(folder), hospitals, arguments.rows)
    least = min(runs, key=lambda run: (run["hospitals"], run["consumers"]))
    most = max(runs, key=lambda run: (run["hospitals"], -run["consumers"]))
    ratios = {}
    for role in ("readers", "consumers"):
        ratios[f"{role}_cpu"] = round(most["cpu"][role] / least["cpu"][role], 2)
    of_what = f"ratios_of_{most['hospitals']}_to_{least['hospitals']}"
    print(json.dumps({"runs": runs, of_what: ratios}))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.scale")
    parser.add_argument("--rows", type=int, default=ROWS, help="about so many obs a hospital")
    parser.add_argument("--hospitals", type=int, nargs="+", default=[1, 2, 4, 8])
    return parser.parse_args()


def _hospitals(folder: Path, number: int, rows: int) -> list[dict[str, Any]]:
    """Measure so many hospitals, with each number of consumers that makes sense for them."""
    hospitals = [
        Hospital(name, partition, generator.NATIONAL_ID_TYPE)
        for partition, name in enumerate(NAMES[:number])
    ]
    consumers = [count for count in CONSUMERS if count <= number]
    with opened(folder, *hospitals) as stage:
        people, all_rows, kept = _fill(stage, rows)
        destinations = {f"by_{count}": _destination(stage, count) for count in consumers}
        stage.write_config(destinations=destinations)
        stage.grant()
        read = _read(stage, all_rows)
        return [read | _consumed(stage, count, people, kept, read) for count in consumers]


def _fill(stage: Stage, rows: int) -> tuple[Sequence[str], int, int]:
    """Fill the hospitals.

    Return the national ids of all who can be matched, how many obs there are, and how many of
    them are theirs.
    """
    people: list[str] = []
    count = 0
    kept = 0
    for number, hospital in enumerate(stage.hospitals.values()):
        with hospital.connect() as connection:
            patients = max(1, rows // VISITS // OBS_A_VISIT)
            generator.create(connection, seed=5 + number, patients=patients, visits=VISITS)
            able = dict(generator.registrable(connection))
            kept += work.count_of(connection, list(able))
        people += able.values()
        count += work.count(hospital)
    return sorted(set(people)), count, kept


def _destination(stage: Stage, consumers: int) -> dict[str, Any]:
    options = {"uri": stage.mongo.url, "database": f"by_{consumers}", "link_key": LINK_KEY}
    return {"type": "mongo", "options": options}


def _read(stage: Stage, rows: int) -> dict[str, Any]:
    """Measure all snapshots at once. The readers go on afterwards."""
    began = time.monotonic()
    before = cpu(_servers(stage))
    readers = stage.readers()
    for reader in readers.values():
        reader.says("snapshot done", DEADLINE_S)
    seconds = time.monotonic() - began
    pids = _pids(readers.values())
    used = sum(cpu(pids).values())
    servers = {name: after - before[name] for name, after in cpu(_servers(stage)).items()}
    rss = max(peak_rss_mb(pid) for pid in pids.values())
    speed = f"{rows} obs read in {seconds:.1f} s, a reader at most {rss:.0f} MB"
    print(f"{len(readers)} hospitals: {speed}", flush=True)
    cost = {"readers": per_100k(used, rows), "broker": per_100k(servers["broker"], rows)}
    return {
        "hospitals": len(readers),
        "obs": rows,
        "read_per_s": round(rows / seconds),
        "reader_mb": rss,
        "cpu": cost,
    }


def _consumed(
    stage: Stage, consumers: int, people: Sequence[str], kept: int, read: Mapping[str, Any]
) -> dict[str, Any]:
    """Measure so many consumers that fill an empty Passport from the topic."""
    stage.db = stage.client[f"by_{consumers}"]
    generator.passport_patients(stage.db, people)
    began = time.monotonic()
    before = cpu(_servers(stage))
    roles = [stage.role("consume", "--destination", f"by_{consumers}") for _ in range(consumers)]
    seconds = until_shown(stage, kept, DEADLINE_S) - began
    pids = _pids(roles)
    used = sum(cpu(pids).values())
    rss = max(peak_rss_mb(pid) for pid in pids.values())
    mongod = cpu(_servers(stage))["mongod"] - before["mongod"]
    for role in roles:
        role.stop()
    rows = stage.compare().require_equal().rows
    assert rows == kept
    speed = f"{rows} kept in {seconds:.1f} s, {rows / seconds:.0f} obs/s; {rss:.0f} MB"
    print(f"  {consumers} consumers: {speed}", flush=True)
    cost = {**read["cpu"], "consumers": per_100k(used, rows), "mongod": per_100k(mongod, rows)}
    return {
        "consumers": consumers,
        "kept": rows,
        "kept_per_s": round(rows / seconds),
        "consumer_mb": rss,
        "cpu": cost,
    }


def _servers(stage: Stage) -> dict[str, int]:
    """Return the pids of the servers that run."""
    servers = {"broker": stage.kafka.pid, "mongod": stage.mongo.pid}
    return {name: pid for name, pid in servers.items() if pid}


def _pids(roles: Iterable[Role]) -> dict[str, int]:
    """Return the pids of the roles that run, by their number."""
    pids = {}
    for number, role in enumerate(roles):
        if role.process is not None:
            pids[str(number)] = role.process.pid
    return pids


if __name__ == "__main__":
    main()

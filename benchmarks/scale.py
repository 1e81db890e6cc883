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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.pipeline import hospital as work
from benchmarks.pipeline.measure import cpu, peak_rss_mb, until_shown
from dev import hospital as generator
from tests.e2e.stage import LINK_KEY, Hospital, Stage, opened

NAMES = ("kigali", "huye", "musanze", "rubavu", "rusizi", "nyagatare", "kayonza", "muhanga")
CONSUMERS = (1, 2, 4)
ROWS, VISITS, OBS_A_VISIT = 20_000, 4, 20  # of one hospital
DEADLINE_S = 600.0


def main() -> None:
    """Prints a table, then the numbers."""
    given = _arguments()
    found = []
    for hospitals in given.hospitals:
        with tempfile.TemporaryDirectory(prefix="bench-scale-") as folder:
            found += _hospitals(Path(folder), hospitals, given.rows)
    least = min(found, key=lambda one: (one["hospitals"], one["consumers"]))
    most = max(found, key=lambda one: (one["hospitals"], -one["consumers"]))
    ratios = {
        f"{role}_cpu": round(most["cpu"][role] / least["cpu"][role], 2)
        for role in ("readers", "consumers")
    }
    print(
        json.dumps(
            {"runs": found, f"ratios_of_{most['hospitals']}_to_{least['hospitals']}": ratios}
        )
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.scale")
    parser.add_argument("--rows", type=int, default=ROWS, help="about so many obs a hospital")
    parser.add_argument("--hospitals", type=int, nargs="+", default=[1, 2, 4, 8])
    return parser.parse_args()


def _hospitals(folder: Path, number: int, rows: int) -> list[dict[str, Any]]:
    hospitals = [Hospital(NAMES[one], one, generator.NATIONAL_ID_TYPE) for one in range(number)]
    consumers = [one for one in CONSUMERS if one <= number]
    with opened(folder, *hospitals) as stage:
        people, all_rows, kept = _fill(stage, rows)
        destinations = {f"by_{one}": _destination(stage, one) for one in consumers}
        stage.write_config(destinations=destinations)
        stage.grant()
        read = _read(stage, all_rows)
        return [read | _consumed(stage, one, people, kept, read) for one in consumers]


def _fill(stage: Stage, rows: int) -> tuple[Sequence[str], int, int]:
    """National ids of all who can be matched, how many obs there are, and how many of them are
    theirs.
    """
    people: list[str] = []
    count = kept = 0
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
    """All snapshots at once. The readers go on."""
    began, before = time.monotonic(), cpu(_servers(stage))
    readers = stage.readers()
    for reader in readers.values():
        reader.says("snapshot done", DEADLINE_S)
    seconds = time.monotonic() - began
    pids = _pids(readers.values())
    used = sum(cpu(pids).values())
    servers = {name: after - before[name] for name, after in cpu(_servers(stage)).items()}
    rss = max(peak_rss_mb(pid) for pid in pids.values())
    print(
        f"{len(readers)} hospitals: {rows} obs read in {seconds:.1f} s, a reader at most {rss:.0f} MB",
        flush=True,
    )
    cost = {"readers": _each(used, rows), "broker": _each(servers["broker"], rows)}
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
    stage.db = stage.client[f"by_{consumers}"]
    generator.passport_patients(stage.db, people)
    began, before = time.monotonic(), cpu(_servers(stage))
    roles = [stage.role("consume", "--destination", f"by_{consumers}") for _ in range(consumers)]
    seconds = until_shown(stage, kept, DEADLINE_S) - began
    pids = _pids(roles)
    used, rss = sum(cpu(pids).values()), max(peak_rss_mb(pid) for pid in pids.values())
    mongod = cpu(_servers(stage))["mongod"] - before["mongod"]
    for role in roles:
        role.stop()
    rows = stage.compare().require_equal().rows
    assert rows == kept
    print(
        f"  {consumers} consumers: {rows} kept in {seconds:.1f} s, {rows / seconds:.0f} obs/s; {rss:.0f} MB",
        flush=True,
    )
    cost = {**read["cpu"], "consumers": _each(used, rows), "mongod": _each(mongod, rows)}
    return {
        "consumers": consumers,
        "kept": rows,
        "kept_per_s": round(rows / seconds),
        "consumer_mb": rss,
        "cpu": cost,
    }


def _servers(stage: Stage) -> dict[str, int]:
    return {
        name: pid
        for name, pid in {"broker": stage.kafka.pid, "mongod": stage.mongo.pid}.items()
        if pid
    }


def _pids(roles: Any) -> dict[str, int]:
    return {
        str(number): role.process.pid
        for number, role in enumerate(roles)
        if role.process is not None
    }


def _each(seconds: float, rows: int) -> float:
    return round(seconds * 100_000 / rows, 1)


if __name__ == "__main__":
    main()

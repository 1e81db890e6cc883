"""``python -m benchmarks.pipeline [--rows N] [--seconds S] [--only PART] [--peer]``.

It prints a JSON line at the end. All servers, one reader and one consumer share this machine. What
was written is compared with the oracle: a run whose MongoDB is not equal ends with an error.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.pipeline import hospital as work
from benchmarks.pipeline.measure import (
    Clock,
    busy,
    cpu,
    operations,
    peak_rss_mb,
    per_100k,
    until_shown,
    until_still,
)
from benchmarks.pipeline.peer import Peer
from dev import hospital as generator
from tests.e2e.roles import Role
from tests.e2e.stage import Hospital, Stage, opened

DEADLINE_S = 600


def main() -> None:
    """Measure the parts that are asked for, and print the numbers."""
    arguments = _arguments()
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="bench-pipeline-") as folder:
        if arguments.only in ("", "backlog", "latency"):
            with _stage(Path(folder) / "backlog") as stage:
                result |= _backlog(stage, arguments.rows, peer=arguments.peer)
                if arguments.only != "backlog":
                    result |= _latency(stage, arguments.seconds)
        if arguments.only in ("", "first"):
            with _stage(Path(folder) / "first") as stage:
                result |= _first_load(stage, arguments.rows, peer=arguments.peer)
    print(json.dumps(result | _ratios(result)))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-pipeline", description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--only", choices=["", "backlog", "first", "latency"], default="")
    parser.add_argument(
        "--peer", action="store_true", help="the same data through Kafka Connect, too"
    )
    return parser.parse_args()


def _stage(folder: Path) -> Any:
    folder.mkdir()
    kigali = Hospital("kigali", 0, generator.NATIONAL_ID_TYPE, locales=("en", "fr"))
    return opened(folder, kigali, logs={"format": "json", "level": "WARNING"})


def _backlog(stage: Stage, rows: int, *, peer: bool) -> dict[str, Any]:
    """Measure with everything in the binlog before the reader and the consumer start."""
    kigali = stage.hospitals["kigali"]
    matched = work.fill(stage, kigali, rows)
    work.set_aside(kigali)
    stage.grant()
    for words in (("cdc", "run", "--hospital", "kigali"), ("consume", "--destination", "passport")):
        assert stage.run(*words, "--until-caught-up").returncode == 0
    other = Peer(stage, kigali) if peer else None
    if other is not None:
        other.note_position(lambda: work.stir(kigali))
    began = time.monotonic()
    transactions, edited = work.work(kigali)
    took = time.monotonic() - began
    print(f"backlog: {transactions} transactions, {edited} edits, written in {took:.0f} s")
    result = _applied("backlog", stage, matched)
    if other is not None:
        result |= _peers("backlog", stage, other, snapshot=False)
    return result


def _first_load(stage: Stage, rows: int, *, peer: bool) -> dict[str, Any]:
    """Measure the snapshot of a hospital that was there before."""
    kigali = stage.hospitals["kigali"]
    matched = work.fill(stage, kigali, rows)
    stage.grant()
    result = _applied("first_load", stage, matched)
    if peer:
        result |= _peers("first_load", stage, Peer(stage, kigali), snapshot=True)
    return result


def _peers(name: str, stage: Stage, peer: Peer, *, snapshot: bool) -> dict[str, Any]:
    """Measure the peer with the same rows, every patient's, as they are.

    The clock runs from the start of the JVM.
    """
    servers = _servers(stage)
    before = cpu(servers)
    machine = busy()
    began = time.monotonic()
    rows = work.count(stage.hospitals["kigali"])
    with peer.running(snapshot=snapshot) as pid:
        ended = until_still(stage, rows, DEADLINE_S, lambda: operations(stage), peer.rows)
        seconds = ended - began
        used = cpu({"connect": pid})
        for server, after in cpu(servers).items():
            used[server] = after - before[server]
        rest = busy() - machine - sum(used.values())
        rss = peak_rss_mb(pid)
    each = {process: per_100k(cost, rows) for process, cost in used.items()}
    print(
        f"{name}, Debezium and MongoDB's sink in Connect: {rows} obs in {seconds:.1f} s:"
        f" {rows / seconds:.0f} obs/s;"
        f" Connect {rss} MB; CPU s per 100k {each}, all {sum(each.values()):.1f};"
        f" rest of the machine {rest / seconds:.2f} cores"
    )
    return {f"peer_{name}_obs_per_s": round(rows / seconds), f"peer_{name}_cpu_s_per_100k": each}


def _ratios(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return our numbers divided by the peer's, if the peer was measured."""
    ratios: dict[str, float] = {}
    for part in ("backlog", "first_load"):
        if f"peer_{part}_obs_per_s" not in result:
            continue
        speed = result[f"{part}_obs_per_s"] / result[f"peer_{part}_obs_per_s"]
        ours = sum(result[f"{part}_cpu_s_per_100k"].values())
        peers = sum(result[f"peer_{part}_cpu_s_per_100k"].values())
        ratios[f"{part}_obs_per_s"] = round(speed, 2)
        ratios[f"{part}_cpu"] = round(ours / peers, 2)
    return {"ratios": ratios} if ratios else {}


def _applied(name: str, stage: Stage, matched: int) -> dict[str, Any]:
    """Measure how the roles apply everything that there is to apply.

    The clock runs from the start of both roles until the last write.
    """
    servers = _servers(stage)
    before = cpu(servers)
    machine = busy()
    began = time.monotonic()
    roles = _start(stage)
    seconds = until_shown(stage, matched, DEADLINE_S) - began
    pids = {role: process.process.pid for role, process in roles.items() if process.process}
    used = cpu(pids)
    for server, after in cpu(servers).items():
        used[server] = after - before[server]
    rest = busy() - machine - sum(used.values())
    rss = peak_rss_mb(pids["consumer"])
    for role in roles.values():
        role.stop()
    comparison = stage.compare().require_equal()
    assert comparison.rows == matched
    rate = round(matched / seconds)
    each = {process: per_100k(cost, matched) for process, cost in used.items()}
    print(
        f"{name}: {matched} obs of {comparison.matched} matched patients in {seconds:.1f} s:"
        f" {rate} obs/s; {comparison.records} records, equal to the oracle; consumer {rss} MB;"
        f" CPU s per 100k {each}, all {sum(each.values()):.1f};"
        f" rest of the machine {rest / seconds:.2f} cores"
    )
    return {
        f"{name}_obs_per_s": rate,
        "consumer_rss_mb": rss,
        "cpu_s_per_100k": each,
        f"{name}_cpu_s_per_100k": each,
    }


def _servers(stage: Stage) -> Mapping[str, int]:
    servers = {
        "broker": stage.kafka.pid,
        "mongod": stage.mongo.pid,
        "mariadbd": stage.hospitals["kigali"].sql.pid,
    }
    return {name: pid for name, pid in servers.items() if pid}


def _start(stage: Stage) -> dict[str, Role]:
    """Start both roles as where they are installed: compiled once, not at each start."""
    compiled = {"PYTHONDONTWRITEBYTECODE": ""}
    return {
        "reader": stage.role("cdc", "run", "--hospital", "kigali", **compiled),
        "consumer": stage.role("consume", "--destination", "passport", **compiled),
    }


def _latency(stage: Stage, seconds: float) -> dict[str, Any]:
    """Measure how long a record takes from its commit until it is found."""
    roles = _start(stage)
    with closing(Clock(stage, stage.hospitals["kigali"])) as clock:
        latency = clock.run(seconds)
    for role in roles.values():
        role.stop()
    stage.compare().require_equal()
    print(f"latency: {latency} ms from commit until found by patientId")
    return {"latency_ms": latency}


if __name__ == "__main__":
    main()

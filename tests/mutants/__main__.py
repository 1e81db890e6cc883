"""Runs the mutants: ``python -m tests.mutants [pattern of a promise]``. Its last line is one JSON
object.

Each is applied in a copy of the tree, where its test must fail in its call, not in an import or a
fixture; unmutated, the same tests must pass. Servers are shared by all.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue

from dev.stack import Kafka, MariaDB, Mongo, MySQL
from tests import real_data
from tests.mutants.patches import MUTANTS as PATCHES
from tests.mutants.patches import Mutant
from tests.mutants.rows import ROWS
from tests.servers import VARIABLES

ROOT = Path(__file__).resolve().parents[2]
PRODUCT = (
    "cli",
    "passport",
    "openmrs",
    "cdc",
    "consumers",
    "destinations",
    "reconcile",
    "legacy_import",
    "portal",
    "config",
)
COPIED = (*PRODUCT, "dev", "tests", "docs", "pyproject.toml")
MUTANTS = (*PATCHES, *ROWS)
WORKERS = min(3, os.cpu_count() or 1)
TIMEOUT_S = 400
WITHIN_S = 30  # what a mutant keeps from coming is waited for so long
FAILED = re.compile(r"^FAILED \S+(.*)", re.MULTILINE)
BEFORE = re.compile(r"^_* ERROR (at setup of|collecting) |^ERROR: ", re.MULTILINE)


def main() -> int:
    chosen = [one for one in MUTANTS if re.search(" ".join(sys.argv[1:]), one.promise)]
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        servers = [kind(Path(folder) / kind.__name__) for kind in (MariaDB, MySQL, Kafka, Mongo)]
        try:
            with ThreadPoolExecutor() as pool:
                list(pool.map(lambda server: server.start(), servers))
            urls = {VARIABLES[type(server)]: server.url for server in servers}
            verdicts = run(Path(folder), urls, chosen)
        finally:
            for server in servers:
                server.kill()
    survived = [
        one.promise
        for one, verdict in zip([None, *chosen], verdicts, strict=True)
        if one and verdict
    ]
    print(f"{time.monotonic() - began:.0f} s")
    print(
        json.dumps(
            {"mutants": len(chosen), "survived": len(survived), "unmutated": verdicts[0] or "green"}
        )
    )
    return 1 if any(verdicts) else 0


def run(folder: Path, urls: dict[str, str], chosen: list[Mutant]) -> list[str]:
    """What is wrong with the tests unmutated, then with each mutant; "" for nothing."""
    copies: Queue[Path] = Queue()
    for number in range(WORKERS):
        copies.put(_copy(folder / f"copy-{number}"))

    def one(mutant: Mutant | None) -> str:
        copy, began = copies.get(), time.monotonic()
        try:
            verdict = (
                _unmutated(copy, urls, chosen) if mutant is None else _mutated(copy, urls, mutant)
            )
        finally:
            copies.put(copy)
        promise = mutant.promise if mutant else "the same tests, unmutated"
        print(
            f"{'NO ' + verdict if verdict else 'ok':6} {time.monotonic() - began:3.0f} s  {promise}",
            flush=True,
        )
        return verdict

    with ThreadPoolExecutor(WORKERS) as pool:
        return list(pool.map(one, [None, *chosen]))


def _copy(to: Path) -> Path:
    to.mkdir()
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, to / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, to / name)
    return to


def _unmutated(copy: Path, urls: dict[str, str], chosen: list[Mutant]) -> str:
    code, said = _pytest(copy, urls, sorted({one.test for one in chosen}), timeout_s=2_400)
    return "" if code == 0 else f"red: {said[-1500:]}"


def _mutated(copy: Path, urls: dict[str, str], mutant: Mutant) -> str:
    file = copy / mutant.file
    text = file.read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        return f"patch: {mutant.file} has its place {text.count(mutant.old)} times"
    file.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
    try:
        if file.suffix == ".py":
            compile(file.read_text(encoding="utf-8"), str(file), "exec")
        code, said = _pytest(
            copy, {**urls, "TEST_WITHIN_S": str(WITHIN_S)}, [mutant.test], timeout_s=TIMEOUT_S
        )
    finally:
        file.write_text(text, encoding="utf-8")
    if code == 0:
        return f"SURVIVED {mutant.test}"
    failed = FAILED.search(said)
    if failed is None or BEFORE.search(said):
        return f"not a failure of the test: {said[-1500:]}"
    why = failed[1].split("assert ")[0]  # no values
    print(f"{'':8}seen by {mutant.test.partition('::')[2]}{why}", flush=True)
    return ""


def _pytest(
    copy: Path, known: dict[str, str], tests: list[str], *, timeout_s: float
) -> tuple[int, str]:
    options = [
        "-x",
        "-q",
        "-p",
        "no:randomly",
        "-p",
        "no:cacheprovider",
        "--tb=line",
        "--timeout",
        "300",
    ]
    found = subprocess.run(
        [sys.executable, "-B", "-m", "pytest", *options, *tests],
        cwd=copy,
        env={
            "PASSPORT_REAL_DATA": str(real_data.BESIDE),
            **os.environ,
            **known,
            "PYTHONPATH": str(copy),
            "CI": "true",
        },
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    return found.returncode, found.stdout + found.stderr


if __name__ == "__main__":
    sys.exit(main())

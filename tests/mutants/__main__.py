"""Runs the mutants: ``python -m tests.mutants [pattern of a promise]``.

Each mutant is applied in a copy of the tree. Its test must then fail in its call, not in an import
or a fixture. The same tests must pass without any mutant. All share the same servers.
The last line of the output is one JSON object.
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

from dev.rules import PRODUCT
from dev.stack import Kafka, MariaDB, Mongo, MySQL
from tests import real_data
from tests.mutants.big_persons import BIG_PERSONS
from tests.mutants.edit import Mutant, PlaceError, TextMutant
from tests.mutants.edits import MUTANTS as EDITS
from tests.mutants.identity import IDENTITY
from tests.mutants.meaning import MEANING
from tests.mutants.mirror import MIRROR
from tests.mutants.patches import MUTANTS as PATCHES
from tests.mutants.rows import ROWS
from tests.mutants.words import WORDS
from tests.mutants.writers import WRITERS
from tests.servers import VARIABLES

ROOT = Path(__file__).resolve().parents[2]
COPIED = (*PRODUCT, "config", "dev", "tests", "docs", "pyproject.toml")
MUTANTS: tuple[Mutant | TextMutant, ...] = (
    *PATCHES,
    *EDITS,
    *ROWS,
    *MIRROR,
    *MEANING,
    *IDENTITY,
    *WRITERS,
    *WORDS,
    *BIG_PERSONS,
)
WORKERS = min(3, os.cpu_count() or 1)
UNMUTATED_TIMEOUT_S = 2_400
TIMEOUT_S = 400
WITHIN_S = 30  # a test waits so long for what its mutant keeps from coming
FAILED = re.compile(r"^FAILED \S+(.*)", re.MULTILINE)
ERROR_BEFORE_CALL = re.compile(r"^_* ERROR (at setup of|collecting) |^ERROR: ", re.MULTILINE)


def main() -> int:
    """Run the mutants whose promise matches the pattern. Return 0 if their tests see all."""
    pattern = " ".join(sys.argv[1:])
    chosen = [mutant for mutant in MUTANTS if re.search(pattern, mutant.promise)]
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        servers = [kind(Path(folder) / kind.__name__) for kind in (MariaDB, MySQL, Kafka, Mongo)]
        try:
            with ThreadPoolExecutor() as pool:
                list(pool.map(lambda server: server.start(), servers))
            urls = {VARIABLES[type(server)]: server.url for server in servers}
            unmutated, *verdicts = run(Path(folder), urls, chosen)
        finally:
            for server in servers:
                server.kill()

    survived = sum(1 for verdict in verdicts if verdict)
    summary = {"mutants": len(chosen), "survived": survived, "unmutated": unmutated or "green"}
    print(f"{time.monotonic() - began:.0f} s")
    print(json.dumps(summary))
    return 1 if unmutated or survived else 0


def run(folder: Path, urls: dict[str, str], chosen: list[Mutant | TextMutant]) -> list[str]:
    """Return what is wrong with the unmutated tests, then with each mutant: "" if nothing is."""
    copies: Queue[Path] = Queue()
    for number in range(WORKERS):
        copies.put(_copy(folder / f"copy-{number}"))

    def verdict_of(mutant: Mutant | TextMutant | None) -> str:
        copy = copies.get()
        began = time.monotonic()
        try:
            if mutant is None:
                promise = "the same tests, unmutated"
                verdict = _unmutated(copy, urls, chosen)
            else:
                promise = mutant.promise
                verdict = _mutated(copy, urls, mutant)
        finally:
            copies.put(copy)
        outcome = f"NO {verdict}" if verdict else "ok"
        print(f"{outcome:6} {time.monotonic() - began:3.0f} s  {promise}", flush=True)
        return verdict

    with ThreadPoolExecutor(WORKERS) as pool:
        return list(pool.map(verdict_of, [None, *chosen]))


def _copy(to: Path) -> Path:
    to.mkdir()
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, to / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, to / name)
    return to


def _unmutated(copy: Path, urls: dict[str, str], chosen: list[Mutant | TextMutant]) -> str:
    tests = sorted({mutant.test for mutant in chosen})
    code, output = _pytest(copy, urls, tests, timeout_s=UNMUTATED_TIMEOUT_S)
    return "" if code == 0 else f"red: {output[-1500:]}"


def _mutated(copy: Path, urls: dict[str, str], mutant: Mutant | TextMutant) -> str:
    file = copy / mutant.file
    source = file.read_text(encoding="utf-8")
    try:
        mutated = mutant.apply(source)
    except (PlaceError, SyntaxError) as error:
        return f"not applied: {error}"

    variables = {**urls, "TEST_WITHIN_S": str(WITHIN_S)}
    file.write_text(mutated, encoding="utf-8")
    try:
        code, output = _pytest(copy, variables, [mutant.test], timeout_s=TIMEOUT_S)
    finally:
        file.write_text(source, encoding="utf-8")

    if code == 0:
        return f"SURVIVED {mutant.test}"
    failed = FAILED.search(output)
    if failed is None or ERROR_BEFORE_CALL.search(output):
        return f"not a failure of the test: {output[-1500:]}"
    reason = failed[1].split("assert ")[0]  # without values, which may be a patient's
    print(f"{'':8}seen by {mutant.test.partition('::')[2]}{reason}", flush=True)
    return ""


def _pytest(
    copy: Path, variables: dict[str, str], tests: list[str], *, timeout_s: float
) -> tuple[int, str]:
    """Return the exit code and the output of these tests, run in the copy."""
    options = ["-x", "-q", "--tb=line", "--timeout", "300"]
    without_plugins = ["-p", "no:randomly", "-p", "no:cacheprovider"]
    environment = {
        "PASSPORT_REAL_DATA": str(real_data.BESIDE),
        **os.environ,
        **variables,
        "PYTHONPATH": str(copy),
        "CI": "true",
    }
    finished = subprocess.run(
        [sys.executable, "-B", "-m", "pytest", *options, *without_plugins, *tests],
        cwd=copy,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    return finished.returncode, finished.stdout + finished.stderr


if __name__ == "__main__":
    sys.exit(main())

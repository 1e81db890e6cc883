"""How long `passport verify` takes, at either level, and its memory: ``make bench-verify``.

A hospital of the generator is loaded through reader and consumer; the servers then stand still
beside the command. Last line: one JSON; `rows` are those of matched people, all of which each level
compares.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from dev import hospital as generator
from tests.e2e.roles import REPOSITORY, command, environment
from tests.e2e.stage import Hospital, Stage, opened

OBS_OF_A_PATIENT = 62  # as generated with VISITS
VISITS = 3
LEVELS = ("mirror", "record")


def main() -> None:
    """Print each run, then the numbers of the fastest at each level."""
    arguments = _arguments()
    kigali = Hospital("kigali", 0, generator.NATIONAL_ID_TYPE, locales=("en", "fr"))
    with (
        tempfile.TemporaryDirectory(prefix="bench-verify-") as folder,
        opened(Path(folder), kigali, logs={"level": "WARNING"}) as stage,
    ):
        _load(stage, kigali, arguments.rows)
        fastest = {}
        for level in LEVELS:
            runs = [_verified(stage, level) for _ in range(arguments.rounds)]
            fastest[level] = min(runs, key=lambda run: run["seconds"])
    print(json.dumps(fastest))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-verify", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_700_000)
    parser.add_argument("--rounds", type=int, default=2)
    return parser.parse_args()


def _load(stage: Stage, kigali: Hospital, rows: int) -> None:
    began = time.monotonic()
    stage.fill(kigali, seed=5, patients=max(1, rows // OBS_OF_A_PATIENT), visits=VISITS)
    print(f"made in {time.monotonic() - began:.0f} s", flush=True)
    # As the Passport's own schema has it.
    stage.db["patients"].create_index("nationalId", unique=True)
    stage.grant()
    began = time.monotonic()
    for words in (("cdc", "run", "--hospital", "kigali"), ("consume", "--destination", "passport")):
        done = stage.run(*words, "--until-caught-up", timeout=3_600)
        assert done.returncode == 0, done.stderr[-2000:]
    print(f"loaded in {time.monotonic() - began:.0f} s", flush=True)


def _verified(stage: Stage, level: str) -> dict[str, Any]:
    """Measure one run, as a process of its own."""
    words = command(stage.config, "verify", "--level", level, "--json")
    began = time.monotonic()
    with subprocess.Popen(
        words, cwd=REPOSITORY, env=environment(), stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        report = json.loads(process.stdout.read())
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - began
    assert report["equal"], report
    assert report["rows"]
    result = {
        "rows": report["rows"],
        "records": report["records"],
        "seconds": round(seconds, 1),
        "rows_per_s": round(report["rows"] / seconds),
        "cpu_s": round(used.ru_utime + used.ru_stime, 1),
        "peak_rss_mb": round(used.ru_maxrss / 1024, 1),
    }
    print(f"{level}: {result}", flush=True)
    return result


if __name__ == "__main__":
    main()

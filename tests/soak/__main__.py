"""The soak: ``python -m tests.soak --minutes 10 [--seed N]``. Its last line is one JSON object."""

import argparse
import contextlib
import json
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.e2e.stage import Stage, opened
from tests.faults import KINDS
from tests.faults.kinds import Scene
from tests.faults.scene import SETTINGS, hospitals, set_up
from tests.soak import ownership
from tests.soak.doctors import Doctors
from tests.soak.ledger import Entry, Ledger, fresh, positions
from tests.soak.watch import Watch
from tests.soak.work import Shift, lost, told

RECOVERY_S = 30
# within which all is equal once nobody works: a purge at the end means a whole snapshot first
QUIET_S = 600
PATIENCE_S = 120  # after that a fault is not recovered from at all
EDITS_PER_S = 3  # by doctors, in the Passport
# What happens at a hospital now and then, and is hard to follow: a share of the clinic's steps.
SELDOM = ("change_uuid", "swap_national_ids", "merge_patients", "transfer_encounter")
SELDOM_SHARE = 0.02
REPOSITORY = Path(__file__).resolve().parents[2]


def main() -> int:
    given = _arguments()
    seed = given.seed or random.SystemRandom().randrange(10**9)
    print(f"seed {seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    kept = REPOSITORY / ".stack" / "soak" / f"{time.strftime('%Y%m%d-%H%M%S')}-{seed}"
    kept.mkdir(parents=True)
    print(f"ledger and logs: {kept}", flush=True)
    kinds = given.kinds.split(",") if given.kinds else sorted(KINDS)
    try:
        with opened(folder, *hospitals(), sweep_s=20, **SETTINGS) as stage:
            try:
                result = Soak(stage, seed, given.rate, Ledger(kept / "ledger.jsonl"), kinds).run(
                    given.minutes * 60
                )
            finally:
                for log in [*folder.glob("*.log"), *folder.glob("*.jsonl")]:
                    shutil.copy(log, kept)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(result), flush=True)
    good = result["lost"] == result["wrong"] == result["unproven"] == 0 and result["equal"]
    return 0 if good and result["max_recovery_s"] <= RECOVERY_S else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.soak")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--rate", type=float, default=100, help="obs rows a second at each hospital"
    )
    parser.add_argument("--kinds", default="", help="only these, with commas")
    return parser.parse_args()


class Soak:
    """One run of the soak."""

    def __init__(
        self, stage: Stage, seed: int, rate: float, ledger: Ledger, kinds: list[str]
    ) -> None:
        self._stage, self._seed, self._rate, self._ledger, self._kinds = (
            stage,
            seed,
            rate,
            ledger,
            kinds,
        )
        self._rng = random.Random(seed)
        self._watch = Watch(stage)

    def run(self, seconds: float) -> dict[str, Any]:
        scene = set_up(self._stage, self._seed)
        for hospital in self._stage.hospitals.values():
            ownership.write_down(hospital)
        print("the roles are up", flush=True)
        fresh(self._stage, time.time(), PATIENCE_S)
        shifts = [
            Shift(one, self._seed + n, self._rate, SELDOM, SELDOM_SHARE).start()
            for n, one in enumerate(self._stage.hospitals.values())
        ]
        doctors = Doctors(self._stage.db, EDITS_PER_S)
        doctors.start()
        self._watch.start()
        began = time.monotonic()
        self._faults(scene, began, seconds)
        worked = time.monotonic() - began
        doctors.end()
        for shift in shifts:
            shift.end()
        print(
            f"{sum(one.rows for one in shifts)} obs changes,"
            f" {sum(one.rows for one in shifts) / worked:.0f} a second"
        )
        seldom = {name: sum(one.seldom[name] for one in shifts) for name in SELDOM}
        print(f"{doctors.notes.edits} edits in the Passport; at the hospitals {seldom}")
        return self._judge(scene, doctors, sum(one.rows for one in shifts) / worked / len(shifts))

    def _faults(self, scene: Scene, began: float, seconds: float) -> None:
        """Yield every kind once in random order, then again."""
        waiting: list[str] = []
        while time.monotonic() - began < seconds:
            if not waiting:
                waiting = self._rng.sample(self._kinds, len(self._kinds))
            started = time.monotonic()
            self._fault(scene, waiting.pop(), began)
            pause = self._rng.uniform(20, 40) - (time.monotonic() - started)
            time.sleep(max(2.0, min(pause, seconds - (time.monotonic() - began))))

    def _fault(self, scene: Scene, kind: str, began: float) -> None:
        started = time.monotonic()
        entry = Entry(
            len(self._ledger.entries) + 1,
            kind,
            round(started - began, 1),
            before=positions(self._stage),
        )
        try:
            entry.proof = KINDS[kind](scene, self._rng)
            entry.proven = True
        except AssertionError as error:
            entry.proof = str(error)[:300]
        entry.took_s = round(time.monotonic() - started, 1)
        self._revive(scene)
        try:
            entry.recovery_s = round(fresh(self._stage, time.time(), PATIENCE_S), 1)
        except AssertionError as error:
            entry.recovery_s = PATIENCE_S
            entry.proof += f"; {error}"
        with contextlib.suppress(Exception):
            entry.after = positions(self._stage)
        self._ledger.add(entry)

    def _revive(self, scene: Scene) -> None:
        """Report the roles that have ended by themselves, and start them again."""
        for role in scene.roles:
            if not role.running:
                self._watch.wrong.append(f"{role} ended: {role.said()[-300:]}")
                print(f"ENDED {role}: {role.said()[-600:]}", flush=True)
                role.process = None
                role.start()

    def _judge(self, scene: Scene, doctors: Doctors, rate: float) -> dict[str, Any]:
        stage, entries = self._stage, self._ledger.entries
        fresh(stage, time.time(), PATIENCE_S)
        wrong: list[str] = []
        try:
            stage.wait_equal(QUIET_S)
        except AssertionError as error:
            wrong += str(error).splitlines()
        wrong += self._watch.end()
        print(f"the watch looked at {self._watch.looked} patients, {self._watch.missed} misses")
        lost_edits = doctors.notes.lost()
        wrong += lost_edits
        read = told(stage)
        missing = {
            key: lost(one, read[key], gap=key in scene.gaps) for key, one in stage.hospitals.items()
        }
        verified = stage.run("verify", "--json", timeout=600)
        print(f"verify: exit {verified.returncode} {verified.stderr[-300:]}")
        letters = json.loads(stage.run("dead-letters", "list", "--json").stdout or "[]")
        wrong += [f"{scene.poison} poison records, {len(letters)} letters"] * (
            len(letters) != scene.poison
        )
        wrong += [
            f"{key}: {one.disorder} first deliveries out of order"
            for key, one in read.items()
            if one.disorder
        ]
        for line in wrong[:20]:
            print(f"WRONG {line}")
        equal = verified.returncode == 0 and json.loads(verified.stdout)["equal"]
        return {
            "seed": self._seed,
            "faults": sum(one.proven for one in entries),
            "kinds": len({one.kind for one in entries if one.proven}),
            "unproven": sum(not one.proven for one in entries),
            "lost": sum(missing.values()),
            "wrong": len(wrong),
            "edits": doctors.notes.edits,
            "lost_edits": len(lost_edits),
            "looked": self._watch.looked,
            "duplicates": sum(one.duplicates for one in read.values()),
            "max_recovery_s": max((one.recovery_s for one in entries), default=0),
            "obs_per_s": round(rate, 1),
            "equal": equal,
        }


if __name__ == "__main__":
    sys.exit(main())

"""The demo's course: snapshot, a clinic at work, one patient before and after, verify."""

import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from cli.status_report import collect
from dev.demo import pages
from dev.demo.latency import Latency
from dev.demo.pages import Account
from dev.demo.site import FOLDER, Processes, Site, again, portal, roles, site
from dev.hospital import Clinic, passport_patients, registrable
from passport.configuration import load
from passport.errors import Fatal
from passport.sink import connect

PATIENTS, SECONDS, RATE = 300, 20, 20
# What the clinic does besides new obs, and when (seconds from its start).
MILESTONES = {
    2: "edit",
    4: "void",
    6: "unvoid",
    8: "edit_group",
    10: "merge_patients",
    12: "purge",
    14: "rename_concept",
}
NEW = ("new_vitals", "new_lab_panel", "new_diagnoses", "new_prescription", "edit", "void")


def run(*, once: bool, data: Path | None = None, seed: int = 1) -> int:
    """Returns verify's exit code; without `once` the clinics go on until Ctrl-C."""
    console = Console()
    if data is not None and not (data / "load.py").exists():
        raise Fatal(
            f"{data} has no load.py", hint="make demo DATA=<folder with load.py and its data>"
        )
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with site(
        seed=seed,
        patients=PATIENTS,
        data=data,
        portal=pages.settings(),
        say=lambda text: console.print(f"[dim]{text}"),
    ) as here:
        return Demo(here, console, stop, seed).course(once=once)


class Demo:
    """One run of the demo on a ready site."""

    def __init__(self, site: Site, console: Console, stop: threading.Event, seed: int) -> None:
        self.site, self.console, self.stop, self.seed = site, console, stop, seed
        self.latency = Latency(site.passport)
        self.actions: dict[str, int] = {}
        self._rows: list[dict[str, Any]] = []
        self._looks = 0

    def course(self, *, once: bool) -> int:
        late, account = self._register()
        with portal(self.site) as others:
            self._invite(account)
            code = self._shown(late, others)
            if not once and not self.stop.is_set():
                self._go_on(account, others)
        return code

    def _shown(self, late: str, others: Processes) -> int:
        """Snapshot, work, verify: its exit code."""
        with self._followed(), closing(self.latency), roles(self.site) as processes, self._table():
            self._caught_up(processes | others)
            before = self._records()
            with self._clinics(RATE):
                self._work(late)
            self._caught_up(processes | others)
        if self.stop.is_set():
            return 1
        self._tell(before, self._records(), late)
        return self._verify()

    def _register(self) -> tuple[str, Account]:
        """Two thirds of the patients that can be matched; one more comes late: (their national id,
        who can sign in).
        """
        found: dict[str, Account] = {}
        for name in self.site.hospitals:
            with closing(self.site.connect(name)) as connection:
                people = [one for number, one in enumerate(registrable(connection)) if number % 3]
            found |= {digits: Account(digits, name, person) for person, digits in people}
        late, *rest = sorted(found)
        passport_patients(self.site.passport, rest)
        account = pages.with_most_to_see(self.site, [found[one] for one in rest])
        pages.let_in(self.site.passport, account)
        self.console.print(
            f"[dim]{len(rest)} patients are registered in the Passport, one more will be"
        )
        return late, account

    def _invite(self, account: Account) -> None:
        """Where the pages are, and how one gets in."""
        url = self.site.url
        who = f"national id {account.national_id}, password {pages.PASSWORD}"
        self.console.print(f"A patient's page: {url}/ ({who})", highlight=False)
        self.console.print(
            f"Operators' page: {url}/operators (password {pages.OPERATORS_PASSWORD})",
            highlight=False,
        )

    def _work(self, late: str) -> None:
        began, registered = time.monotonic(), False
        while (elapsed := time.monotonic() - began) < SECONDS and not self.stop.wait(0.1):
            if elapsed > SECONDS / 2 and not registered:
                passport_patients(self.site.passport, [late])
                registered = True

    @contextmanager
    def _clinics(self, rate: float) -> Iterator[None]:
        """Every generated hospital works at `rate` obs a second until the block ends."""
        ended = threading.Event()
        names = [name for name in self.site.hospitals if name != "real"]
        threads = [
            threading.Thread(target=self._clinic, args=(name, rate, ended)) for name in names
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            ended.set()
            for thread in threads:
                thread.join()

    def _clinic(self, name: str, rate: float, ended: threading.Event) -> None:
        with closing(self.site.connect(name)) as connection:
            clinic = Clinic(connection, seed=self.seed)
            began, written, milestones = time.monotonic(), 0, dict(MILESTONES)
            while not ended.is_set():
                elapsed = time.monotonic() - began
                if written > elapsed * rate:
                    ended.wait(0.01)
                    continue
                due = next((at for at in milestones if at <= elapsed), None)
                written += self._act(
                    clinic,
                    name,
                    milestones.pop(due) if due is not None else NEW[written % len(NEW)],
                )

    def _act(self, clinic: Clinic, name: str, action: str) -> int:
        try:
            done = clinic.do(action)
        except LookupError:  # nothing to do that on now
            return 1
        self.latency.committed(name, done.obs_ids)
        self.actions[action] = self.actions.get(action, 0) + 1
        return max(1, done.rows)

    def _caught_up(self, processes: Processes) -> None:
        """Waits until every hospital is read and applied; Fatal when a role has ended."""
        quiet, seen = 0, self._looks
        while quiet < 2 and not self.stop.wait(0.1):
            for name, process in processes.items():
                if process.poll() is not None:
                    log = FOLDER / f"{name.replace(' ', '-')}.log"
                    raise Fatal(
                        f"the demo's `{name}` ended with code {process.returncode}",
                        hint=f"tail {log}",
                    )
            if self._looks > seen:
                seen = self._looks
                quiet = quiet + 1 if all(map(_is_done, self._rows)) else 0

    @contextmanager
    def _followed(self) -> Iterator[None]:
        """`passport status` once a second, in a thread of its own."""
        ended = threading.Event()

        def look() -> None:
            with closing(connect("passport", load(self.site.config)[0])) as sink:
                while not ended.wait(1 if self._looks else 0):
                    self._rows = collect(
                        load(self.site.config)[0], sink
                    )  # a hospital may have been added
                    self._looks += 1

        thread = threading.Thread(target=look, name="status")
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    @contextmanager
    def _table(self) -> Iterator[None]:
        """The live table, drawn again twice a second."""
        ended = threading.Event()
        with Live(self._drawn(), console=self.console, refresh_per_second=4) as live:

            def draw() -> None:
                while not ended.wait(0.5):
                    live.update(self._drawn())

            thread = threading.Thread(target=draw)
            thread.start()
            try:
                yield
            finally:
                ended.set()
                thread.join()
                live.update(self._drawn())

    def _drawn(self) -> Table:
        table = Table(title="openmrs-passport")
        for heading in (
            "hospital",
            "state",
            "captured",
            "stored",
            "matched",
            "unmatched",
            "lag",
            "p50",
            "p99",
        ):
            table.add_column(
                heading, justify="left" if heading in ("hospital", "state") else "right"
            )
        for row in self._rows:
            table.add_row(
                row["hospital"],
                row["state"],
                f"{row['captured']:,}",
                f"{row['stored']:,}",
                f"{row['matched']:,}",
                f"{row['unmatched']:,}",
                f"{row['lag_records']:,}",
                *self._percentiles(row["hospital"]),
            )
        return table

    def _percentiles(self, hospital: str) -> tuple[str, str]:
        seen = self.latency.percentiles(hospital)
        return (f"{seen[0] * 1000:.0f} ms", f"{seen[1] * 1000:.0f} ms") if seen else ("-", "-")

    def _records(self) -> dict[str, dict[str, dict[str, Any]]]:
        """patientId -> record _id -> record, as the Passport reads them."""
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for record in self.site.passport["medicalrecords"].find({"patientId": {"$ne": ""}}):
            found.setdefault(record["patientId"], {})[str(record["_id"])] = record
        return found

    def _tell(self, before: dict[str, Any], after: dict[str, Any], late: str) -> None:
        done = ", ".join(f"{count} {name}" for name, count in sorted(self.actions.items()))
        self.console.print(f"[dim]the clinics did: {done}")
        changes = {
            one: _changes(before.get(one, {}), after.get(one, {})) for one in {*before, *after}
        }
        late_id = str((self.site.passport["patients"].find_one({"nationalId": late}) or {})["_id"])
        changes.pop(late_id, None)
        if changes:
            _, patient = max((_tellable(rows), one) for one, rows in changes.items())
            self.console.print(_told("One patient before and after", changes[patient]))
        count = len(after.get(late_id, {}))
        self.console.print(f"A patient who registered late: 0 records before, {count} after.")

    def _verify(self) -> int:
        """`passport verify`, as an operator runs it: 0 only if people, rows and records were
        compared, and equal.
        """
        self.console.print("[dim]passport verify")
        return subprocess.run(self.site.command("verify"), check=False).returncode

    def _go_on(self, account: Account, others: Processes) -> None:
        self.console.print(
            f"The clinics go on, slowly. Ctrl-C ends everything. Settings: {self.site.config}"
        )
        self._invite(account)
        self.console.print(
            "That patient's pulse is taken every 15 s: it appears on the page by itself."
        )
        self.latency = Latency(self.site.passport)
        with self._followed(), closing(self.latency), roles(self.site) as processes, self._table():
            self._caught_up(processes)
            with self._clinics(2):
                seconds, settings = 0, self.site.config.read_bytes()
                while not self.stop.wait(1):
                    seconds += 1
                    if seconds % 15 == 0:
                        pages.measure_pulse(self.site, account, 60 + seconds % 40)
                    if (now := self.site.config.read_bytes()) != settings:
                        settings = now
                        again(
                            self.site, processes, "consume", "consume", "--destination", "passport"
                        )
                        again(self.site, others, "portal", "portal")


def _is_done(row: dict[str, Any]) -> bool:
    return row["snapshot"] == "done" and row["lag_records"] == 0 and row["behind"] is False


def _changes(before: dict[str, Any], after: dict[str, Any]) -> list[tuple[str, str, str]]:
    rows = []
    for key in sorted({*before, *after}):
        old, new = _line(before.get(key)), _line(after.get(key))
        if old != new:
            rows.append((key, old, new))
    return rows


def _tellable(rows: list[tuple[str, str, str]]) -> tuple[int, int]:
    """Somebody whose records were corrected, not only added or taken away."""
    return sum("-" not in (old, new) for _, old, new in rows), -len(rows)


def _line(record: dict[str, Any] | None) -> str:
    if record is None:
        return "-"
    data = record["data"]
    return f"{record['type']}: {data.get('name', '')} = {data.get('result') or data.get('details', '')}"


def _told(title: str, rows: list[tuple[str, str, str]]) -> Table:
    table = Table(title=title)
    for heading in ("record", "before", "after"):
        table.add_column(heading)
    for key, old, new in rows[:12]:
        table.add_row(f"…{key[-6:]}", old, new)
    return table

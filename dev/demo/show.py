"""The demo's course: snapshot, a clinic at work, one patient before and after, verify."""

import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from rich.console import Console

from dev.demo import before_after, pages
from dev.demo.background import background
from dev.demo.before_after import Records
from dev.demo.latency import Latency
from dev.demo.pages import Account
from dev.demo.roles import Role, consumer, portal, reader, running
from dev.demo.site import LIVE, REAL, Site, site
from dev.demo.status import Status, live_table
from dev.hospital import Clinic, passport_patients, registrable
from dev.hospital.recorded import is_recorded, playback
from passport.errors import Fatal

PATIENTS = 300  # of each generated hospital
SECONDS = 20  # that the clinics work
RATE = 20  # obs a second of each clinic
SLOW_RATE = 2  # the same after verify, until Ctrl-C
PULSE_S = 15  # between two results on the page that is open
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
    """Run the demo and return verify's exit code.

    Unless `once`, the clinics go on after verify until Ctrl-C. `data` is a folder with a load.py
    that fills a third hospital. Raises Fatal when it has none, or when a role ends by itself.
    """
    console = Console()
    if data is not None and not (data / "load.py").exists() and not is_recorded(data):
        raise Fatal(
            f"{data} has neither load.py nor base.sql.gz and recorded.binlog.gz",
            hint="make demo DATA=<folder with load.py and its data, or with a recorded OpenMRS>",
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
    ) as ready_site:
        return Demo(ready_site, console, stop, seed, data).course(once=once)


class Demo:
    """One run of the demo on a ready site. It ends early once `stop` is set."""

    def __init__(
        self, site: Site, console: Console, stop: threading.Event, seed: int, data: Path | None
    ) -> None:
        self.site = site
        self.data = data
        self.console = console
        self.stop = stop
        self.seed = seed
        self.done: dict[str, int] = {}  # how often the clinics did each action
        self._is_recording_played = False
        self._status = Status(site.config)
        self._portal = portal(site)
        self._consumer = consumer(site)
        readers = [reader(site, hospital) for hospital in site.hospitals]
        self._roles = [*readers, self._consumer]

    def course(self, *, once: bool) -> int:
        """Do everything in its order; return the exit code of verify."""
        late_id, account = self._register()
        with running(self._portal):
            self._invite(account)
            code = self._snapshot_work_verify(late_id)
            if not once and not self.stop.is_set():
                self._go_on(account)
        return code

    def _register(self) -> tuple[str, Account]:
        """Register two thirds of the people who can be matched.

        Return the national id of one more, who comes late, and the account of the patient who can
        sign in.
        """
        accounts: dict[str, Account] = {}
        for hospital in self.site.hospitals:
            with closing(self.site.connect(hospital)) as connection:
                people = registrable(connection)
            for number, (person, national_id) in enumerate(people):
                if number % 3:
                    accounts[national_id] = Account(national_id, hospital, person)
        late_id, *registered = sorted(accounts)
        passport_patients(self.site.passport, registered)
        account = pages.with_most_to_see(self.site, [accounts[digits] for digits in registered])
        pages.let_in(self.site.passport, account)
        self.console.print(
            f"[dim]{len(registered)} patients are registered in the Passport, one more will be"
        )
        return late_id, account

    def _invite(self, account: Account) -> None:
        """Say where the pages are, and how one gets in."""
        url = self.site.url
        patient = f"national id {account.national_id}, password {pages.PASSWORD}"
        operator = f"password {pages.OPERATORS_PASSWORD}"
        self.console.print(f"A patient's page: {url}/ ({patient})", highlight=False)
        self.console.print(f"Operators' page: {url}/operators ({operator})", highlight=False)

    def _snapshot_work_verify(self, late_id: str) -> int:
        """Show the first snapshot, some work and what it changed; return verify's exit code."""
        with self._live() as latency:
            self._wait_until_caught_up([*self._roles, self._portal])
            before = self._records()
            with self._clinics(RATE, latency):
                self._register_late(late_id)
            self._wait_until_caught_up([*self._roles, self._portal])
        if self.stop.is_set():
            return 1
        self._show_what_changed(before, self._records(), late_id)
        # As an operator runs it: 0 only if people, rows and records were compared, and are equal.
        self.console.print("[dim]passport verify")
        return subprocess.run(self.site.command("verify"), check=False).returncode

    @contextmanager
    def _live(self) -> Iterator[Latency]:
        """Run the readers and the consumer under the live table, with latencies from now on."""
        latency = Latency(self.site.passport)
        with (
            self._status.followed(),
            closing(latency),
            running(*self._roles),
            live_table(self.console, self._status, latency),
        ):
            yield latency

    @contextmanager
    def _clinics(self, rate: float, latency: Latency) -> Iterator[None]:
        """Let every generated hospital work at `rate` obs a second until the block ends.

        A recorded one goes on with its recording.
        """
        with ExitStack() as stack:
            if self.data is not None and is_recorded(self.data) and not self._is_recording_played:
                self._is_recording_played = True
                stack.enter_context(background(self._play, self.data))
            for hospital in self.site.hospitals:
                if hospital != REAL:
                    stack.enter_context(background(self._work_in, hospital, rate, latency))
            yield

    def _play(self, data: Path, ended: threading.Event) -> None:
        """Play the rest of the recording, in as long as the clinics work."""
        with playback(data, self.site.hospitals[REAL]) as recording:
            recording.skip(recording.left - LIVE)
            while recording.left and not ended.wait(SECONDS / LIVE):
                recording.play(1)
            recording.play(recording.left)

    def _work_in(
        self, hospital: str, rate: float, latency: Latency, ended: threading.Event
    ) -> None:
        milestones = dict(MILESTONES)
        with closing(self.site.connect(hospital)) as connection:
            clinic = Clinic(connection, seed=self.seed)
            began = time.monotonic()
            rows = 0
            while not ended.is_set():
                elapsed = time.monotonic() - began
                if rows > elapsed * rate:
                    ended.wait(0.01)
                    continue
                action = NEW[rows % len(NEW)]
                due = [second for second in milestones if second <= elapsed]
                if due:
                    action = milestones.pop(due[0])
                try:
                    transaction = clinic.do(action)
                except LookupError:  # The hospital holds nothing on which it could be done now.
                    rows += 1
                    continue
                latency.committed(hospital, transaction.obs_ids)
                self.done[action] = self.done.get(action, 0) + 1
                # What changes no obs counts too, or the clinic would do only that.
                rows += max(1, transaction.rows)

    def _register_late(self, late_id: str) -> None:
        """Let the clinics work for SECONDS, and register one more patient at half time."""
        self.stop.wait(SECONDS / 2)
        if not self.stop.is_set():
            passport_patients(self.site.passport, [late_id])
            self.stop.wait(SECONDS / 2)

    def _wait_until_caught_up(self, roles: Sequence[Role]) -> None:
        """Wait until every hospital is read and applied. Raises Fatal when a role has ended.

        It takes two looks in a row, because the parts of one look are not of the same moment.
        """
        quiet_looks = 0
        seen = self._status.looks
        while quiet_looks < 2 and not self.stop.wait(0.1):
            for role in roles:
                if role.exit_code is not None:
                    raise Fatal(
                        f"the demo's `{role.name}` ended with code {role.exit_code}",
                        hint=f"tail {role.log}",
                    )
            if self._status.looks == seen:
                continue
            seen = self._status.looks
            if self._status.all_caught_up():
                quiet_looks += 1
            else:
                quiet_looks = 0

    def _records(self) -> dict[str, Records]:
        """Return the medical records by patientId, as the Passport reads them."""
        records: dict[str, Records] = {}
        for record in self.site.passport["medicalrecords"].find({"patientId": {"$ne": ""}}):
            records.setdefault(record["patientId"], {})[str(record["_id"])] = record
        return records

    def _show_what_changed(
        self, before: dict[str, Records], after: dict[str, Records], late_id: str
    ) -> None:
        done = ", ".join(f"{count} {action}" for action, count in sorted(self.done.items()))
        self.console.print(f"[dim]the clinics did: {done}")
        patient = self.site.passport["patients"].find_one({"nationalId": late_id}) or {}
        late = str(patient["_id"])
        changes = {}
        for patient_id in {*before, *after}:
            # All that the late one has is new: it would say nothing of the clinics' work.
            if patient_id != late:
                changes[patient_id] = before_after.changes(
                    before.get(patient_id, {}), after.get(patient_id, {})
                )
        if changes:
            telling = before_after.most_telling(changes)
            self.console.print(before_after.table(changes[telling]))
        count = len(after.get(late, {}))
        self.console.print(f"A patient who registered late: 0 records before, {count} after.")

    def _go_on(self, account: Account) -> None:
        """Let the clinics work slowly until Ctrl-C, with news on the open page."""
        self.console.print(
            f"The clinics go on, slowly. Ctrl-C ends everything. Settings: {self.site.config}"
        )
        self._invite(account)
        self.console.print(
            f"That patient's pulse is taken every {PULSE_S} s: it appears on the page by itself."
        )
        with self._live() as latency:
            self._wait_until_caught_up(self._roles)
            with self._clinics(SLOW_RATE, latency):
                seconds = 0
                settings = self.site.config.read_bytes()
                while not self.stop.wait(1):
                    seconds += 1
                    if seconds % PULSE_S == 0:
                        pages.measure_pulse(self.site, account, 60 + seconds % 40)
                    if self.site.config.read_bytes() != settings:
                        # Somebody added a hospital to the settings (see dev/hospital).
                        settings = self.site.config.read_bytes()
                        self._consumer.restart()
                        self._portal.restart()

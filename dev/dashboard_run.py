"""The run that docs/how-to/dashboard.svg shows: ``python -m dev.dashboard_run``.

It makes the run and draws it, in ten minutes. Two hospitals are at work, with real roles and a
real Prometheus. The consumer is away for a while, a reader is killed, and one hospital imports old
results all at once.
"""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from dev import dashboard_picture
from dev.demo import pages
from dev.demo.background import background
from dev.demo.roles import Role, consumer, reader, running
from dev.demo.site import Site, site
from dev.hospital import Clinic, passport_patients, registrable
from dev.stack import install
from dev.stack.ports import kept

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".stack" / "dashboard"
PATIENTS = 300  # of each hospital
RATE = 4  # transactions a second of each clinic
SCRAPE_S = 5
END_S = 560
IMPORTED = 40_000  # rows
IMPORT_BATCH = 1_000  # rows of one transaction
COLUMNS = (
    "person_id, concept_id, encounter_id, obs_datetime, location_id, value_coded, value_numeric,"
    " creator, date_created"
)
STEPS = {  # seconds from the start: what happens, and what the picture says of it
    100: ("consumer away", "the consumer is stopped"),
    170: ("consumer back", "the consumer is started again"),
    235: ("reader killed", "Huye's reader is killed"),
    400: ("reader back", "Huye's reader is started again"),
    460: ("import", f"Kigali imports {IMPORTED:,} old results"),
}


class Run:
    """Roles by name on a ready site; each has a port of its own for /metrics."""

    def __init__(self, site: Site) -> None:
        self.site = site
        names = ("cdc kigali", "cdc huye", "consume")
        self.ports = {name: kept(FOLDER / name.replace(" ", "-")) for name in names}
        kigali, huye, consume = self.ports.values()
        self.consumer = consumer(site, folder=FOLDER, metrics_port=consume)
        self.huye = reader(site, "huye", folder=FOLDER, metrics_port=huye)
        self.kigali = reader(site, "kigali", folder=FOLDER, metrics_port=kigali)

    @property
    def roles(self) -> tuple[Role, ...]:
        return self.kigali, self.huye, self.consumer

    def follow(self, began: float) -> list[tuple[float, str]]:
        """Do all steps, each at its time after `began` (Unix time), and return at END_S.

        Return for each step its Unix time and what the picture says of it.
        """
        events = []
        for at, (step, words) in STEPS.items():
            time.sleep(max(0.0, began + at - time.time()))
            events.append((time.time(), words))
            self._do(step)
        time.sleep(max(0.0, began + END_S - time.time()))
        return events

    def _do(self, step: str) -> None:
        match step:
            case "consumer away":
                self.consumer.end()
            case "consumer back":
                self.consumer.start()
            case "reader killed":
                self.huye.end(signal.SIGKILL)
            case "reader back":
                self.huye.start()
            case "import":
                # In a thread: the steps keep their times.
                threading.Thread(target=import_old_results, args=(self.site,)).start()


def main() -> int:
    """Make the run and draw its picture; return the exit code."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    file = FOLDER / "run.json"
    with ExitStack() as stack:
        ready_site = stack.enter_context(
            site(seed=7, patients=PATIENTS, data=None, portal=pages.settings(), say=print)
        )
        for hospital in ready_site.hospitals:
            with closing(ready_site.connect(hospital)) as connection:
                people = registrable(connection)
            passport_patients(ready_site.passport, [national_id for _, national_id in people])
        run = Run(ready_site)
        url = stack.enter_context(prometheus(run))
        stack.enter_context(running(*run.roles))
        for hospital in ready_site.hospitals:
            stack.enter_context(background(work_in, ready_site, hospital))
        began = time.time()
        events = run.follow(began)
        facts: dict[str, Any] = {
            "start": began,
            "end": time.time(),
            "step": SCRAPE_S,
            "events": events,
            "hospitals": list(ready_site.hospitals),
        }
        file.write_text(json.dumps(facts), encoding="utf-8")
        return dashboard_picture.main(url, file)


@contextmanager
def prometheus(run: Run) -> Iterator[str]:
    """Run a Prometheus that looks at every role, with the project's own alerts; yield its URL."""
    install.promtool()  # Prometheus comes with the same package.
    port = kept(FOLDER / "prometheus-port")
    jobs = []
    for name, metrics_port in run.ports.items():
        job = f"passport-{name.replace(' ', '-')}"
        targets = [{"targets": [f"127.0.0.1:{metrics_port}"]}]
        jobs.append({"job_name": job, "static_configs": targets})
    settings = {
        "global": {"scrape_interval": f"{SCRAPE_S}s", "evaluation_interval": f"{SCRAPE_S}s"},
        "rule_files": [str(ROOT / "deploy/prometheus/alerts.yaml")],
        "scrape_configs": jobs,
    }
    file = FOLDER / "prometheus.yml"
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")
    command = [
        "prometheus",
        f"--config.file={file}",
        f"--storage.tsdb.path={FOLDER / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (FOLDER / "prometheus.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_ready(url)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def wait_ready(url: str) -> None:
    """Return when Prometheus answers. Raises TimeoutError after half a minute."""
    for _ in range(300):
        try:
            if httpx.get(f"{url}/-/ready").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise TimeoutError(f"Prometheus does not answer: {FOLDER / 'prometheus.log'}")


def work_in(site: Site, hospital: str, ended: threading.Event) -> None:
    """Let the hospital's clinic work until `ended`."""
    with closing(site.connect(hospital)) as connection:
        Clinic(connection, seed=len(hospital), rate=RATE).run(3600, stop=ended)


def import_old_results(site: Site) -> None:
    """Write old results in Kigali: copies of what is there, a thousand a transaction."""
    condition = "voided = 0 AND obs_group_id IS NULL AND order_id IS NULL"
    copies = f"SELECT {COLUMNS}, UUID() FROM obs WHERE {condition} ORDER BY obs_id"
    with closing(site.connect("kigali")) as connection, connection.cursor() as cursor:
        for _ in range(IMPORTED // IMPORT_BATCH):
            cursor.execute(f"INSERT INTO obs ({COLUMNS}, uuid) {copies} LIMIT {IMPORT_BATCH}")
            connection.commit()


if __name__ == "__main__":
    sys.exit(main())

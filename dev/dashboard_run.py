"""The run that docs/how-to/dashboard.svg shows: ``python -m dev.dashboard_run`` makes it, and draws
it, in ten minutes.

Two hospitals at work, real roles, a real Prometheus. The consumer is away for a while, a reader is
killed, and one hospital imports old results all at once.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from dev import dashboard_picture
from dev.demo import pages
from dev.demo.site import Site, site
from dev.hospital import Clinic, passport_patients, registrable
from dev.stack import install
from dev.stack.ports import kept

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".stack" / "dashboard"
PATIENTS, RATE, SCRAPE_S, END_S = 300, 4, 5, 560
IMPORTED = 40_000  # rows
COLUMNS = "person_id, concept_id, encounter_id, obs_datetime, location_id, value_coded, value_numeric, creator"
COLUMNS += ", date_created"
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
        self.site, self.began = site, time.time()
        self.ports = {
            name: kept(FOLDER / name.replace(" ", "-"))
            for name in ("cdc kigali", "cdc huye", "consume")
        }
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        role, _, hospital = name.partition(" ")
        words = (
            ("cdc", "run", "--hospital", hospital)
            if role == "cdc"
            else ("consume", "--destination", "passport")
        )
        environment = {**os.environ, "PASSPORT_HEALTH__PORT": str(self.ports[name])}
        self.processes[name] = started(
            self.site.command(*words), FOLDER / f"{role}.log", environment
        )

    def end(self, name: str, number: int = signal.SIGTERM) -> None:
        process = self.processes.pop(name)
        process.send_signal(number)
        process.wait(20)

    def end_all(self) -> None:
        for name in [*self.processes]:
            self.end(name)

    def do(self, step: str) -> None:
        match step:
            case "consumer away":
                self.end("consume")
            case "reader killed":
                self.end("cdc huye", signal.SIGKILL)
            case "import":
                threading.Thread(target=imported, args=(self.site,)).start()
            case _:
                self.start("consume" if step == "consumer back" else "cdc huye")

    def follow(self) -> list[tuple[float, str]]:
        """All steps, each at its time: (Unix time, what the picture says of it)."""
        told = []
        for at, (step, words) in STEPS.items():
            time.sleep(max(0.0, self.began + at - time.time()))
            told.append((time.time(), words))
            self.do(step)
        time.sleep(max(0.0, self.began + END_S - time.time()))
        return told


def main() -> int:
    FOLDER.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        here = stack.enter_context(
            site(seed=7, patients=PATIENTS, data=None, portal=pages.settings(), say=print)
        )
        register(here)
        run = Run(here)
        url = stack.enter_context(prometheus(run))
        stack.callback(run.end_all)
        for name in run.ports:
            run.start(name)
        stack.enter_context(working(here))
        run.began = time.time()
        told = run.follow()
        known: dict[str, Any] = {"start": run.began, "end": time.time(), "step": SCRAPE_S}
        known |= {"events": told, "hospitals": [*here.hospitals]}
        (FOLDER / "run.json").write_text(json.dumps(known), encoding="utf-8")
        return dashboard_picture.main(url, FOLDER / "run.json")


def started(
    command: Sequence[str], log: Path, environment: dict[str, str]
) -> "subprocess.Popen[bytes]":
    with log.open("ab") as said:
        return subprocess.Popen(
            command, stdout=said, stderr=said, env=environment, start_new_session=True
        )


def register(site: Site) -> None:
    for name in site.hospitals:
        with closing(site.connect(name)) as connection:
            passport_patients(site.passport, [digits for _, digits in registrable(connection)])


@contextmanager
def prometheus(run: Run) -> Iterator[str]:
    """Its URL; it looks at every role, with the project's own alerts."""
    install.promtool()
    port = kept(FOLDER / "prometheus-port")
    jobs = [
        {
            "job_name": f"passport-{name.replace(' ', '-')}",
            "static_configs": [{"targets": [f"127.0.0.1:{role}"]}],
        }
        for name, role in run.ports.items()
    ]
    interval = {"scrape_interval": f"{SCRAPE_S}s", "evaluation_interval": f"{SCRAPE_S}s"}
    rules = [str(ROOT / "deploy/prometheus/alerts.yaml")]
    file, url = FOLDER / "prometheus.yml", f"http://127.0.0.1:{port}"
    file.write_text(
        yaml.safe_dump({"global": interval, "rule_files": rules, "scrape_configs": jobs}), "utf-8"
    )
    command = ["prometheus", f"--config.file={file}", f"--storage.tsdb.path={FOLDER / 'tsdb'}"]
    process = started(
        [*command, f"--web.listen-address=127.0.0.1:{port}"],
        FOLDER / "prometheus.log",
        {**os.environ},
    )
    try:
        wait_ready(url)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def wait_ready(url: str) -> None:
    for _ in range(300):
        try:
            if httpx.get(f"{url}/-/ready").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise TimeoutError(f"Prometheus does not answer: {FOLDER / 'prometheus.log'}")


@contextmanager
def working(site: Site) -> Iterator[None]:
    """Every hospital's clinic, until the block ends."""
    stop = threading.Event()
    threads = [threading.Thread(target=clinic, args=(site, name, stop)) for name in site.hospitals]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def clinic(site: Site, name: str, stop: threading.Event) -> None:
    with closing(site.connect(name)) as connection:
        Clinic(connection, seed=len(name), rate=RATE).run(3600, stop=stop)


def imported(site: Site) -> None:
    """Old results, copied from what is there, a thousand a transaction."""
    chosen = "voided = 0 AND obs_group_id IS NULL AND order_id IS NULL"
    copies = f"SELECT {COLUMNS}, UUID() FROM obs WHERE {chosen} ORDER BY obs_id LIMIT 1000"
    with closing(site.connect("kigali")) as connection, connection.cursor() as cursor:
        for _ in range(IMPORTED // 1000):
            cursor.execute(f"INSERT INTO obs ({COLUMNS}, uuid) {copies}")
            connection.commit()


if __name__ == "__main__":
    sys.exit(main())

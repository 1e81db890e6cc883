"""docs/tutorial, typed as it stands, with a look at what each command did: a newcomer's walk."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from dev.demo.pages import PASSWORD
from dev.stack import install
from tests.e2e.roles import REPOSITORY, environment
from tests.eventually import eventually

PAGE = REPOSITORY / "docs/tutorial/a-third-hospital.md"
HOSPITAL = "Musanze District Hospital"
ALERT = "PassportRoleGone"
READER = "127.0.0.1:9401"


def commands(page: str) -> dict[str, list[str]]:
    """The indented lines, by heading."""
    found: dict[str, list[str]] = {}
    for part in page.split("\n## ")[1:]:
        heading, _, text = part.partition("\n")
        found[heading] = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    return found


class Terminal:
    """A shell in the checkout. `type` returns what a command prints, whose exit code must be 0."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._shell = subprocess.Popen(
            ["bash"],
            cwd=REPOSITORY,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=log.open("wb"),
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._typed = 0

    def type(self, line: str, timeout_s: float = 90) -> str:
        self._typed += 1
        end = re.compile(rf"^end {self._typed}: (\d+)$", re.MULTILINE)
        before = len(self._said())
        assert self._shell.stdin
        self._shell.stdin.write(f"{line}\ncode=$?; echo; echo end {self._typed}: $code\n")
        self._shell.stdin.flush()
        eventually(
            lambda: end.search(self._said()[before:]), f"{line}\n{self._said()[before:]}", timeout_s
        )
        said = self._said()[before:]
        found = end.search(said)
        assert found
        assert found[1] == "0", f"{line}: {said}"
        return said[: found.start()]

    def _said(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def close(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._shell.pid, signal.SIGKILL)
        self._shell.wait()


@contextmanager
def demo(command: str, log: Path) -> Iterator[Path]:
    """The first terminal, until Ctrl-C."""
    with log.open("wb") as said:
        process = subprocess.Popen(
            command.split(),
            cwd=REPOSITORY,
            env=environment(),
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    try:
        eventually(
            lambda: "The clinics go on" in log.read_text() or process.poll() is not None,
            "the demo goes on",
            400,
        )
        assert process.poll() is None, log.read_text()[-3000:]
        yield log
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.wait(60)


def pages_of(demo_said: Path) -> str:
    found = re.search(r"A patient's page: (\S+)", demo_said.read_text())
    assert found
    return found[1]


def shown(url: str, national_id: str) -> str:
    """The patient's page, or "" while the portal starts again."""
    try:
        with httpx.Client(base_url=url, follow_redirects=True) as browser:
            browser.post("/sign-in", data={"identifier": national_id, "password": PASSWORD})
            answer = browser.get("/")
    except httpx.TransportError:
        return ""
    return answer.text if answer.is_success else ""


def firing(answer: str) -> list[str]:
    """What the alert is said of."""
    said = answer[answer.index("{") :]  # and behind it the shell may tell of a killed job
    alerts = json.JSONDecoder().raw_decode(said)[0]["data"]["alerts"]
    return [
        one["labels"]["instance"]
        for one in alerts
        if one["labels"]["alertname"] == ALERT and one["state"] == "firing"
    ]


@pytest.mark.long
def test_a_newcomer_adds_a_hospital_loses_its_reader_and_sees_it_come_back(tmp_path: Path) -> None:
    install.promtool()  # and Prometheus, which the page asks for
    walk = commands(PAGE.read_text(encoding="utf-8"))
    first, *prepared = walk["The demo"]
    with demo(first, tmp_path / "demo.log") as said:
        url = pages_of(said)
        terminal = Terminal(tmp_path / "terminal.log")
        try:
            _walk(terminal, walk, prepared, url)
        finally:
            terminal.close()
            subprocess.run(["make", "stack-down"], cwd=REPOSITORY, check=True)


def _walk(terminal: Terminal, walk: dict[str, list[str]], prepared: list[str], url: str) -> None:
    for line in prepared:
        terminal.type(line)
    added = terminal.type(*walk["A hospital that is not in it yet"])
    found = re.search(r"national id (\d+)", added)
    assert found, added
    patient = found[1]
    eventually(lambda: "/sign-out" in shown(url, patient), "the patient can sign in")
    assert HOSPITAL not in shown(url, patient)

    *dba, check = walk["The part of the hospital's administrator"]
    for line in dba:
        terminal.type(line)
    assert "failed" not in terminal.type(check)

    reader, reconcile, status = walk["Read it"]
    terminal.type(reader)
    terminal.type(reconcile)
    eventually(lambda: HOSPITAL in shown(url, patient), "the patient's page shows the hospital")
    assert "musanze" in terminal.type(status)

    terminal.type(*walk["Watch it"])
    kill, alerts = walk["The reader dies"]
    eventually(lambda: "success" in terminal.type(f"{alerts} || true"), "Prometheus answers")
    assert READER not in firing(terminal.type(alerts))
    terminal.type(kill)
    eventually(lambda: READER in firing(terminal.type(alerts)), "the alert fires", 300)

    again, verify = walk["And comes back"]
    terminal.type(again)
    eventually(lambda: READER not in firing(terminal.type(alerts)), "the alert ends", 120)
    assert "NOT equal" not in (report := terminal.type(verify))
    assert "equal" in report
    for line in walk["Clean up"]:
        terminal.type(line)


def test_the_page_has_a_command_in_every_part() -> None:
    found = commands(PAGE.read_text(encoding="utf-8"))
    assert len(found) == 8
    assert all(found.values())

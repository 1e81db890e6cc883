"""A real OpenMRS database and 300 synthetic patients: where they are, and loading them with
ordinary INSERTs.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from dev.hospital.recorded import is_recorded
from tests.servers import Address

NATIONAL_ID_TYPE = "6f4ac1d2-7c35-4f0b-9c1e-2b8f0a1d1001"
BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"
RECORDED_BESIDE = Path(__file__).resolve().parents[2] / "shared" / "openmrs" / "real"


def folder() -> Path:
    """Return the folder that PASSPORT_REAL_DATA names, or the one beside the checkout.

    Without it the test fails in CI and is skipped elsewhere.
    """
    path = Path(os.environ.get("PASSPORT_REAL_DATA", BESIDE))
    if not (path / "load.py").exists():
        _missing(f"no real data in {path}: set PASSPORT_REAL_DATA to the folder of load.py")
    return path


def recorded() -> Path:
    """Return the folder that PASSPORT_RECORDED_DATA names, or the one beside the checkout.

    It has a recorded OpenMRS. Without it the test fails in CI and is skipped elsewhere.
    """
    path = Path(os.environ.get("PASSPORT_RECORDED_DATA", RECORDED_BESIDE))
    if not is_recorded(path):
        _missing(
            f"no recorded OpenMRS in {path}: set PASSPORT_RECORDED_DATA to base.sql.gz's folder"
        )
    return path


def _missing(reason: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def start_loading(server: Address, database: str, *options: str) -> "subprocess.Popen[str]":
    """load.py as a process: ``--small``, ``--big``, ``--only-static``, ``--only-obs``, ``--tx-rows
    N``.
    """
    where = [
        "--host",
        server.host,
        "--port",
        str(server.port),
        "--user",
        server.user,
        "--password",
        server.password,
    ]
    command = [sys.executable, str(folder() / "load.py"), *where, "--database", database, *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def load(server: Address, database: str, *options: str) -> None:
    """The same, to its end."""
    process = start_loading(server, database, *options)
    said, _ = process.communicate(timeout=240)
    assert process.returncode == 0, said

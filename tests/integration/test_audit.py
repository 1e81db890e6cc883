"""`make audit`: what is known against a locked dependency fails it; an advisory database out of
reach is said.
"""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from tests.e2e.roles import REPOSITORY, environment

ADVISORY = {
    "id": "PYSEC-2099-1",
    "summary": "of this test",
    "modified": "2026-01-01T00:00:00Z",
    "affected": [
        {
            "package": {"name": "pymysql", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}]}],
        }
    ],
}


@contextmanager
def osv(*bad: str) -> Iterator[str]:
    """Answers as osv.dev does: something is known against these packages."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))["queries"]
            known = {"vulns": [{name: ADVISORY[name] for name in ("id", "modified")}]}
            self.answer(
                {"results": [known if one["package"]["name"] in bad else {} for one in asked]}
            )

        def do_GET(self) -> None:
            self.answer(ADVISORY)

        def answer(self, value: Any) -> None:
            body = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def audit(url: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    environ = environment({"OSV_URL": url, **variables})
    words = ["make", "--no-print-directory", "audit"]
    return subprocess.run(
        words, cwd=REPOSITORY, env=environ, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize(("bad", "passes"), [((), True), (("pymysql",), False)])
def test_what_is_known_against_a_dependency_fails(bad: tuple[str, ...], passes: bool) -> None:
    with osv(*bad) as url:
        found = audit(url)
    assert (found.returncode == 0) is passes, found.stderr
    assert ("PYSEC-2099-1" in found.stdout) is not passes
    assert "NOT AUDITED" not in found.stderr


@pytest.mark.parametrize(("strict", "passes"), [("", True), ("1", False)])
def test_a_database_out_of_reach_is_said_and_no_failure_unless_strict(
    strict: str, passes: bool
) -> None:
    found = audit("http://127.0.0.1:1", STRICT=strict)
    assert "NOT AUDITED" in found.stderr
    assert (found.returncode == 0) is passes

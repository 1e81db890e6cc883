"""Talks to a FHIR server: one kept connection, JSON, errors reduced to their remedy. Answers may
quote patients.
"""

import base64
import json
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from urllib.parse import urlsplit

from destinations.fhir.resources import Resource
from passport.errors import Fatal, NotReady, Retry, without_text

MIME = "application/fhir+json"
_DENIED = (401, 403)
_NOT_THERE = (301, 302, 303, 307, 308, 404, 405, 410)
_AWAY = (408, 425, 429)


@dataclass(frozen=True)
class Answer:
    """`body`: of a JSON answer, else empty."""

    status: int
    body: Resource

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300


class Refused(Exception):  # noqa: N818  # named by what happened
    """The server won't take what was sent (4xx). `conflict`: because something else is there by
    now.
    """

    def __init__(self, status: int) -> None:
        super().__init__(f"HTTP {status}")
        self.conflict = status in (409, 412)


class Client:
    """`url`: the server's base, as ``https://fhir.example.org/fhir``. Not for several threads at
    once.
    """

    def __init__(
        self, url: str, authorization: str | None, ca: str | None, timeout_s: float
    ) -> None:
        self._base = urlsplit(url)
        self._timeout_s = timeout_s
        self._headers = {"Accept": MIME, "Content-Type": MIME, "Cache-Control": "no-cache"}
        if authorization:
            self._headers["Authorization"] = authorization
        self._tls = _tls(ca) if self._base.scheme == "https" else None
        self._connection = self._connected()

    def get(self, path: str) -> Answer:
        """`path` below the base. Retry when the server is away, Fatal when it doesn't let us in;
        else any answer.
        """
        return self._ask("GET", f"{self._base.path.rstrip('/')}/{path}", None)

    def bundle(self, kind: str, entries: Sequence[Resource]) -> list[Resource]:
        """What a ``batch`` or a ``transaction`` is answered, by entry. Retry, Fatal; Refused, and
        nothing was done.
        """
        body = {"resourceType": "Bundle", "type": kind, "entry": list(entries)}
        answer = self._ask(
            "POST", self._base.path or "/", json.dumps(body, ensure_ascii=False).encode()
        )
        if answer.status in _NOT_THERE:
            hint = "options.url is the server's base, which takes batches and transactions by POST"
            raise Fatal(
                f"the FHIR server takes no {kind} at options.url (HTTP {answer.status})", hint=hint
            )
        if not answer.ok:
            raise Refused(answer.status)
        answered: list[Resource] = answer.body.get("entry", [])
        return answered

    def pages(self, first: Resource) -> Iterator[Resource]:
        """The resources of a search whose first page this is, and of the pages after it. Retry,
        Fatal.
        """
        page: Resource | None = first
        while page is not None:
            yield from (entry["resource"] for entry in page.get("entry", ()) if "resource" in entry)
            following = next(
                (link["url"] for link in page.get("link", ()) if link["relation"] == "next"), None
            )
            page = self._following(following) if following else None

    def close(self) -> None:
        self._connection.close()

    def _following(self, url: str) -> Resource:
        """The server may know itself by another name than we do: its path and query are what
        counts.
        """
        parts = urlsplit(url)
        answer = self._ask("GET", f"{parts.path or '/'}?{parts.query}", None)
        if not answer.ok:
            raise Retry(f"the FHIR server has lost a page of its own search (HTTP {answer.status})")
        return answer.body

    def _ask(self, method: str, path: str, body: bytes | None) -> Answer:
        try:
            self._connection.request(method, path, body, self._headers)
            response = self._connection.getresponse()
            content = response.read()
        except (OSError, HTTPException, ssl.SSLError) as error:
            self._connection.close()
            self._connection = self._connected()
            if isinstance(error, ssl.SSLCertVerificationError):
                hint = "options.ca names the file of the authority that signed its certificate"
                raise Fatal("the FHIR server's certificate isn't trusted", hint=hint) from None
            hint = "is it running and reachable? `passport check` tries it"
            raise NotReady(
                f"the FHIR server doesn't answer ({without_text(error)})", hint=hint
            ) from None
        return self._judged(response, content)

    def _judged(self, response: HTTPResponse, content: bytes) -> Answer:
        status = response.status
        if status >= 500 or status in _AWAY:
            after = response.getheader("Retry-After") or ""
            raise Retry(
                f"the FHIR server can't now (HTTP {status})",
                after=float(after) if after.isdigit() else 2.0,
            )
        if status in _DENIED:
            hint = "set options.token, or options.user and options.password; it must read and write what it holds"
            raise Fatal(f"the FHIR server refused us (HTTP {status})", hint=hint)
        return Answer(status, _body(content))

    def _connected(self) -> HTTPConnection:
        host, port = self._base.hostname or "", self._base.port
        if self._tls is not None:
            return HTTPSConnection(host, port, timeout=self._timeout_s, context=self._tls)
        return HTTPConnection(host, port, timeout=self._timeout_s)


def require_r4(client: Client) -> None:
    """Fatal when no FHIR R4 server answers at the base; Retry when it is away."""
    answer = client.get("metadata?_summary=true")
    version = answer.body.get("fhirVersion", "")
    if not answer.ok and answer.status not in _NOT_THERE:
        raise Retry(f"the FHIR server can't say what it is (HTTP {answer.status})")
    if answer.body.get("resourceType") != "CapabilityStatement" or not str(version).startswith(
        "4."
    ):
        hint = "options.url is the server's base, under which it has /metadata"
        raise Fatal(
            f"no FHIR R4 server at options.url (HTTP {answer.status}, FHIR {version or 'unknown'})",
            hint=hint,
        )


def authorization(token: str | None, user: str | None, password: str | None) -> str | None:
    """The header's value; a token comes first."""
    if token:
        return f"Bearer {token}"
    if user is None:
        return None
    return "Basic " + base64.b64encode(f"{user}:{password or ''}".encode()).decode()


def _tls(ca: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise Fatal(
            f"options.ca can't be read ({without_text(error)})", hint="a file of PEM certificates"
        ) from None


def _body(content: bytes) -> Resource:
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}

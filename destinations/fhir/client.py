"""Talks to a FHIR server: one kept connection, JSON, and errors that say what repairs them.

No error quotes an answer: a server's answers may quote patients.
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
# Status codes, by what they say of the server.
_DENIED = (401, 403)
_NOT_THERE = (301, 302, 303, 307, 308, 404, 405, 410)
_AWAY = (408, 425, 429)


@dataclass(frozen=True)
class Answer:
    """A server's answer. `body` is empty unless it is a JSON object."""

    status: int
    body: Resource

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300


class Refused(Exception):  # noqa: N818  # named by what happened
    """The server won't take what was sent (4xx).

    `conflict` says that it was because something else is there by now.
    """

    def __init__(self, status: int) -> None:
        super().__init__(f"HTTP {status}")
        self.conflict = status in (409, 412)


class Client:
    """A FHIR server. Not for several threads at once.

    `url` is its base, as ``https://fhir.example.org/fhir``. `authorization` is the value of that
    header, and `ca` a file of certificates that are trusted. Raises Fatal if `ca` can't be read.
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
        """Return the answer for a path below the base, whatever its status.

        Raises Retry if the server is away, Fatal if it doesn't let us in.
        """
        return self._ask("GET", f"{self._base.path.rstrip('/')}/{path}", None)

    def bundle(self, kind: str, entries: Sequence[Resource]) -> list[Resource]:
        """Send a ``batch`` or a ``transaction``. Return its answer's entries, in the same order.

        Raises Retry, Fatal, and Refused: then nothing was done.
        """
        bundle = {"resourceType": "Bundle", "type": kind, "entry": list(entries)}
        body = json.dumps(bundle, ensure_ascii=False).encode()
        answer = self._ask("POST", self._base.path or "/", body)
        if answer.status in _NOT_THERE:
            raise Fatal(
                f"the FHIR server takes no {kind} at options.url (HTTP {answer.status})",
                hint="options.url is the server's base, "
                "which takes batches and transactions by POST",
            )
        if not answer.ok:
            raise Refused(answer.status)
        answers: list[Resource] = answer.body.get("entry", [])
        return answers

    def pages(self, first: Resource) -> Iterator[Resource]:
        """Yield the resources of a search whose first page this is, and of the pages after it.

        Raises Retry and Fatal.
        """
        page: Resource | None = first
        while page is not None:
            for entry in page.get("entry", ()):
                if "resource" in entry:
                    yield entry["resource"]
            next_url = None
            for link in page.get("link", ()):
                if link["relation"] == "next":
                    next_url = link["url"]
            page = self._page(next_url) if next_url else None

    def close(self) -> None:
        self._connection.close()

    def _page(self, url: str) -> Resource:
        # The server may know itself by another name than we do. Its path and query are what counts.
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
            raise translate_error(error) from None
        return self._answer(response, content)

    def _answer(self, response: HTTPResponse, content: bytes) -> Answer:
        status = response.status
        if status >= 500 or status in _AWAY:
            # Retry-After may also be a date: then the default holds.
            after = response.getheader("Retry-After") or ""
            after_s = float(after) if after.isdigit() else 2.0
            raise Retry(f"the FHIR server can't now (HTTP {status})", after=after_s)
        if status in _DENIED:
            raise Fatal(
                f"the FHIR server refused us (HTTP {status})",
                hint="set options.token, or options.user and options.password; "
                "it must read and write what it holds",
            )
        return Answer(status, _body(content))

    def _connected(self) -> HTTPConnection:
        host = self._base.hostname or ""
        port = self._base.port
        if self._tls is not None:
            return HTTPSConnection(host, port, timeout=self._timeout_s, context=self._tls)
        return HTTPConnection(host, port, timeout=self._timeout_s)


def translate_error(error: Exception) -> Fatal | NotReady:
    """Return our error for one of the connection's."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return Fatal(
            "the FHIR server's certificate isn't trusted",
            hint="options.ca names the file of the authority that signed its certificate",
        )
    return NotReady(
        f"the FHIR server doesn't answer ({without_text(error)})",
        hint="is it running and reachable? `passport check` tries it",
    )


def require_r4(client: Client) -> None:
    """Raise Fatal if no FHIR R4 server answers at the base, Retry if it is away."""
    answer = client.get("metadata?_summary=true")
    if not answer.ok and answer.status not in _NOT_THERE:
        raise Retry(f"the FHIR server can't say what it is (HTTP {answer.status})")
    version = str(answer.body.get("fhirVersion", ""))
    is_fhir = answer.body.get("resourceType") == "CapabilityStatement"
    if not is_fhir or not version.startswith("4."):
        raise Fatal(
            f"no FHIR R4 server at options.url (HTTP {answer.status}, FHIR {version or 'unknown'})",
            hint="options.url is the server's base, under which it has /metadata",
        )


def authorization(token: str | None, user: str | None, password: str | None) -> str | None:
    """Return the value of the header Authorization. A token comes before a user and password."""
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
        body = json.loads(content)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}

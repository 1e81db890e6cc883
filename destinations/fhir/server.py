"""A FHIR R4 server, written by transactions: the newest state of every row, under one id for good.

Every transaction also moves the hospital's journal, a Basic resource, from the version that was
read before the rows were (``ifMatch``): a writer that was frozen meanwhile, or a second one, is
refused as a whole, whether it would have replaced a resource or made one. The journal has the
progress, who is ambiguous, and the highest obs_id.
"""

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlencode, urlsplit

from pydantic import Field, SecretStr, field_validator

from destinations.fhir.client import Client, Refused, authorization, require_r4
from destinations.fhir.newest import (
    Changes,
    Kept,
    by_hospital,
    changes,
    gone,
    require_ids,
    rows_of,
    told,
)
from destinations.fhir.resources import BUCKET, TYPES, Held, Resource, identity, system
from passport.errors import Fatal, Retry
from passport.facts import Observation
from passport.settings import Destination, Settings
from passport.sink import KeyRange, Outcome, Progress, Scope

ORDER = "newest-wins"
JOURNAL = "urn:openmrs-passport:journal"
ASKED = 50  # ids or tags in one search
ATTEMPTS = 5
_WITHDRAWN = {
    "Observation": "status:not",
    "Condition": "verification-status:not",
    "MedicationStatement": "status:not",
}


class Options(Kept):
    """`url`: the base, under which the server has /metadata; `rows`: at most so many in one
    transaction.
    """

    url: str
    token: SecretStr | None = None
    user: str | None = None
    password: SecretStr | None = None
    ca: str | None = None
    timeout_s: float = Field(60, gt=0)
    rows: int = Field(500, ge=1, le=5_000)

    @field_validator("url")
    @classmethod
    def _base(cls, value: str) -> str:
        parts = urlsplit(value)
        if (
            parts.scheme not in ("http", "https")
            or not parts.hostname
            or parts.username
            or parts.query
        ):
            raise ValueError(
                "not the base of a FHIR server, such as https://fhir.example.org/fhir, without credentials"
            )
        return value

    @property
    def authorization(self) -> str | None:
        token, password = (
            one.get_secret_value() if one else None for one in (self.token, self.password)
        )
        return authorization(token, self.user, password)


def connect(options: Options, settings: Settings, _: Destination) -> "FhirServer":
    """A sink that is ready to write. Retry (server away), Fatal (no FHIR R4 there, refused,
    unusable hospital id).
    """
    require_ids(settings)
    client = Client(options.url, options.authorization, options.ca, options.timeout_s)
    try:
        require_r4(client)
    except BaseException:
        client.close()
        raise
    return FhirServer(client, options)


@dataclass(frozen=True)
class Journal:
    """A hospital's Basic resource as of `etag`."""

    etag: str
    progress: dict[str, Any] | None = None
    unsure: frozenset[int] = frozenset()
    top: int = 0

    def after(self, made: Changes, batch: Iterable[int]) -> "Journal":
        return replace(
            self, unsure=(self.unsure | made.ambiguous) - made.settled, top=max([self.top, *batch])
        )


class Overtaken(Exception):  # noqa: N818  # named by what happened
    """Somebody else wrote for this hospital since the journal was read."""


class FhirServer:
    """See passport.sink.Sink."""

    def __init__(self, client: Client, options: Options) -> None:
        self._client, self._options = client, options
        self._journals: dict[str, Journal] = {}

    def write(self, observations: Sequence[Observation]) -> Outcome:
        outcome = Outcome()
        for hospital, batch in by_hospital(observations).items():
            for part in _slices(batch, self._options.rows):
                outcome += self._apply(hospital, _Rows(self, hospital, part))
        return outcome

    def retain(self, scope: Scope, keys: Iterable[int], version: str) -> Outcome:
        return self._apply(scope.hospital, _Scope(self, scope, frozenset(keys), version))

    def ambiguous(self, hospital: str) -> Sequence[int]:
        return sorted(self._journal(hospital).unsure)

    def progress(self, hospital: str) -> Progress | None:
        found = self._read_journal(hospital)
        return (
            None
            if found is None or found.progress is None
            else Progress(hospital, **found.progress)
        )

    def record(self, progress: Progress) -> None:
        for _ in range(ATTEMPTS):
            journal = self._journal(progress.hospital)
            try:
                self._send(progress.hospital, replace(journal, progress=told(progress)), [])
                return
            except Overtaken:
                continue
        raise Retry(f"others write for {progress.hospital} on the FHIR server all the time")

    def counts(self, hospital: str) -> Mapping[str, int]:
        ours = {
            "identifier": f"{system(self._options.prefix + hospital, 'obs')}|",
            "_summary": "count",
        }
        searches = [
            f"{type_}?{urlencode(ours | {_WITHDRAWN[type_]: 'entered-in-error'})}"
            for type_ in TYPES
        ]
        return {
            "stored": sum(found.get("total", 0) for found in self._search(searches)),
            "matched": 0,
            "unmatched": 0,
        }

    def ready(self) -> None:
        require_r4(self._client)

    def close(self) -> None:
        self._client.close()

    def held(self, hospital: str, obs_ids: Sequence[int]) -> list[Resource]:
        """The resources of rows."""
        ids = [identity(self._options.prefix + hospital, obs_id) for obs_id in obs_ids]
        return self._found([{"_id": ",".join(part)} for part in _slices(ids, ASKED)])

    def of_scope(self, scope: Scope) -> list[Resource]:
        """The resources of rows in a scope, and of some more."""
        if isinstance(scope, KeyRange):
            top = self._journal(scope.hospital).top
            last = top if scope.to is None else min(scope.to, top)
            first = 0 if scope.first is None else scope.first + 1
            kind, codes = (
                "bucket",
                list(map(str, range(max(0, first) // BUCKET, last // BUCKET + 1))),
            )
        else:
            kind, codes = "person-id", [str(scope.person_id)]
        tags = [f"{system(self._options.prefix + scope.hospital, kind)}|{code}" for code in codes]
        return self._found([{"_tag": ",".join(part)} for part in _slices(tags, ASKED)])

    def _apply(self, hospital: str, asked: "_Rows | _Scope") -> Outcome:
        """Reads, decides and writes; again when somebody else wrote meanwhile."""
        for _ in range(ATTEMPTS):
            journal = self._journal(hospital)
            made = asked.changes(self._options)
            after = journal.after(made, asked.obs_ids)
            try:
                if made.resources or after.unsure != journal.unsure:
                    refused = self._send(hospital, after, _together(made.resources))
                    made.outcome.rejected += [(key, "refused") for key in refused]
                    made.outcome.stored -= len(refused)
                return made.outcome
            except Overtaken:
                continue
        raise Retry(f"others write for {hospital} on the FHIR server all the time")

    def _send(
        self, hospital: str, journal: Journal, rows: Sequence[tuple[str, list[Resource]]]
    ) -> list[str]:
        """One transaction; in halves if it is refused. The keys of rows that the server won't take.
        Overtaken.
        """
        try:
            self._transact(hospital, journal, [one for _, resources in rows for one in resources])
            return []
        except Refused as error:
            if error.conflict and self._moved(hospital):
                raise Overtaken from None
            if not rows:
                hint = "may this account write Basic resources under ids of its own choice?"
                raise Fatal(
                    f"the FHIR server refuses the journal of {hospital} ({error})", hint=hint
                ) from None
        if len(rows) == 1:
            return [rows[0][0]]
        half = len(rows) // 2
        return self._send(hospital, journal, rows[:half]) + self._send(
            hospital, journal, rows[half:]
        )

    def _transact(self, hospital: str, journal: Journal, resources: Sequence[Resource]) -> None:
        """`journal`: its new content; it moves from the version that is known here, if that is
        still there.
        """
        known = self._journals.pop(hospital, None)
        if known is None:
            raise Overtaken
        try:
            entries = [
                _put(_as_basic(self._journal_id(hospital), journal), known.etag),
                *map(_put, resources),
            ]
            answers = self._client.bundle("transaction", entries)
        except Refused:
            self._journals[hospital] = known
            raise
        if answers and (etag := answers[0].get("response", {}).get("etag")):
            self._journals[hospital] = replace(journal, etag=_etag(etag))

    def _moved(self, hospital: str) -> bool:
        found = self._read_journal(hospital)
        moved = found is None or found.etag != self._journals[hospital].etag
        if moved:
            del self._journals[hospital]
        return moved

    def _journal(self, hospital: str) -> Journal:
        """As last read or written; made when there is none, so that the first write has one to
        move.
        """
        found = self._journals.get(hospital) or self._read_journal(hospital)
        while found is None:
            self._client.bundle(
                "transaction", [_put(_as_basic(self._journal_id(hospital), Journal("")))]
            )
            found = self._read_journal(hospital)
        self._journals[hospital] = found
        return found

    def _read_journal(self, hospital: str) -> Journal | None:
        """As it stands on the server."""
        answer = self._client.get(f"Basic/{self._journal_id(hospital)}")
        if answer.status in (404, 410):
            return None
        if not answer.ok:
            raise Retry(
                f"the FHIR server doesn't show the journal of {hospital} (HTTP {answer.status})"
            )
        said = next(one["valueString"] for one in answer.body["extension"] if one["url"] == JOURNAL)
        content = json.loads(said)
        etag = _etag(answer.body["meta"]["versionId"])
        return Journal(etag, content["progress"], frozenset(content["unsure"]), content["top"])

    def _journal_id(self, hospital: str) -> str:
        return f"openmrs-passport.{self._options.prefix}{hospital}"

    def _found(self, conditions: Sequence[dict[str, str]]) -> list[Resource]:
        searches = [
            f"{type_}?{urlencode({**one, '_count': '1000'})}"
            for one in conditions
            for type_ in TYPES
        ]
        return [one for page in self._search(searches) for one in self._client.pages(page)]

    def _search(self, searches: Sequence[str]) -> list[Resource]:
        """The first page of each."""
        pages: list[Resource] = []
        for part in _slices(searches, ASKED):
            try:
                answers = self._client.bundle(
                    "batch", [{"request": {"method": "GET", "url": one}} for one in part]
                )
            except Refused as error:
                raise Retry(f"the FHIR server refuses to search ({error})") from None
            if len(answers) != len(part) or any("resource" not in one for one in answers):
                raise Retry("the FHIR server left a search unanswered")
            if any(one["resource"].get("resourceType") != "Bundle" for one in answers):
                raise Retry("the FHIR server couldn't search")
            pages += [one["resource"] for one in answers]
        return pages


@dataclass(frozen=True)
class _Rows:
    """What `write` asks."""

    server: FhirServer
    hospital: str
    batch: Sequence[Observation]

    @property
    def obs_ids(self) -> list[int]:
        return sorted({one.obs_id for one in self.batch})

    def changes(self, kept: Kept) -> Changes:
        return changes(self.batch, rows_of(self.server.held(self.hospital, self.obs_ids)), kept)


@dataclass(frozen=True)
class _Scope:
    """What `retain` asks."""

    server: FhirServer
    scope: Scope
    keys: frozenset[int]
    version: str
    obs_ids: Sequence[int] = field(default=())

    def changes(self, kept: Kept) -> Changes:
        found = rows_of(self.server.of_scope(self.scope)).values()
        rows: list[Held] = [one for row in found for one in row]
        return gone(self.scope, self.keys, self.version, rows, kept)


def _put(one: Resource, etag: str = "") -> Resource:
    request = {"method": "PUT", "url": f"{one['resourceType']}/{one['id']}"}
    return {"resource": one, "request": request | ({"ifMatch": etag} if etag else {})}


def _as_basic(id_: str, journal: Journal) -> Resource:
    """`turn`: a server may take a resource that says the same for no change, and would leave its
    version.
    """
    content = {
        "progress": journal.progress,
        "unsure": sorted(journal.unsure),
        "top": journal.top,
        "turn": uuid.uuid4().hex,
    }
    return {
        "resourceType": "Basic",
        "id": id_,
        "code": {"text": "openmrs-passport: how far this server is"},
        "extension": [{"url": JOURNAL, "valueString": json.dumps(content)}],
    }


def _etag(said: str) -> str:
    """``W/"3"``, of what a server says in a bundle: HAPI leaves the quotes out."""
    return 'W/"' + said.removeprefix("W/").strip('"') + '"'


def _together(resources: Iterable[tuple[str, Resource]]) -> list[tuple[str, list[Resource]]]:
    rows: dict[str, list[Resource]] = {}
    for key, one in resources:
        rows.setdefault(key, []).append(one)
    return list(rows.items())


def _slices(items: Sequence[Any], size: int) -> list[Any]:
    return [items[start : start + size] for start in range(0, len(items), size)]

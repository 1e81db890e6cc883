"""A FHIR R4 server, written by transactions: the newest state of every row, under one id for good.

Each hospital has a journal on the server, a Basic resource. It holds the progress, the ambiguous
people, and the highest obs_id. Every transaction also moves the journal, with ``ifMatch``, from
the version that was read before the rows were. So a writer that was frozen meanwhile, or a second
one, is refused as a whole, whether it would have replaced a resource or result one.
"""

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode, urlsplit

from pydantic import Field, SecretStr, field_validator

from destinations.fhir.client import Client, Refused, authorization, require_r4
from destinations.fhir.newest import (
    Changes,
    FhirOptions,
    by_hospital,
    changes,
    gone,
    progress_content,
    require_ids,
    rows_of,
)
from destinations.fhir.resources import BUCKET, TYPES, Resource, identity, system
from passport.errors import Fatal, Retry
from passport.facts import Observation
from passport.settings import Destination, Settings
from passport.sink import KeyRange, Outcome, Progress, Scope

ORDER = "newest-wins"
JOURNAL = "urn:openmrs-passport:journal"
PER_SEARCH = 50  # ids or tags in one search, and searches in one batch
ATTEMPTS = 5
# The search parameter that leaves out what is entered in error, by type.
WITHOUT_STATUS = {
    "Observation": "status:not",
    "Condition": "verification-status:not",
    "MedicationStatement": "status:not",
}


class Options(FhirOptions):
    """`url` is the base, under which the server has /metadata.

    `rows` is the largest number of rows that one transaction writes.
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
        is_a_base = parts.scheme in ("http", "https") and parts.hostname and not parts.query
        # Credentials in an address would be shown with it. `user` and `password` are hidden.
        if not is_a_base or parts.username:
            raise ValueError(
                "not the base of a FHIR server, such as https://fhir.example.org/fhir, "
                "without credentials"
            )
        return value

    @property
    def authorization(self) -> str | None:
        """The value of the header Authorization, or None for a server that asks for none."""
        token = self.token.get_secret_value() if self.token else None
        password = self.password.get_secret_value() if self.password else None
        return authorization(token, self.user, password)


def connect(options: Options, settings: Settings, _destination: Destination) -> "FhirServer":
    """Open the destination.

    Raises Retry if the server is away. Raises Fatal if it is no FHIR R4 server or refuses us, or if
    a hospital's id can't be part of a FHIR id.
    """
    require_ids(settings, options.prefix)
    client = Client(options.url, options.authorization, options.ca, options.timeout_s)
    try:
        require_r4(client)
    except BaseException:
        client.close()
        raise
    return FhirServer(client, options)


@dataclass(frozen=True)
class Journal:
    """A hospital's journal as it was in the version `etag`.

    `progress` is what `record` stored. `ambiguous` has person_ids. `highest_obs_id` bounds an open
    range: the server can't be asked for it.
    """

    etag: str
    progress: dict[str, Any] | None = None
    ambiguous: frozenset[int] = frozenset()
    highest_obs_id: int = 0

    def after(self, result: Changes, obs_ids: Iterable[int]) -> "Journal":
        """Return the journal as it must be once `result`, which is about `obs_ids`, is written."""
        return replace(
            self,
            ambiguous=(self.ambiguous | result.ambiguous) - result.settled,
            highest_obs_id=max([self.highest_obs_id, *obs_ids]),
        )


class Overtaken(Exception):  # noqa: N818  # named by what happened
    """Somebody else wrote for this hospital since the journal was read."""


class FhirServer:
    """The newest state of every row on a FHIR server, see `passport.sink.Sink`."""

    def __init__(self, client: Client, options: Options) -> None:
        self._client = client
        self._options = options
        self._journals: dict[str, Journal] = {}  # by hospital, as last read or written

    def write(self, observations: Sequence[Observation]) -> Outcome:
        outcome = Outcome()
        for hospital, batch in by_hospital(observations).items():
            for part in _slices(batch, self._options.rows):
                outcome += self._write(hospital, part)
        return outcome

    def retain(self, scope: Scope, keys: Iterable[int], version: str) -> Outcome:
        obs_ids = frozenset(keys)
        for _ in range(ATTEMPTS):
            # The journal first: a transaction that moves it then knows that the rows are current.
            journal = self._journal(scope.hospital)
            rows = rows_of(self._resources_of_scope(scope))
            all_rows = [row for rows_of_obs in rows.values() for row in rows_of_obs]
            result = gone(scope, obs_ids, version, all_rows, self._options)
            if self._store(scope.hospital, journal, journal.after(result, ()), result):
                return result.outcome
        raise _always_overtaken(scope.hospital)

    def ambiguous(self, hospital: str) -> Sequence[int]:
        return sorted(self._journal(hospital).ambiguous)

    def progress(self, hospital: str) -> Progress | None:
        journal = self._read_journal(hospital)
        if journal is None or journal.progress is None:
            return None
        return Progress(hospital, **journal.progress)

    def record(self, progress: Progress) -> None:
        content = progress_content(progress)
        for _ in range(ATTEMPTS):
            journal = self._journal(progress.hospital)
            try:
                self._send(progress.hospital, replace(journal, progress=content), [])
                return
            except Overtaken:
                continue
        raise _always_overtaken(progress.hospital)

    def counts(self, hospital: str) -> Mapping[str, int]:
        """Return the number of resources that are not entered in error. It knows no people."""
        searches = []
        for type_ in TYPES:
            query = {
                "identifier": f"{system(self._options.prefix + hospital, 'obs')}|",
                "_summary": "count",
                WITHOUT_STATUS[type_]: "entered-in-error",
            }
            searches.append(f"{type_}?{urlencode(query)}")
        stored = sum(page.get("total", 0) for page in self._search(searches))
        return {"stored": stored, "matched": 0, "unmatched": 0}

    def ready(self) -> None:
        require_r4(self._client)

    def close(self) -> None:
        self._client.close()

    # Rows: read what the server has, decide, write. Again if somebody else wrote meanwhile.

    def _write(self, hospital: str, batch: Sequence[Observation]) -> Outcome:
        obs_ids = sorted({observation.obs_id for observation in batch})
        for _ in range(ATTEMPTS):
            # The journal first: a transaction that moves it then knows that the rows are current.
            journal = self._journal(hospital)
            rows = rows_of(self.resources_of_rows(hospital, obs_ids))
            result = changes(batch, rows, self._options)
            if self._store(hospital, journal, journal.after(result, obs_ids), result):
                return result.outcome
        raise _always_overtaken(hospital)

    def _store(self, hospital: str, before: Journal, after: Journal, result: Changes) -> bool:
        """Write what was decided, and count in its outcome what the server refuses.

        Return False if somebody else has written since the journal `before` was read.
        """
        if not result.resources and after.ambiguous == before.ambiguous:
            return True
        try:
            refused = self._send(hospital, after, _by_row(result.resources))
        except Overtaken:
            return False
        result.outcome.rejected += [(key, "refused") for key in refused]
        result.outcome.stored -= len(refused)
        return True

    def _send(
        self, hospital: str, journal: Journal, rows: Sequence[tuple[str, list[Resource]]]
    ) -> list[str]:
        """Write rows, each with all its resources, and the journal.

        Return the keys of the rows that are refused. A server refuses a transaction as a whole, and
        halving finds the rows that it won't take. Raises Overtaken, and Fatal if it refuses the
        journal alone.
        """
        resources = [resource for _, of_row in rows for resource in of_row]
        try:
            self._transact(hospital, journal, resources)
            return []
        except Refused as error:
            if error.conflict and self._journal_has_moved(hospital):
                raise Overtaken from None
            if not rows:
                raise Fatal(
                    f"the FHIR server refuses the journal of {hospital} ({error})",
                    hint="may this account write Basic resources under ids of its own choice?",
                ) from None
        if len(rows) == 1:
            [(key, _)] = rows
            return [key]
        half = len(rows) // 2
        refused = self._send(hospital, journal, rows[:half])
        refused += self._send(hospital, journal, rows[half:])
        return refused

    def _transact(self, hospital: str, journal: Journal, resources: Sequence[Resource]) -> None:
        """Write `resources` and the journal's new content in one transaction.

        The journal moves from the version that is known here, if the server still has that one.
        """
        # Without an answer it isn't known which version the server has: the journal is read anew.
        before = self._journals.pop(hospital, None)
        if before is None:
            raise Overtaken
        entries = [_put(self._as_basic(hospital, journal), before.etag)]
        entries += [_put(resource) for resource in resources]
        try:
            answers = self._client.bundle("transaction", entries)
        except Refused:
            self._journals[hospital] = before
            raise
        etag = answers[0].get("response", {}).get("etag") if answers else None
        if etag:
            self._journals[hospital] = replace(journal, etag=_etag(etag))

    # The journal.

    def _journal(self, hospital: str) -> Journal:
        """Return the journal as last read or written. Make it if there is none yet."""
        journal = self._journals.get(hospital) or self._read_journal(hospital)
        while journal is None:
            basic = self._as_basic(hospital, Journal(""))
            self._client.bundle("transaction", [_put(basic)])
            journal = self._read_journal(hospital)
        self._journals[hospital] = journal
        return journal

    def _read_journal(self, hospital: str) -> Journal | None:
        """Return the journal as it is on the server."""
        answer = self._client.get(f"Basic/{self._journal_id(hospital)}")
        if answer.status in (404, 410):
            return None
        if not answer.ok:
            raise Retry(
                f"the FHIR server doesn't show the journal of {hospital} (HTTP {answer.status})"
            )
        [text] = [
            extension["valueString"]
            for extension in answer.body["extension"]
            if extension["url"] == JOURNAL
        ]
        content = json.loads(text)
        return Journal(
            _etag(answer.body["meta"]["versionId"]),
            content["progress"],
            frozenset(content["unsure"]),
            content["top"],
        )

    def _journal_has_moved(self, hospital: str) -> bool:
        journal = self._read_journal(hospital)
        has_moved = journal is None or journal.etag != self._journals[hospital].etag
        if has_moved:
            del self._journals[hospital]
        return has_moved

    def _journal_id(self, hospital: str) -> str:
        return f"openmrs-passport.{self._options.prefix}{hospital}"

    def _as_basic(self, hospital: str, journal: Journal) -> Resource:
        content = {
            "progress": journal.progress,
            "unsure": sorted(journal.ambiguous),
            "top": journal.highest_obs_id,
            # A server may take a resource that says the same for no change, and keep its version.
            "turn": uuid.uuid4().hex,
        }
        return {
            "resourceType": "Basic",
            "id": self._journal_id(hospital),
            "code": {"text": "openmrs-passport: how far this server is"},
            "extension": [{"url": JOURNAL, "valueString": json.dumps(content)}],
        }

    # What the server has.

    def resources_of_rows(self, hospital: str, obs_ids: Sequence[int]) -> list[Resource]:
        """Return the resources of rows, under each type that they have or had."""
        ids = [identity(self._options.prefix + hospital, obs_id) for obs_id in obs_ids]
        return self._find([{"_id": ",".join(part)} for part in _slices(ids, PER_SEARCH)])

    def _resources_of_scope(self, scope: Scope) -> list[Resource]:
        """Return the resources of all rows in a scope, and of some more: a tag is for many rows."""
        if isinstance(scope, KeyRange):
            highest = self._journal(scope.hospital).highest_obs_id
            last = highest if scope.to is None else min(scope.to, highest)
            first = 0 if scope.first is None else max(0, scope.first + 1)
            tag = "bucket"
            codes = [str(bucket) for bucket in range(first // BUCKET, last // BUCKET + 1)]
        else:
            tag = "person-id"
            codes = [str(scope.person_id)]
        url = system(self._options.prefix + scope.hospital, tag)
        tags = [f"{url}|{code}" for code in codes]
        return self._find([{"_tag": ",".join(part)} for part in _slices(tags, PER_SEARCH)])

    def _find(self, conditions: Sequence[dict[str, str]]) -> list[Resource]:
        searches = []
        for condition in conditions:
            query = urlencode({**condition, "_count": "1000"})
            searches += [f"{type_}?{query}" for type_ in TYPES]
        resources: list[Resource] = []
        for first_page in self._search(searches):
            resources += self._client.pages(first_page)
        return resources

    def _search(self, searches: Sequence[str]) -> list[Resource]:
        """Return the first page of each search. Raises Retry if one is left unanswered."""
        pages: list[Resource] = []
        for part in _slices(searches, PER_SEARCH):
            entries = [{"request": {"method": "GET", "url": search}} for search in part]
            try:
                answers = self._client.bundle("batch", entries)
            except Refused as error:
                raise Retry(f"the FHIR server refuses to search ({error})") from None
            if len(answers) != len(part) or any("resource" not in answer for answer in answers):
                raise Retry("the FHIR server left a search unanswered")
            for answer in answers:
                page = answer["resource"]
                # A search that failed is answered with an OperationOutcome.
                if page.get("resourceType") != "Bundle":
                    raise Retry("the FHIR server couldn't search")
                pages.append(page)
        return pages


def _always_overtaken(hospital: str) -> Retry:
    return Retry(f"others write for {hospital} on the FHIR server all the time")


def _put(resource: Resource, etag: str = "") -> Resource:
    """Return the entry of a transaction that writes a resource.

    With `etag` it is written only over that version.
    """
    request = {"method": "PUT", "url": f"{resource['resourceType']}/{resource['id']}"}
    if etag:
        request["ifMatch"] = etag
    return {"resource": resource, "request": request}


def _etag(text: str) -> str:
    """Return an ETag as ``W/"3"``. In a bundle HAPI leaves the quotes out."""
    return 'W/"' + text.removeprefix("W/").strip('"') + '"'


def _by_row(resources: Iterable[tuple[str, Resource]]) -> list[tuple[str, list[Resource]]]:
    """Return the resources of each row together: a transaction takes all of a row's, or none."""
    rows: dict[str, list[Resource]] = {}
    for key, resource in resources:
        rows.setdefault(key, []).append(resource)
    return list(rows.items())


def _slices(items: Sequence[Any], size: int) -> list[Any]:
    return [items[start : start + size] for start in range(0, len(items), size)]

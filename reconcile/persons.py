"""The walk over all persons of a hospital, with those whom only the destination knows.

Somebody whom the hospital no longer has is found that way too: the destination still has a link of
theirs, or rows.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from openmrs.load_budget import PageSize
from openmrs.read import ANY_POSITION, ConsistentRead, Source
from openmrs.tables import OBS
from passport.errors import TooSlow
from reconcile.mongo_reader import MongoReader

Answer = TypeVar("Answer")

PERSONS_AT_ONCE = 500
ROWS_AT_ONCE = 5_000
EVERYBODY = (0, 2**62)
"""The first and the last person_id."""


class PersonBatch(NamedTuple):
    """The persons with ``after < person_id <= to``, sorted. Batches follow each other gaplessly."""

    after: int
    to: int
    person_ids: list[int]


class NextPersons(NamedTuple):
    """The next persons whom a query has found, and whether these are the last ones."""

    person_ids: list[int]
    are_last: bool


FindNext = Callable[[ConsistentRead, int, int, int], NextPersons]
"""Find up to so many persons (the last argument) with ``after < person_id <= last``."""


def walk(
    source: Source,
    mongo: MongoReader,
    find_next: FindNext,
    *,
    persons: tuple[int, int] = EVERYBODY,
    at_once: int = PERSONS_AT_ONCE,
) -> Iterator[PersonBatch]:
    """Yield the persons between the first and the last of `persons`, both included, in batches.

    `find_next` says which of the hospital's persons these are: `patients` or `persons_with_rows`.
    Raises Retry and Fatal of the hospital and of the destination.
    """
    first, last = persons
    linked = mongo.linked(source.hospital)
    after = first - 1
    while True:
        with source.read_at(ANY_POSITION) as read:
            batch = find_next(read, after, last, at_once)
        to = last if batch.are_last else batch.person_ids[-1]
        only_linked = {person_id for person_id in linked if after < person_id <= to}
        only_mirrored = mongo.mirrored(source.hospital, after, to)
        yield PersonBatch(after, to, sorted({*batch.person_ids, *only_linked, *only_mirrored}))
        if batch.are_last:
            return
        after = to


def patients(read: ConsistentRead, after: int, last: int, limit: int) -> NextPersons:
    """Find the hospital's patients, whether or not they have rows."""
    rows = read.rows(
        "SELECT patient_id FROM patient WHERE patient_id > %s AND patient_id <= %s"
        " ORDER BY patient_id LIMIT %s",
        (after, last, limit),
    )
    return NextPersons([row["patient_id"] for row in rows], len(rows) < limit)


def persons_with_rows(read: ConsistentRead, after: int, last: int, limit: int) -> NextPersons:
    """Find the persons who have obs, as many as have about ROWS_AT_ONCE rows, one at least."""
    sizes = read.rows(
        f"SELECT {OBS.person} AS person_id, COUNT(*) AS counted FROM {OBS.name}"  # noqa: S608
        f" WHERE {OBS.person} > %s AND {OBS.person} <= %s"
        f" GROUP BY {OBS.person} ORDER BY {OBS.person} LIMIT %s",
        (after, last, limit),
    )
    person_ids: list[int] = []
    rows = 0
    for size in sizes:
        rows += size["counted"]
        if person_ids and rows > ROWS_AT_ONCE:
            break
        person_ids.append(size["person_id"])
    are_all = len(person_ids) == len(sizes)
    return NextPersons(person_ids, are_all and len(sizes) < limit)


def count_patients(source: Source, persons: tuple[int, int]) -> int:
    """Return about how many persons a walk will see, for a progress bar."""
    sql = "SELECT COUNT(*) AS persons FROM patient WHERE patient_id BETWEEN %s AND %s"
    with source.read_at(ANY_POSITION) as read:
        return int(read.rows(sql, persons)[0]["persons"])


def read_in_parts(
    source: Source,
    size: PageSize,
    person_ids: Sequence[int],
    read_part: Callable[[ConsistentRead, Sequence[int]], Answer],
) -> Iterator[tuple[Sequence[int], Answer]]:
    """Yield the persons in parts, each with what `read_part` returns for it in a read of its own.

    A part that takes too long is read again for fewer persons. Raises Retry, NotReady and Fatal.
    """
    left = person_ids
    while left:
        part = left[: size.rows]
        try:
            with source.read_at(ANY_POSITION, longest_s=size.longest_s) as read:
                answer = read_part(read, part)
        except TooSlow:
            size.ended()
            continue
        size.answered(read.worked_s)
        left = left[len(part) :]
        yield part, answer


def in_parts(person_ids: Sequence[int], size: int = PERSONS_AT_ONCE) -> Iterator[Sequence[int]]:
    """Yield the persons in parts of at most `size`."""
    for start in range(0, len(person_ids), size):
        yield person_ids[start : start + size]

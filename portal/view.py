"""A record as a person reads it: title, value, flag, who, where, when. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any

from portal.chart import Chart, drawn
from portal.words import Words, number, parsed

Document = dict[str, Any]
POINTS = 24  # of a chart, the newest

_TITLES = {
    "condition": ("diagnosis", "details", "name"),
    "medication": ("medicationName", "details", "name"),
    "test": ("testName", "name"),
    "visit": ("reason", "details", "name"),
    "image": ("imageType", "description", "name"),
}
_DETAILS = {
    "condition": ("status", "description", "treatment"),
    "medication": ("dosage", "frequency", "description", "startDate", "endDate"),
    "test": ("description",),
    "visit": ("name",),
    "image": ("description",),
}
_DATES = frozenset({"startDate", "endDate"})
_FLAGS = {
    "CRITICALLY_HIGH": "much_higher",
    "CRITICALLY_LOW": "much_lower",
    "HIGH": "higher",
    "LOW": "lower",
    "NORMAL": "usual",
}
_STATUS_FLAGS = {"Normal": "usual", "Abnormal": "unusual", "Critical": "serious"}
_CALM, _SERIOUS = {"usual"}, {"much_higher", "much_lower", "serious"}


@dataclass(frozen=True, slots=True)
class Item:
    """`details`: (label, text) pairs; `level` of the flag: calm, watch or serious."""

    id: str
    type: str
    kind: str
    title: str
    value: str
    flag: str
    level: str
    details: list[tuple[str, str]]
    notes: str
    who: str
    where: str
    written: str | None
    day: str
    time: str
    encounter: str
    result: str


def item(record: Document, words: Words) -> Item:
    """Of a `medicalrecords` document with its `author`."""
    data, origin, type_ = record["data"], record.get("openmrsData") or {}, record["type"]
    title, flag = _title(data, type_, words), _flag(data, origin)
    places = [place for place in (origin.get("locationName"), hospital(data, words)) if place]
    written = data.get("date")
    return Item(
        id=str(record["_id"]),
        type=type_,
        kind=words(f"type_{type_}"),
        title=title,
        value=_value(data, type_, words),
        flag=words(f"flag_{flag}") if flag else "",
        level="calm" if flag in _CALM else "serious" if flag in _SERIOUS else "watch",
        details=_details(data, type_, title, words),
        notes=str(data.get("notes") or ""),
        who=author(record, words),
        where=", ".join(dict.fromkeys(places)),
        written=written,
        day=words.day(written),
        time=words.time(written),
        encounter=f"{origin.get('hospitalId')}/{origin.get('encounterUuid') or record['_id']}",
        result=str(data.get("result") or ""),
    )


def sentence(record: Document, who: str, words: Words) -> str:
    """All of it in one."""
    data, type_ = record["data"], record["type"]
    title, value = _title(data, type_, words), _value(data, type_, words)
    said = f"{title}: {value}" if value else title
    return words(f"sentence_{type_}", title=said, who=who, hospital=hospital(data, words))


def author(record: Document, words: Words) -> str:
    return str(record["data"].get("doctor") or record.get("author") or words("unknown_author"))


def hospital(data: Document, words: Words) -> str:
    return str(data.get("hospital") or words("unknown_hospital"))


def _title(data: Document, type_: str, words: Words) -> str:
    if type_ == "visit" and data.get("name") and _is_day(data):
        return str(data["name"])
    return words.text(
        next((str(data[key]) for key in _TITLES[type_] if data.get(key)), words(f"type_{type_}"))
    )


def _value(data: Document, type_: str, words: Words) -> str:
    if type_ == "visit" and _is_day(data):
        return words.text(str(data["reason"]))
    return (
        words.quantity(str(data.get("result") or data.get("details") or ""))
        if type_ == "test"
        else ""
    )


def _is_day(visit: Document) -> bool:
    """Such as that of the next visit: its name says which."""
    return parsed(str(visit.get("reason") or "")) is not None


def _flag(data: Document, origin: Document) -> str | None:
    """What the laboratory said of a result."""
    if interpretation := origin.get("interpretation"):
        return _FLAGS.get(interpretation, "unusual")
    return _STATUS_FLAGS.get(str(data.get("testStatus")))


def _details(data: Document, type_: str, title: str, words: Words) -> list[tuple[str, str]]:
    found = []
    for key in _DETAILS[type_]:
        text = str(data.get(key) or "")
        if text and text != title:
            found.append(
                (words(f"label_{type_}_{key}"), words.day(text) if key in _DATES else text)
            )
    if type_ == "test" and data.get("status") in ("PRELIMINARY", "AMENDED"):
        found.append((words("label_test_status"), words(f"test_{data['status'].lower()}")))
    return found


def by_day(items: Iterable[Item]) -> list[tuple[str, list[Item]]]:
    """(day, its items), as they come."""
    return [(day, list(found)) for day, found in groupby(items, key=lambda one: one.day)]


def by_visit(items: Sequence[Item]) -> list[list[Item]]:
    """What was written down in one encounter, together; newest first."""
    visits: dict[str, list[Item]] = {}
    for one in items:
        visits.setdefault(one.encounter, []).append(one)
    return list(visits.values())


@dataclass(frozen=True, slots=True)
class Series:
    """All results of one test, newest first. `chart` None when there are not two numbers to draw."""

    name: str
    latest: Item
    items: list[Item]
    chart: Chart | None


def series(items: Iterable[Item], words: Words) -> list[Series]:
    """By name; the test with the newest result first."""
    tests: dict[str, list[Item]] = {}
    for one in items:
        tests.setdefault(one.title, []).append(one)
    return [Series(name, found[0], found, _chart(found, words)) for name, found in tests.items()]


def _chart(items: Sequence[Item], words: Words) -> Chart | None:
    """Of the newest numbers that are in the units of the latest one."""
    units = items[0].result.partition(" ")[2]
    points = list(_points(items, units))[:POINTS][::-1]
    if len(points) < 2:
        return None
    first, last = words.day(points[0][0].isoformat()), words.day(points[-1][0].isoformat())
    low, high = (
        words.quantity(f"{edge:g} {units}")
        for edge in (min(p[1] for p in points), max(p[1] for p in points))
    )
    label = words(
        "chart_label",
        test=items[0].title,
        count=len(points),
        first=first,
        last=last,
        low=low,
        high=high,
    )
    return drawn(points, first=first, last=last, low=low, high=high, label=label)


def _points(items: Iterable[Item], units: str) -> Iterator[tuple[datetime, float]]:
    for one in items:
        text, _, own = one.result.partition(" ")
        value, at = number(text), parsed(one.written)
        if value is not None and own == units and at is not None:
            yield at, value

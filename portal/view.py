"""A record as a person reads it: title, value, flag, who, where, when. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any, NamedTuple

from portal.chart import Chart, drawn
from portal.page_text import Words, number, parsed
from portal.reader_words import Usual, translated, usual, words_by_own

Document = dict[str, Any]
POINTS = 24  # how many of the newest numbers a chart shows

# The fields of `data` that say what a record is. The first one that is there is its title.
_TITLES = {
    "condition": ("diagnosis", "details", "name"),
    "medication": ("medicationName", "details", "name"),
    "test": ("testName", "name"),
    "visit": ("reason", "details", "name"),
    "image": ("imageType", "description", "name"),
}
# The fields of `data` that are shown below the title.
_DETAILS = {
    "condition": ("status", "description", "treatment"),
    "medication": ("dosage", "frequency", "description", "startDate", "endDate"),
    "test": ("description",),
    "visit": ("name",),
    "image": ("description",),
}
_DATES = frozenset({"startDate", "endDate"})
# What HL7's interpretation of a result says to a patient: a key of languages/*.yaml, after flag_.
_FLAGS = {
    "CRITICALLY_HIGH": "much_higher",
    "CRITICALLY_LOW": "much_lower",
    "HIGH": "higher",
    "LOW": "lower",
    "NORMAL": "usual",
}
# What the Passport's own testStatus says.
_STATUS_FLAGS = {"Normal": "usual", "Abnormal": "unusual", "Critical": "serious"}
_CALM = {"usual"}
_SERIOUS = {"much_higher", "much_lower", "serious"}


class Detail(NamedTuple):
    """A line below the title. `own` is the hospital's own word where `text` is another."""

    label: str
    text: str
    own: str = ""


@dataclass(frozen=True, slots=True)
class Item:
    """A record as a page shows it, in the reader's language.

    `own_title` and `own_value` are the hospital's own words, "" where they are the same. `level` is
    how loud the flag is: calm, watch or serious. `usual` says in which range a number is usual, and
    `is_compared_here` that the flag follows of that, since the hospital has stated none.
    """

    id: str
    type: str
    kind: str
    title: str
    own_title: str
    value: str
    own_value: str
    flag: str
    level: str
    usual: str
    is_compared_here: bool
    details: list[Detail]
    notes: str
    who: str
    where: str
    written: str | None
    day: str
    time: str
    encounter: str
    result: str


def item(record: Document, words: Words) -> Item:
    """Return a `medicalrecords` document, which has its `author`, as a page shows it."""
    data = record["data"]
    origin = record.get("openmrsData") or {}
    type_ = record["type"]
    of_reader = words_by_own(record.get("rows") or (), words.language)
    own_title = _title(data, type_, {}, words)
    title = _title(data, type_, of_reader, words)
    own_value = _value(data, type_, {}, words)
    value = _value(data, type_, of_reader, words)
    stated = _flag(data, origin)
    compared_with = usual(record)
    computed = _FLAGS.get(compared_with.computed or "") if compared_with else None
    flag = stated or computed
    places = [place for place in (origin.get("locationName"), hospital(data, words)) if place]
    written = data.get("date")
    return Item(
        id=str(record["_id"]),
        type=type_,
        kind=words(f"type_{type_}"),
        title=title,
        own_title=own_title if own_title != title else "",
        value=value,
        own_value=own_value if own_value != value else "",
        flag=words(f"flag_{flag}") if flag else "",
        level=_level(flag),
        usual=_usual_text(compared_with, words) if compared_with else "",
        is_compared_here=flag is not None and stated is None,
        details=_details(data, type_, own_title, of_reader, words),
        notes=str(data.get("notes") or ""),
        who=author(record, words),
        where=", ".join(dict.fromkeys(places)),
        written=written,
        day=words.day(written),
        time=words.time(written),
        encounter=f"{origin.get('hospitalId')}/{origin.get('encounterUuid') or record['_id']}",
        result=str(data.get("result") or ""),
    )


def _level(flag: str | None) -> str:
    if flag in _CALM:
        return "calm"
    return "serious" if flag in _SERIOUS else "watch"


def sentence(record: Document, who: str, words: Words) -> str:
    """Return all that a record says as one sentence."""
    data = record["data"]
    type_ = record["type"]
    of_reader = words_by_own(record.get("rows") or (), words.language)
    title = _title(data, type_, of_reader, words)
    value = _value(data, type_, of_reader, words)
    if value:
        title = f"{title}: {value}"
    return words(f"sentence_{type_}", title=title, who=who, hospital=hospital(data, words))


def author(record: Document, words: Words) -> str:
    return str(record["data"].get("doctor") or record.get("author") or words("unknown_author"))


def hospital(data: Document, words: Words) -> str:
    return str(data.get("hospital") or words("unknown_hospital"))


def _title(data: Document, type_: str, of_reader: Mapping[str, str], words: Words) -> str:
    if type_ == "visit" and data.get("name") and _is_day(data):
        return translated(str(data["name"]), of_reader)
    for key in _TITLES[type_]:
        if data.get(key):
            return words.text(translated(str(data[key]), of_reader))
    return words.text(words(f"type_{type_}"))


def _value(data: Document, type_: str, of_reader: Mapping[str, str], words: Words) -> str:
    if type_ == "visit" and _is_day(data):
        return words.text(str(data["reason"]))
    if type_ != "test":
        return ""
    result = str(data.get("result") or data.get("details") or "")
    return words.quantity(translated(result, of_reader))


def _usual_text(compared_with: Usual, words: Words) -> str:
    """Return in which range the number is usual, "" if only critical bounds are known."""
    low = compared_with.range.get("low")
    high = compared_with.range.get("high")
    if low is not None and high is not None:
        return words("usual_between", low=words.number(low), high=words.number(high))
    if low is not None:
        return words("usual_from", low=words.number(low))
    if high is not None:
        return words("usual_to", high=words.number(high))
    return ""


def _is_day(visit: Document) -> bool:
    """Return whether a visit's reason is a day, such as that of the next visit."""
    return parsed(str(visit.get("reason") or "")) is not None


def _flag(data: Document, origin: Document) -> str | None:
    """Return what the laboratory said of a result."""
    if interpretation := origin.get("interpretation"):
        return _FLAGS.get(interpretation, "unusual")
    return _STATUS_FLAGS.get(str(data.get("testStatus")))


def _details(
    data: Document, type_: str, own_title: str, of_reader: Mapping[str, str], words: Words
) -> list[Detail]:
    details = []
    for key in _DETAILS[type_]:
        own = str(data.get(key) or "")
        if not own or own == own_title:
            continue
        text = words.day(own) if key in _DATES else translated(own, of_reader)
        is_other_word = key not in _DATES and text != own
        details.append(Detail(words(f"label_{type_}_{key}"), text, own if is_other_word else ""))
    if type_ == "test" and data.get("status") in ("PRELIMINARY", "AMENDED"):
        status = words(f"test_{data['status'].lower()}")
        details.append(Detail(words("label_test_status"), status))
    return details


def said_otherwise(record: Document, words: Words) -> dict[str, str]:
    """Return the fields of `data` that say something else in the reader's language, by name."""
    of_reader = words_by_own(record.get("rows") or (), words.language)
    others = {}
    for name, own in record["data"].items():
        text = translated(own, of_reader) if isinstance(own, str) else own
        if text != own:
            others[name] = text
    return others


def by_day(items: Iterable[Item]) -> list[tuple[str, list[Item]]]:
    """Return pairs (day, its items), in the order of the items."""
    return [(day, list(of_day)) for day, of_day in groupby(items, key=lambda item: item.day)]


def by_visit(items: Sequence[Item]) -> list[list[Item]]:
    """Return what was written down in each encounter, in the order of the items."""
    visits: dict[str, list[Item]] = {}
    for visit_item in items:
        visits.setdefault(visit_item.encounter, []).append(visit_item)
    return list(visits.values())


@dataclass(frozen=True, slots=True)
class Series:
    """The results of one test, newest first. `chart` is None without two numbers to draw."""

    name: str
    latest: Item
    items: list[Item]
    chart: Chart | None


def series(items: Iterable[Item], words: Words) -> list[Series]:
    """Return the results of each test. `items` come newest first, and so do the tests."""
    tests: dict[str, list[Item]] = {}
    for result in items:
        tests.setdefault(result.title, []).append(result)
    return [
        Series(name, results[0], results, _chart(results, words)) for name, results in tests.items()
    ]


def _chart(items: Sequence[Item], words: Words) -> Chart | None:
    """Return a chart of the newest numbers, as far as they have the units of the latest one."""
    units = items[0].result.partition(" ")[2]
    points = list(_points(items, units))[:POINTS]
    points.reverse()
    if len(points) < 2:
        return None
    first = words.day(points[0][0].isoformat())
    last = words.day(points[-1][0].isoformat())
    numbers = [value for _, value in points]
    low = words.quantity(f"{min(numbers):g} {units}")
    high = words.quantity(f"{max(numbers):g} {units}")
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
    """Yield (wall time, number) of each result in these units."""
    for test_item in items:
        text, _, its_units = test_item.result.partition(" ")
        value = number(text)
        at = parsed(test_item.written)
        if value is not None and its_units == units and at is not None:
            yield at, value

"""What the pages say, in the reader's language: words.yaml, dates and numbers."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from zoneinfo import ZoneInfo

import yaml

LANGUAGES = ("en", "fr")
_DATE = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d|$)")
# As hospitals write units, and as people read them.
_UNITS = {
    "DEG C": "°C",
    "10^3/uL": "×10³/µL",
    "10^6/uL": "×10⁶/µL",
    "10^9/L": "×10⁹/L",
    "beats/min": "/min",
}


@cache
def catalogue() -> Mapping[str, Mapping[str, str]]:
    """key -> language -> text."""
    text = (files("portal") / "words.yaml").read_text(encoding="utf-8")
    loaded: dict[str, dict[str, str]] = yaml.safe_load(text)
    return loaded


def chosen(accept_language: str) -> str:
    """The language of LANGUAGES that a browser likes best; English when it likes none."""
    liked: dict[str, float] = {}
    for part in accept_language.split(",")[:20]:
        name, _, weight = part.strip().lower().partition(";q=")
        language = name.partition("-")[0]
        liked[language] = max(liked.get(language, 0), _weight(weight))
    best = max(LANGUAGES, key=lambda one: liked.get(one, 0))
    return best if liked.get(best, 0) > 0 else "en"


def _weight(text: str) -> float:
    try:
        return float(text or 1)
    except ValueError:
        return 0


@dataclass(frozen=True, slots=True)
class Words:
    """One language's words: ``words("sign_in")``."""

    language: str

    def __call__(self, key: str, **values: object) -> str:
        return catalogue()[key][self.language].format(**values)

    def day(self, written: str | None) -> str:
        """``6 November 2025`` of a wall time; a text that is no date as it is."""
        at = parsed(written)
        if at is None:
            return written or self("no_date")
        first = "1er" if self.language == "fr" and at.day == 1 else str(at.day)
        return f"{first} {self('months').split()[at.month - 1]} {at.year}"

    def time(self, written: str | None) -> str:
        """``10:30``; nothing when only the day is known."""
        at = parsed(written)
        return (
            f"{at:%H:%M}"
            if at and len(written or "") > 10 and (at.hour, at.minute) != (0, 0)
            else ""
        )

    def moment(self, at: datetime, timezone: str) -> str:
        """An instant in a hospital's zone: ``today, 14:05``."""
        zone = ZoneInfo(timezone)
        here, today = at.astimezone(zone), datetime.now(zone).date()
        day = self("today") if here.date() == today else self.day(here.date().isoformat())
        return f"{day}, {here:%H:%M}"

    def text(self, text: str) -> str:
        """As it is, but a date (some answers are) as people write it."""
        if not _DATE.match(text):
            return text
        return ", ".join(part for part in (self.day(text), self.time(text)) if part)

    def quantity(self, text: str) -> str:
        """A result with its units as people read them."""
        if _DATE.match(text):
            return self.text(text)
        value, _, units = text.partition(" ")
        shown = (
            value.replace(".", ",")
            if self.language == "fr" and number(value) is not None
            else value
        )
        return f"{shown} {_UNITS.get(units, units)}".strip()


def parsed(written: str | None) -> datetime | None:
    """A wall time as hospitals and the Passport write them; without a zone."""
    try:
        return datetime.fromisoformat(written or "").replace(tzinfo=None)
    except ValueError:
        return None


def number(text: str) -> float | None:
    try:
        found = float(text)
    except ValueError:
        return None
    return found if abs(found) < 1e12 else None


def utc(at: datetime) -> datetime:
    """As MongoDB gives instants, with their zone."""
    return at if at.tzinfo else at.replace(tzinfo=UTC)

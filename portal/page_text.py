"""Says what the pages say in the reader's language: texts of languages/*.yaml, dates, numbers."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Literal, get_args
from zoneinfo import ZoneInfo

import yaml

Language = Literal["en", "fr", "rw"]
LANGUAGES: tuple[Language, ...] = get_args(Language)
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
    """Return the texts of the pages by language and then by key: one file a language."""
    texts: dict[str, dict[str, str]] = {}
    for language in LANGUAGES:
        file = files("portal") / "languages" / f"{language}.yaml"
        texts[language] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return texts


def chosen(accept_language: str) -> str:
    """Return which of LANGUAGES a browser likes best. English if it likes none of them.

    `accept_language` is that header, such as ``fr-RW,fr;q=0.9,en;q=0.5``.
    """
    liked: dict[str, float] = {}
    for part in accept_language.split(",")[:20]:
        name, _, weight = part.strip().lower().partition(";q=")
        language = name.partition("-")[0]
        liked[language] = max(liked.get(language, 0), _weight(weight))
    best = max(LANGUAGES, key=lambda language: liked.get(language, 0))
    return best if liked.get(best, 0) > 0 else "en"


def _weight(text: str) -> float:
    try:
        return float(text or 1)
    except ValueError:
        return 0


@dataclass(frozen=True, slots=True)
class Words:
    """The page text in one language: ``words("sign_in")``."""

    language: str

    def __call__(self, key: str, **values: object) -> str:
        return catalogue()[self.language][key].format(**values)

    def day(self, written: str | None) -> str:
        """Return a wall time's day as ``6 November 2025``. Another text stays as it is."""
        at = parsed(written)
        if at is None:
            return written or self("no_date")
        first = "1er" if self.language == "fr" and at.day == 1 else str(at.day)
        return f"{first} {self('months').split()[at.month - 1]} {at.year}"

    def time(self, written: str | None) -> str:
        """Return a wall time's time as ``10:30``, or nothing when only the day is known."""
        at = parsed(written)
        if at is None or len(written or "") <= len("2025-11-06"):
            return ""
        # Many hospitals write midnight where they know the day alone.
        is_midnight = (at.hour, at.minute) == (0, 0)
        return "" if is_midnight else f"{at:%H:%M}"

    def moment(self, at: datetime, timezone: str) -> str:
        """Return an instant in a hospital's zone, as ``today, 14:05``."""
        zone = ZoneInfo(timezone)
        local = at.astimezone(zone)
        is_today = local.date() == datetime.now(zone).date()
        day = self("today") if is_today else self.day(local.date().isoformat())
        return f"{day}, {local:%H:%M}"

    def text(self, text: str) -> str:
        """Return a text as it is, but a date, which some answers are, as people write it."""
        if not _DATE.match(text):
            return text
        return ", ".join(part for part in (self.day(text), self.time(text)) if part)

    def number(self, number: float) -> str:
        """Return a number without needless zeros."""
        text = repr(float(number)).removesuffix(".0")
        return text.replace(".", ",") if self.language == "fr" else text

    def quantity(self, text: str) -> str:
        """Return a result with its units as people read them."""
        if _DATE.match(text):
            return self.text(text)
        value, _, units = text.partition(" ")
        if self.language == "fr" and number(value) is not None:
            value = value.replace(".", ",")
        return f"{value} {_UNITS.get(units, units)}".strip()


def parsed(written: str | None) -> datetime | None:
    """Return a wall time as hospitals and the Passport write it, None for another text."""
    try:
        return datetime.fromisoformat(written or "").replace(tzinfo=None)
    except ValueError:
        return None


def number(text: str) -> float | None:
    """Return the number that a text is, or None. Infinity and what is huge are no results."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) < 1e12 else None


def utc(at: datetime) -> datetime:
    """Return an instant of MongoDB with its zone, which a client may have left out."""
    return at if at.tzinfo else at.replace(tzinfo=UTC)

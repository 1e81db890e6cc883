"""Reads a national id from what a hospital's clerk typed, or refuses to.

A wrong guess shows one patient's values to another. So only digits and what separates them are
read: ``B/O 1199080012345678`` ("baby of") is not the mother's id, though all its digits are hers.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

LENGTHS = range(10, 17)
"""How many digits the Passport's national ids have."""

# Spaces, dots, dashes and slashes may stand between digits, and white space around them.
_WRITTEN = re.compile(r"\s*[0-9]+(?:[ ./-]+[0-9]+)*\s*", re.ASCII)
_SEPARATORS = re.compile(r"[ ./-]")

# OpenMRS compares with Java's regular expressions. These parts of them mean the same in Python. An
# expression that repeats what repeats could take for ever, so a group isn't repeated, and only a
# few parts may have a number of repetitions that varies.
_CLASS = r"\[\^?(?:\\[dws./-]|(?!&&)[^\[\]\\])+\]"
_REPEATED = r"(?:[?*+]|\{[0-9]{1,2}(?:,[0-9]{0,2})?\})?"
_PART = rf"(?:{_CLASS}|\\[dws./-]|[0-9A-Za-z_ /:,#.-]){_REPEATED}"
_GROUP = rf"\((?:\?:)?(?:{_PART}|\|)+\)\??"
_UNDERSTOOD = re.compile(rf"\^?(?:{_PART}|{_GROUP}|\|)+\$?")
_VARYING = re.compile(r"[?*+]|\{[0-9]+,[0-9]*\}")
_MOST_VARYING = 4

LUHN = frozenset(
    {
        "org.openmrs.patient.impl.LuhnIdentifierValidator",
        "org.openmrs.module.idgen.validator.LuhnMod10IdentifierValidator",
    }
)
"""The validators of OpenMRS that compare a Luhn check digit, which is the last digit."""


def read_national_id(written: str) -> str | None:
    """Return the 10 to 16 digits of a national id: ``1-1990 8...`` -> ``119908...``.

    Return None if it has letters or other signs, or another number of digits.
    """
    if not _WRITTEN.fullmatch(written):
        return None
    digits = _SEPARATORS.sub("", written.strip())
    return digits if len(digits) in LENGTHS else None


def has_luhn_digit(digits: str) -> bool:
    """Return whether the last digit is the Luhn check digit of the others."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit)
        if place % 2 == 1:
            value *= 2
            if value > 9:
                value -= 9
        total += value
    return total % 10 == 0


@dataclass(frozen=True, slots=True)
class IdentifierType:
    """A hospital's type of national ids: what OpenMRS itself demands of one.

    `format` is a Java regular expression, and `validator` a Java class. "" stands for none. One
    that isn't known here is not asked for; `passport check` says so.
    """

    type_id: int
    format: str
    validator: str

    def reader(self) -> Callable[[str], str | None]:
        """Return a function like `read_national_id` that refuses what OpenMRS would refuse.

        A format may describe the id with separators or without. So it fits if it fits either the
        text as it was written or the digits alone.
        """
        pattern = compiled_format(self.format)
        must_have_luhn_digit = self.validator in LUHN

        def read(written: str) -> str | None:
            digits = read_national_id(written)
            if digits is None:
                return None
            if pattern is not None:
                is_fitting = pattern.fullmatch(digits) or pattern.fullmatch(written.strip())
                if not is_fitting:
                    return None
            if must_have_luhn_digit and not has_luhn_digit(digits):
                return None
            return digits

        return read

    def not_understood(self) -> str:
        """Return which of the two is there but not asked for: "", ``format`` or ``validator``."""
        if self.format.strip() and compiled_format(self.format) is None:
            return "format"
        if self.validator.strip() and self.validator not in LUHN:
            return "validator"
        return ""


@lru_cache(256)  # few formats, asked for with each batch of persons
def compiled_format(java_format: str) -> re.Pattern[str] | None:
    """Return a Java regular expression as Python's; None if it is blank or not understood."""
    if not java_format.strip() or not _UNDERSTOOD.fullmatch(java_format):
        return None
    if len(_VARYING.findall(java_format)) > _MOST_VARYING:
        return None
    try:
        return re.compile(java_format, re.ASCII)
    except re.error:
        return None

"""What verifying found: numbers and keys, never a value."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

KEPT = 100  # keys of each kind in a report, and
KEPT_OF_A_PERSON = 10

Kind = Literal["missing", "extra", "different"]
Level = Literal["record", "mirror"]
KINDS: tuple[Kind, ...] = ("missing", "extra", "different")


def _none() -> dict[Kind, int]:
    return dict.fromkeys(KINDS, 0)


def _no_keys() -> dict[Kind, list[str]]:
    return {kind: [] for kind in KINDS}


@dataclass(slots=True)
class Differences:
    """`missing` in the destination, `extra` there, `different` in content; keys are
    ``<collection>/<_id>``.
    """

    counts: dict[Kind, int] = field(default_factory=_none)
    keys: dict[Kind, list[str]] = field(default_factory=_no_keys)

    def add(self, kind: Kind, keys: Iterable[str], keep: int = KEPT_OF_A_PERSON) -> None:
        for key in keys:
            self.counts[kind] += 1
            if len(self.keys[kind]) < keep:
                self.keys[kind].append(key)

    def merge(self, other: "Differences") -> None:
        for kind in KINDS:
            self.counts[kind] += other.counts[kind]
            self.keys[kind] = [*self.keys[kind], *other.keys[kind]][:KEPT]

    def __bool__(self) -> bool:
        return any(self.counts.values())


@dataclass(slots=True)
class Compared:
    """One hospital: `persons` looked at, `matched` of them, their `rows` of obs and `records`; and
    what differs.

    `asked`: people whose repair was published. `behind`: the destination had not applied what the
    hospital holds within the time given; `hint`: what to do then.
    """

    persons: int = 0
    matched: int = 0
    rows: int = 0
    records: int = 0
    missing: int = 0
    extra: int = 0
    different: int = 0
    asked: int = 0
    behind: bool = False
    hint: str = ""

    @property
    def equal(self) -> bool:
        """Something was compared, and nothing differs."""
        return self.rows > 0 and not (self.missing or self.extra or self.different)


@dataclass(slots=True)
class Report:
    """`equal`: something was compared, and nothing differs. `keys`: up to KEPT of each kind.

    At `level` mirror links and rows are compared; records only of people in whom one of these
    differs.
    """

    level: Level = "record"
    equal: bool = False
    rows: int = 0
    records: int = 0
    matched: int = 0
    missing: int = 0
    extra: int = 0
    different: int = 0
    hospitals: dict[str, Compared] = field(default_factory=dict)
    keys: dict[Kind, list[str]] = field(default_factory=_no_keys)

    def add(self, hospital_id: str, compared: Compared, found: Differences) -> None:
        """Takes one hospital's part in."""
        self.hospitals[hospital_id] = compared
        for kind in KINDS:
            setattr(compared, kind, found.counts[kind])
            self.keys[kind] = sorted([*self.keys[kind], *found.keys[kind]])[:KEPT]
        for name in ("rows", "records", "matched", *KINDS):
            setattr(self, name, sum(getattr(one, name) for one in self.hospitals.values()))
        self.equal = self.rows > 0 and not (self.missing or self.extra or self.different)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def as_text(self) -> str:
        """A line a hospital, then the keys that differ."""
        lines = [_line(hospital_id, one) for hospital_id, one in self.hospitals.items()]
        lines += [f"{kind}: {key}" for kind, keys in self.keys.items() for key in keys]
        if not self.rows:
            lines.append("nothing was compared: nobody of these hospitals is matched")
        what = "" if self.level == "record" else ": links and mirror; records were not looked at"
        return "\n".join([*lines, ("equal" if self.equal else "NOT equal") + what])


def _line(hospital_id: str, one: Compared) -> str:
    numbers = (
        f"{one.matched} matched of {one.persons} persons, {one.rows} rows, {one.records} records"
    )
    wrong = f"{one.missing} missing, {one.extra} extra, {one.different} different"
    late = f" (behind: {one.hint})" if one.behind else ""
    repair = f"; {one.asked} people are read whole again, verify once more" if one.asked else ""
    return f"{hospital_id}: {numbers}; {wrong}{late}{repair}"

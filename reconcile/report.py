"""Reports what verifying has found: numbers and keys, never a value."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from bson import ObjectId

# How many keys of each kind are kept: in a report, and of one person.
KEPT = 100
KEPT_OF_A_PERSON = 10

Kind = Literal["missing", "extra", "different"]
Level = Literal["record", "mirror"]
KINDS: tuple[Kind, ...] = ("missing", "extra", "different")


def _no_counts() -> dict[Kind, int]:
    return dict.fromkeys(KINDS, 0)


def _no_keys() -> dict[Kind, list[str]]:
    return {kind: [] for kind in KINDS}


@dataclass(slots=True)
class Differences:
    """The differences of one person, or of several.

    A document is `missing` in the destination, `extra` there, or `different` in content. Keys are
    ``<collection>/<_id>``. `extra_records` are the _ids of all records that are extra.
    """

    counts: dict[Kind, int] = field(default_factory=_no_counts)
    keys: dict[Kind, list[str]] = field(default_factory=_no_keys)
    extra_records: set[ObjectId] = field(default_factory=set)

    def add(self, kind: Kind, keys: Iterable[str], keep: int = KEPT_OF_A_PERSON) -> None:
        """Count all of the keys, and keep the first ones."""
        for key in keys:
            self.counts[kind] += 1
            if len(self.keys[kind]) < keep:
                self.keys[kind].append(key)

    def merge(self, other: "Differences") -> None:
        """Add the differences of somebody else."""
        for kind in KINDS:
            self.counts[kind] += other.counts[kind]
            self.keys[kind] = [*self.keys[kind], *other.keys[kind]][:KEPT]
        self.extra_records |= other.extra_records

    def __bool__(self) -> bool:
        return any(self.counts.values())


@dataclass(slots=True)
class Compared:
    """The numbers of one hospital.

    `persons` were looked at, of whom `matched` have `rows` and `records`. `missing`, `extra` and
    `different` count what differs. `asked` is the number of people whose repair was published, and
    `removed` that of the extra records that went by it. `behind` says that the destination didn't
    apply in time what the hospital holds; `hint` is what to do then.
    """

    persons: int = 0
    matched: int = 0
    rows: int = 0
    records: int = 0
    missing: int = 0
    extra: int = 0
    different: int = 0
    asked: int = 0
    removed: int = 0
    behind: bool = False
    hint: str = ""

    @property
    def equal(self) -> bool:
        """Return whether somebody's rows were compared, and nothing differs."""
        return self.rows > 0 and not (self.missing or self.extra or self.different)


@dataclass(slots=True)
class Report:
    """The numbers of all hospitals together. `keys` are up to KEPT of each kind.

    `removed` are the keys, up to KEPT, of the extra records that were removed.

    `equal` says that rows of every hospital were compared, and nothing differs. At `level` mirror
    that is links and rows; records only of people in whom one of these differs.
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
    removed: list[str] = field(default_factory=list)

    def add(
        self,
        hospital_id: str,
        compared: Compared,
        differences: Differences,
        removed: Iterable[ObjectId] = (),
    ) -> None:
        """Add the numbers and the differences of one hospital, and the records `removed` of it."""
        compared.missing = differences.counts["missing"]
        compared.extra = differences.counts["extra"]
        compared.different = differences.counts["different"]
        self.hospitals[hospital_id] = compared

        self.rows += compared.rows
        self.records += compared.records
        self.matched += compared.matched
        self.missing += compared.missing
        self.extra += compared.extra
        self.different += compared.different
        for kind in KINDS:
            self.keys[kind] = sorted([*self.keys[kind], *differences.keys[kind]])[:KEPT]
        removed_keys = [f"medicalrecords/{key}" for key in removed]
        self.removed = sorted([*self.removed, *removed_keys])[:KEPT]
        self.equal = all(of_hospital.equal for of_hospital in self.hospitals.values())

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def as_text(self) -> str:
        """Return a line for each hospital, the keys that differ, what to do, and the verdict."""
        lines = [_line(hospital_id, compared) for hospital_id, compared in self.hospitals.items()]
        for kind, keys in self.keys.items():
            lines += [f"{kind}: {key}" for key in keys]
        lines += [f"removed: {key}" for key in self.removed]
        for hospital_id, compared in self.hospitals.items():
            if not compared.rows:
                lines.append(f"{hospital_id}: nothing was compared, because nobody is matched")
            differs = compared.missing or compared.extra or compared.different
            if differs and not compared.behind and not compared.asked:
                command = f"passport verify --repair --hospital {hospital_id}"
                lines.append(f"{command}   # repairs what differs, and removes what is extra")
        verdict = "equal" if self.equal else "NOT equal"
        if self.level == "mirror":
            verdict += ": links and mirror; records were not looked at"
        return "\n".join([*lines, verdict])


def _line(hospital_id: str, compared: Compared) -> str:
    line = (
        f"{hospital_id}: {compared.matched} matched of {compared.persons} persons, "
        f"{compared.rows} rows, {compared.records} records; {compared.missing} missing, "
        f"{compared.extra} extra, {compared.different} different"
    )
    if compared.behind:
        line += f" (behind: {compared.hint})"
    if compared.asked:
        line += f"; {compared.asked} people are read whole again, verify once more"
    if compared.removed:
        line += f"; {compared.removed} extra records are removed"
    return line

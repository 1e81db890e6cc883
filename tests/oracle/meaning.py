"""What the live rows of one person say, exactly by docs/reference/records.md."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.oracle.facts import Concept
from tests.oracle.rulebook import Rulebook, called

Obs = dict[str, Any]
Parts = dict[str, list[Obs]]
Spec = Mapping[str, Any]  # a group or a rule of the file

CLAIMS = ("condition", "medication", "allergy", "vaccination")
TYPES = {
    "condition": "condition",
    "allergy": "condition",
    "medication": "medication",
    "test": "test",
    "finding": "test",
    "family_history": "test",
    "note": "test",
    "visit": "visit",
    "order": "visit",
    "vaccination": "visit",
}
NEVER_MEDICINE = {
    "Diagnosis",
    "Symptom",
    "Symptom/Finding",
    "Finding",
    "Test",
    "LabSet",
    "Procedure",
    "Radiology/Imaging Procedure",
    "Question",
    "Units of Measure",
}
NEVER = {
    "condition": {
        "Drug",
        "MedSet",
        "Pharmacologic Drug Class",
        "Test",
        "LabSet",
        "Procedure",
        "Radiology/Imaging Procedure",
        "Units of Measure",
        "Frequency",
    },
    "medication": NEVER_MEDICINE,
    "vaccination": NEVER_MEDICINE - {"Procedure"},
    "allergy": {"Test", "LabSet", "Procedure", "Question", "Units of Measure"},
}
NOTHING = ("no", "none", "none_known", "unknown")
UPPER = {"CIEL:5085", "LOINC:8480-6", "SNOMED CT:271649006"}
LOWER = {"CIEL:5086", "LOINC:8462-4", "SNOMED CT:271650006"}


@dataclass
class Saying:
    """What rows say together. `named`: by the question. `panel`: the parent that names it."""

    kind: str
    state: str
    anchor: Obs
    stating: list[Obs]
    parts: Parts = field(default_factory=dict)
    named: bool = False
    panel: Obs | None = None
    pressure: bool = False
    understood: bool = True

    @property
    def type(self) -> str | None:
        return TYPES.get(self.kind)

    @property
    def unmapped(self) -> bool:
        return self.kind == "detail" or not self.understood


class Sayings:
    """`value_kind` and `words` of a row: None without a value, or where it isn't words."""

    def __init__(
        self,
        live: Mapping[int, Obs],
        rules: Rulebook,
        concepts: Mapping[int, Concept],
        value_kind: Callable[[Obs], str | None],
        words: Callable[[Obs], str | None],
        first: Callable[[Obs], int],
    ) -> None:
        self.live, self.rules, self.concepts = live, rules, concepts
        self.value_kind, self.words = value_kind, words
        self.ranks = {row["obs_id"]: (first(row), row["obs_id"]) for row in live.values()}

    def all(self) -> Iterator[Saying]:
        members: dict[int, list[Obs]] = {}
        loose: list[Obs] = []
        for row in sorted(self.live.values(), key=self.rank):
            if self.value_kind(row) is None:
                continue
            header = self.header(row)
            if header is None:
                loose.append(row)
            elif self.rules.role(self.spec(header), row) or closed(self.spec(header)):
                members.setdefault(header["obs_id"], []).append(row)
            else:
                loose.append(row)
        headers = {key: self.live[key] for key in members}
        for key, rows in members.items():
            yield from self.of_group(headers[key], rows)
        # A header with members makes nothing by its own question.
        yield from self.of_loose([row for row in loose if row["obs_id"] not in headers])

    def rank(self, row: Obs) -> tuple[int, int]:
        return self.ranks[row["obs_id"]]

    def spec(self, header: Obs) -> Spec:
        group = self.rules.group(header)
        assert group is not None
        return group

    def above(self, row: Obs) -> Iterator[Obs]:
        seen = {row["obs_id"]}
        parent = self.live.get(row["obs_group_id"])
        while parent is not None and parent["obs_id"] not in seen:
            seen.add(parent["obs_id"])
            yield parent
            parent = self.live.get(parent["obs_group_id"])

    def header(self, row: Obs) -> Obs | None:
        headers = [one for one in self.above(row) if self.rules.group(one) is not None]
        shut = [one for one in headers if closed(self.spec(one))]
        if shut:
            return shut[-1]
        if self.rules.group(row) is not None:
            return None
        return headers[0] if headers else None

    # -- groups

    def of_group(self, header: Obs, rows: list[Obs]) -> Iterator[Saying]:
        group = self.spec(header)
        roles = [(self.rules.role(group, row), row) for row in rows]
        values = [row for role, row in roles if role == "value"]
        others = [row for role, row in roles if role is None or not values]
        if self.value_kind(header):
            others.append(header)
        elses = "somebody_else" if group["kind"] == "family_history" else group["kind"]
        for row in others:
            yield Saying(elses if closed(group) else "detail", "present", row, [row])
        if not values:
            return
        told = [(role, row) for role, row in roles if role is not None]
        if group["kind"] in (*CLAIMS, "family_history"):
            for number, value in enumerate(values):
                anchor = header if number == 0 else value
                yield self.decided(group, "which", anchor, [value], self.share(told, values, value))
        else:
            parts = self.share(told, values[:1], values[0])
            yield self.decided(group, "which", header, values, parts)

    def share(self, told: Sequence[tuple[str, Obs]], values: Sequence[Obs], value: Obs) -> Parts:
        """The parts of one of the values."""
        place = [one["obs_id"] for one in values].index(value["obs_id"])
        parts: Parts = {}
        for role in dict.fromkeys(role for role, _ in told if role != "value"):
            rows = [row for one, row in told if one == role]
            if role == "specimen" or len(values) == 1:
                parts[role] = rows
            elif len(rows) == len(values):
                parts[role] = [rows[place]]
            else:
                parts[role] = [row for row in rows if self.owner(row, told, values) == place]
        return {role: rows for role, rows in parts.items() if rows}

    def owner(self, part: Obs, told: Sequence[tuple[str, Obs]], values: Sequence[Obs]) -> int:
        before = [value for value in values if self.rank(value) < self.rank(part)]
        if told[0][0] == "value":
            return len(before) - 1
        return min(len(before), len(values) - 1)

    # -- rows that stand alone

    def of_loose(self, rows: list[Obs]) -> Iterator[Saying]:
        together: dict[Any, list[Obs]] = {}
        for row in rows:
            parent = self.live.get(row["obs_group_id"])
            if parent is not None:
                place: Any = parent["obs_id"]
            elif row["obs_group_id"] is None and row["encounter_id"] is not None:
                place = ("together", row["encounter_id"], row["obs_datetime"])
            else:
                place = ("alone", row["obs_id"])
            together.setdefault(place, []).append(row)
        for place, everybody in together.items():
            pressure = self.pressure(everybody)
            family = [row for row in everybody if row not in pressure]
            parent = self.live.get(place) if isinstance(place, int) else None
            panel = None
            if parent is not None and self.rules.group(parent) is None:
                kind = self.concepts[parent["concept_id"]].concept_class
                panel = parent if kind in self.rules.panels else None
            if pressure:
                yield Saying("test", "present", pressure[0], pressure, panel=panel, pressure=True)
            for saying in self.of_family(family, parent is not None):
                saying.panel = panel
                yield saying

    def of_family(self, rows: list[Obs], share: bool) -> Iterator[Saying]:
        roles = {row["obs_id"]: self.rules.beside(row) for row in rows}
        bearers = [
            row
            for row in rows
            if share
            and roles[row["obs_id"]] is None
            and (rule := self.rules.rule(row)) is not None
            and rule["kind"] in (*CLAIMS, "family_history", "test", "finding")
        ]
        told: list[tuple[str, Obs]] = []
        for row in rows:
            role = "value" if row in bearers else roles[row["obs_id"]]
            if role is not None:
                told.append((role, row))
        for row in rows:
            if row in bearers:
                yield self.by_rule(row, self.share(told, bearers, row))
            elif not bearers or roles[row["obs_id"]] is None:
                yield self.by_rule(row, {})

    def by_rule(self, row: Obs, parts: Parts) -> Saying:
        rule = self.rules.rule(row)
        if rule is not None:
            return self.decided(rule, "anything", row, [row], parts)
        said = self.says(row)
        kind = "negated" if said in NOTHING else "test" if said == "result" else "note"
        return Saying(kind, "present", row, [row], understood=False)

    def pressure(self, rows: list[Obs]) -> list[Obs]:
        pair = []
        for codes in (UPPER, LOWER):
            fitting = [row for row in rows if called(self.concepts[row["concept_id"]]) & codes]
            if len(fitting) != 1 or self.value_kind(fitting[0]) != "numeric":
                return []
            rule = self.rules.rule(fitting[0])
            if rule is None or rule["kind"] != "test":
                return []
            pair += fitting
        return pair

    # -- what is said

    def says(self, row: Obs) -> str:
        return self.rules.says(row, self.words(row))

    def decided(
        self, spec: Spec, usual: str, anchor: Obs, stating: list[Obs], parts: Parts
    ) -> Saying:
        kind, state = spec["kind"], spec.get("state", "present")
        asks = spec.get("asks", usual)
        saying = Saying(kind, state, anchor, stating, parts)
        if kind in CLAIMS:
            for role, rows in parts.items():
                for row in rows:
                    told = self.says(row)
                    if withdrawn(role, told):
                        saying.kind = "negated"
                        return saying
                    if role == "relation" and told not in NOTHING:
                        saying.kind = "family_history"
                        return saying
                    if role in ("status", "certainty") and told in ("past", "suspected"):
                        saying.state = told
        self.answered(saying, spec, asks)
        return saying

    def answered(self, saying: Saying, spec: Spec, asks: str) -> None:
        """What the answer makes of it."""
        kind, value = saying.kind, saying.stating[0]
        said, question = self.says(value), self.concepts[value["concept_id"]]
        if kind == "allergy" and (
            said == "none_known" or (said in ("no", "none") and spec.get("if_no") == "none_known")
        ):
            saying.state = "none_known"
            return
        is_result = (
            kind == "test"
            and said == "none"
            and question.concept_class == "Test"
            and question.datatype == "Coded"
            and self.value_kind(value) == "coded"
        )
        doubtful = False
        if said in NOTHING and not is_result:
            saying.kind = "negated"
        elif kind == "test":
            doubtful = said == "yes"
        elif kind in CLAIMS and asks == "which":
            never = ("yes", "result", "past", "suspected", "ruled_out")
            doubtful = said in never or self.unfit(kind, value)
        elif kind in CLAIMS and (said == "yes" or (asks, kind) == ("whether", "vaccination")):
            saying.named = True
        elif kind in CLAIMS and asks == "whether":
            saying.named = said in ("past", "suspected")
            saying.state = said if saying.named else saying.state
            doubtful = not saying.named
        if doubtful:
            saying.kind, saying.state, saying.understood = "note", "present", False

    def unfit(self, kind: str, row: Obs) -> bool:
        answer = self.concepts.get(row["value_coded"])
        in_words = self.value_kind(row) in ("coded", "drug", "boolean", "text")
        return not in_words or (answer is not None and answer.concept_class in NEVER[kind])


def closed(group: Spec) -> bool:
    return "value" not in group or group["kind"] in ("family_history", "somebody_else")


def withdrawn(role: str, said: str) -> bool:
    return (
        (role == "revised" and said == "yes")
        or (role == "present" and said in (*NOTHING, "ruled_out"))
        or (role in ("status", "certainty") and said in ("no", "none", "ruled_out"))
    )

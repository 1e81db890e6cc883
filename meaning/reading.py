"""Decides what the live rows of a person say. Pure: no I/O, no clock."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from meaning.facts import Fact, Kind, Row, State
from meaning.rules import Answer, Decision, Group, MappingRules, Rule

# What is said of a patient by naming it. It takes more than an answer to state one of these: the
# question must ask for it, and the answer must be one that can be asked for.
CLAIMS: frozenset[Kind] = frozenset({"condition", "medication", "allergy", "vaccination"})
# Several values of one group of these kinds are as many records.
SPLIT: frozenset[Kind] = CLAIMS | {"family_history"}
_TOLD_MORE_OF: frozenset[Kind] = SPLIT | {"test", "finding"}
_NOTHING: frozenset[Answer] = frozenset({"no", "none", "none_known", "unknown"})
# Answers that say something of a thing, and are never its name.
_NO_NAMES: frozenset[Answer] = frozenset({"yes", "result", "past", "suspected", "ruled_out"})
# An answer of these classes can't be what was asked for: hospitals use questions for other things.
_NO_CONDITIONS = frozenset({"Drug", "MedSet", "Pharmacologic Drug Class", "Test", "LabSet"})
_NO_CONDITIONS |= {"Procedure", "Radiology/Imaging Procedure", "Units of Measure", "Frequency"}
_NO_MEDICINES = frozenset({"Diagnosis", "Symptom", "Symptom/Finding", "Finding", "Test", "LabSet"})
_NO_MEDICINES |= {"Procedure", "Radiology/Imaging Procedure", "Question", "Units of Measure"}
_UNFIT: Mapping[Kind, frozenset[str]] = {
    "condition": _NO_CONDITIONS,
    "medication": _NO_MEDICINES,
    "allergy": frozenset({"Test", "LabSet", "Procedure", "Question", "Units of Measure"}),
    "vaccination": _NO_MEDICINES - {"Procedure"},
}
# The values in which a claim can be stated.
_STATED_IN = frozenset({"coded", "text", "drug", "boolean"})

SYSTOLIC = frozenset({"CIEL:5085", "LOINC:8480-6", "SNOMED CT:271649006"})
DIASTOLIC = frozenset({"CIEL:5086", "LOINC:8462-4", "SNOMED CT:271650006"})
BLOOD_PRESSURE = "blood pressure"


def read(rows: Iterable[Row], rules: MappingRules) -> list[Fact]:
    """Return the facts of live rows, in no order: all of a person, or whole groups and moments.

    Each row that has a value is the anchor, states a value or is a part of at least one fact.
    """
    return _Reading(rows, rules).facts()


def measures_pressure(mappings: Iterable[str]) -> bool:
    """Return whether a concept with these mappings is one of the two numbers of a blood pressure.

    This is no rule of a file: it also decides which rows are looked at together.
    """
    codes = set(mappings)
    return not (codes.isdisjoint(SYSTOLIC) and codes.isdisjoint(DIASTOLIC))


class _Reading:
    """The rows of one person while they are read."""

    def __init__(self, rows: Iterable[Row], rules: MappingRules) -> None:
        self.rules = rules
        self.rows = {row.key: row for row in rows}
        self.senses = {key: rules.sense(row.subject) for key, row in self.rows.items()}
        self.groups: dict[int, Group] = {}  # by header
        # By header: its members with a role, and those without one, each in their order.
        self.members: dict[int, list[tuple[str, Row]]] = {}
        self.strangers: dict[int, list[Row]] = defaultdict(list)
        self.alone: list[Row] = []

    def facts(self) -> list[Fact]:
        for key, sense in self.senses.items():
            if sense.heads is not None:
                self.groups[key] = sense.heads
                self.members[key] = []
        for row in sorted(self.rows.values(), key=lambda row: row.order):
            self._place(row)
        facts: list[Fact] = []
        for key, members in self.members.items():
            if members or self.strangers.get(key):
                facts += self._of_group(self.rows[key], members)
            elif self.rows[key].subject.value != "none" and not self._is_enclosed(key):
                # Nothing stands in it: it is a question like any other.
                self.alone.append(self.rows[key])
        facts += self._of_lone_rows()
        return facts

    # --- which rows belong together

    def _place(self, row: Row) -> None:
        """Put a row with a value to its group's members, or among those that stand alone."""
        if row.subject.value == "none":
            return
        header = self._header(row)
        if header is None:
            if row.key not in self.groups:
                self.alone.append(row)
            return
        group = self.groups[header]
        role = self.rules.role(group, row.subject) or self.senses[row.key].role
        if row.key in self.groups and not group.is_closed:
            return  # the header of a group of its own
        if role is not None:
            self.members[header].append((role, row))
        elif group.is_closed:
            self.strangers[header].append(row)
        else:
            self.alone.append(row)

    def _header(self, row: Row) -> int | None:
        """Return the nearest header above the row, or the outermost that closes its group."""
        if row.parent is None:
            return None
        nearest: int | None = None
        outermost: int | None = None
        seen = {row.key}
        above = self.rows.get(row.parent)
        while above is not None and above.key not in seen:
            group = self.groups.get(above.key)
            if group is not None:
                nearest = above.key if nearest is None else nearest
                outermost = above.key if group.is_closed else outermost
            seen.add(above.key)
            above = self.rows.get(above.parent) if above.parent is not None else None
        return nearest if outermost is None else outermost

    def _is_enclosed(self, key: int) -> bool:
        """Return whether a header belongs to a closed group, and is no question of its own."""
        header = self._header(self.rows[key])
        return header is not None and self.groups[header].is_closed

    # --- groups

    def _of_group(self, header: Row, members: Sequence[tuple[str, Row]]) -> list[Fact]:
        group = self.groups[header.key]
        values = [row for role, row in members if role == "value"]
        rest = [row for _, row in members] if not values else []
        if header.subject.value != "none":
            # Its record is the group's, so that its own value has none.
            rest.append(header)
        kind: Kind = "detail"
        why = f"it is a part of {group.name}, and not what that states"
        if group.is_closed:
            rest += self.strangers.get(header.key, [])
            kind = "somebody_else" if group.kind == "family_history" else group.kind
            why = _in(group)
        facts = [
            Fact(kind, "present", row.key, [row.key], rule=group.name, why=why) for row in rest
        ]
        if not values:
            return facts
        records = [values]
        if group.kind in SPLIT:
            records = [[value] for value in values]
        for index, stating in enumerate(records):
            # The first value is the group's own record, whose id goes by the header. The others
            # are named by themselves.
            anchor = header if index == 0 else stating[0]
            parts = _parts(members, values, index if len(records) > 1 else None)
            facts.append(self._group_fact(group, anchor, stating, parts))
        return facts

    def _group_fact(
        self, group: Group, anchor: Row, stating: Sequence[Row], parts: dict[str, list[Row]]
    ) -> Fact:
        kind, state, is_question, why = self._decided(group, stating[0], parts, _in(group))
        return Fact(
            kind=kind,
            state=state,
            anchor=anchor.key,
            stating=[row.key for row in stating],
            parts=_keys(parts),
            is_question=is_question,
            rule=group.name,
            why=why,
            understood=kind != "note",
        )

    # --- rows that stand alone

    def _of_lone_rows(self) -> list[Fact]:
        facts: list[Fact] = []
        families: dict[int | None, list[Row]] = defaultdict(list)
        for row in sorted(self.alone, key=lambda row: row.order):
            if row.parent is None and row.moment is None:
                facts.append(self._lone(row, {}, None))
            else:
                families[row.parent].append(row)
        moments: dict[str, list[Row]] = defaultdict(list)
        for parent, rows in families.items():
            # Without a parent that is there, they have nothing in common but the person.
            if parent in self.rows:
                facts += self._of_family(self.rows[parent], rows)
                continue
            for row in rows:
                if row.moment is not None:
                    moments[row.moment].append(row)
                else:
                    facts.append(self._lone(row, {}, None))
        for rows in moments.values():
            pressure = self._blood_pressure(rows, None)
            facts += pressure or [self._lone(row, {}, None) for row in rows]
        return facts

    def _of_family(self, parent: Row, rows: Sequence[Row]) -> list[Fact]:
        """Return the facts of rows that stand alone in one group."""
        sense = self.senses[parent.key]
        panel = parent.key if sense.panel and sense.heads is None else None
        pressure = self._blood_pressure(rows, panel)
        if pressure:
            taken = set(pressure[0].stating)
            rows = [row for row in rows if row.key not in taken]
        bearers = [row for row in rows if self.senses[row.key].role is None]
        claims = [row for row in bearers if self._is_told_more_of(row)]
        if not claims:
            return pressure + [self._lone(row, {}, panel) for row in rows]
        members: list[tuple[str, Row]] = []
        for row in rows:
            role = self.senses[row.key].role
            if row in claims:
                members.append(("value", row))
            elif role is not None:
                members.append((role, row))
        facts = pressure
        for row in bearers:
            parts: dict[str, list[Row]] = {}
            if row in claims:
                parts = _parts(members, claims, claims.index(row) if len(claims) > 1 else None)
            facts.append(self._lone(row, parts, panel))
        return facts

    def _is_told_more_of(self, row: Row) -> bool:
        """Return whether the parts of its group are about this row."""
        rule = self.senses[row.key].rule
        return rule is not None and rule.kind in _TOLD_MORE_OF

    def _lone(self, row: Row, parts: Mapping[str, list[Row]], panel: int | None) -> Fact:
        sense = self.senses[row.key]
        if parts:
            decision = self._by_rule(row, parts)
        else:
            if sense.alone is None:
                sense.alone = self._by_rule(row, {})
            decision = sense.alone
        kind, state, is_question, rule, why, understood = decision
        return Fact(
            kind,
            state,
            row.key,
            [row.key],
            _keys(parts) if parts else {},
            panel,
            is_question,
            rule,
            why,
            understood,
        )

    def _by_rule(self, row: Row, parts: Mapping[str, list[Row]]) -> Decision:
        """Decide by the rule of the row's question, or without one by its answer alone."""
        sense = self.senses[row.key]
        rule = sense.rule
        if rule is not None:
            why = f"the question asks for {rule.kind.replace('_', ' ')}"
            kind, state, is_question, why = self._decided(rule, row, parts, why)
            understood = kind != "note" or rule.kind == "note"
            return Decision(kind, state, is_question, rule.name, why, understood)
        why = "no rule knows the question"
        if sense.answer in _NOTHING:
            return Decision("negated", "present", False, "", why, understood=False)
        if sense.answer == "result":
            why = f"{why}, and the answer is a result"
            return Decision("test", "present", False, "", why, understood=False)
        return Decision("note", "present", False, "", why, understood=False)

    def _blood_pressure(self, rows: Sequence[Row], panel: int | None) -> list[Fact]:
        """Return the one blood pressure of rows that were measured together, or nothing."""
        upper = [row for row in rows if not SYSTOLIC.isdisjoint(row.subject.mappings)]
        lower = [row for row in rows if not DIASTOLIC.isdisjoint(row.subject.mappings)]
        both = [*upper, *lower]
        numbers = [row for row in both if row.subject.value == "numeric"]
        tests = [row for row in both if _makes(self.senses[row.key].rule, "test")]
        # Of two readings nobody can say which belongs to which.
        if len(upper) != 1 or len(lower) != 1 or len(numbers) != 2 or len(tests) != 2:
            return []
        keys = [upper[0].key, lower[0].key]
        why = "the two numbers were measured together"
        return [Fact("test", "present", keys[0], keys, panel=panel, rule=BLOOD_PRESSURE, why=why)]

    # --- what is stated

    def _decided(
        self, rule: Rule | Group, row: Row, parts: Mapping[str, list[Row]], why: str
    ) -> tuple[Kind, State, bool, str]:
        """Return the kind, the state, whether the question is what is stated, and why."""
        state = rule.state
        if rule.kind in CLAIMS:
            for role, rows in parts.items():
                for part in rows:
                    answer = self.senses[part.key].answer
                    if _is_withdrawn(role, answer):
                        stated: State = "ruled_out" if answer == "ruled_out" else state
                        return "negated", stated, False, f"{why}, and its {role} withdraws it"
                    if role == "relation" and answer not in _NOTHING:
                        return "family_history", state, False, f"{why}, and its {role} has it"
                    if role in ("status", "certainty") and answer in ("past", "suspected"):
                        state = answer
                        why = f"{why}, and its {role} says that it is {state}"
        return self._answered(rule, row, state, why)

    def _answered(
        self, rule: Rule | Group, row: Row, state: State, why: str
    ) -> tuple[Kind, State, bool, str]:
        """Return what the answer makes of a question's kind."""
        kind = rule.kind
        answer = self.senses[row.key].answer
        if kind == "allergy" and (
            answer == "none_known" or (answer in ("no", "none") and rule.if_no == "none_known")
        ):
            return kind, "none_known", False, f"{why}, and there is none"
        if answer in _NOTHING and not _is_result(kind, answer, row):
            return "negated", state, False, f"{why}, and the answer is no, or not known"
        if kind == "test" and answer == "yes":
            return "note", "present", False, f"{why}, and yes is no result"
        if kind not in CLAIMS:
            return kind, state, False, why
        if rule.asks == "which":
            if answer in _NO_NAMES or not _is_name(kind, row):
                return "note", "present", False, f"{why}, but the answer is the name of none"
            return kind, state, False, why
        if answer == "yes" or (rule.asks == "whether" and kind == "vaccination"):
            return kind, state, True, f"{why}, and the answer is yes"
        if rule.asks == "anything":
            return kind, state, False, why
        if answer in ("past", "suspected"):
            return kind, answer, True, f"{why}, and the answer says that it is {answer}"
        return "note", "present", False, f"{why}, but the answer is neither yes nor no"


def _parts(
    members: Sequence[tuple[str, Row]], values: Sequence[Row], index: int | None
) -> dict[str, list[Row]]:
    """Return the parts of the value number `index` of a group, or all parts if that is None.

    As many parts of one role as there are values belong to the values in their order. Else a part
    belongs to the value before it. A form that asks for the parts first has none before it, so
    there it belongs to the value behind it. A specimen is that of all results.
    """
    by_role: dict[str, list[Row]] = defaultdict(list)
    for role, row in members:
        if role != "value":
            by_role[role].append(row)
    if index is None:
        return dict(by_role)
    value_first = members[0][0] == "value"
    parts: dict[str, list[Row]] = {}
    for role, rows in by_role.items():
        if role == "specimen":
            parts[role] = rows
            continue
        if len(rows) == len(values):
            parts[role] = [rows[index]]
            continue
        own: list[Row] = []
        for row in rows:
            before = sum(1 for value in values if value.order < row.order)
            owner = before - 1 if value_first else min(before, len(values) - 1)
            if owner == index:
                own.append(row)
        if own:
            parts[role] = own
    return parts


def _keys(parts: Mapping[str, Sequence[Row]]) -> dict[str, list[int]]:
    return {role: [row.key for row in rows] for role, rows in parts.items()}


def _is_withdrawn(role: str, answer: Answer) -> bool:
    """Return whether a part of a group says that what the group states isn't so."""
    if role == "revised":  # another diagnosis has replaced it
        return answer == "yes"
    if role == "present":
        return answer in _NOTHING or answer == "ruled_out"
    return role in ("status", "certainty") and answer in ("no", "none", "ruled_out")


def _is_result(kind: Kind, answer: Answer, row: Row) -> bool:
    """Return whether "none" is a result: of a test that asks what there is, as protein."""
    subject = row.subject
    is_coded_test = subject.concept_class == "Test" and subject.datatype == "Coded"
    return kind == "test" and answer == "none" and is_coded_test and subject.value == "coded"


def _is_name(kind: Kind, row: Row) -> bool:
    """Return whether the answer can be the name of what was asked for."""
    return row.subject.value in _STATED_IN and row.subject.value_class not in _UNFIT[kind]


def _makes(rule: Rule | None, kind: Kind) -> bool:
    return rule is not None and rule.kind == kind


def _in(group: Group) -> str:
    return f"it stands in a group of {group.name}"

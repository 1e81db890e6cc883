"""The page docs/reference/concepts.md: what becomes of every obs of a database, by the oracle.

Each of its tables is held to a database by a test. UPDATE_DOCS=1 lets that test write it anew.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.oracle.expected import load_mapping
from tests.oracle.facts import Facts
from tests.oracle.meaning import TYPES
from tests.oracle.projection import Chart
from tests.oracle.rulebook import Rulebook

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "concepts.md"
HEAD = [
    "| concept | class | datatype | units | its obs become | obs |",
    "|---|---|---|---|---|--:|",
]
# What a patient does not see as a record of its own, and why.
HIDDEN = {
    "voided": "hidden (voided)",
    "replaced": "hidden (a later version is live)",
    "another version": "hidden (of two live versions the later one is shown)",
    "no value": "nothing: it has no value",
    "negated": "nothing: the answer is no",
    "detail": "nothing: a part of nothing",
}
# Where a member of a group is seen. Those that are not here are named by their part.
PARTS = {
    "certainty": "`status` of its condition",
    "rank": "`description` of its condition",
}
Known = tuple[str, str, str, str, str]


def becomes(facts: Facts, settings: Mapping[str, Any]) -> Counter[Known]:
    """Count the obs by concept, class, datatype, units and what they become.

    It is everybody's obs, whether the person is registered or not.
    """
    rules = Rulebook(load_mapping(), facts.concepts)
    owned: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in facts.obs.values():
        owned[row["person_id"]].append(row)
    found: Counter[Known] = Counter()
    for rows in owned.values():
        chart = Chart(facts, settings, rules, rows)
        roles = _roles(chart)
        for row in rows:
            concept = facts.concepts[row["concept_id"]]
            known = concept.name, concept.concept_class, concept.datatype, concept.units or ""
            found[*known, roles[row["obs_id"]]] += 1
    return found


def _roles(chart: Chart) -> dict[int, str]:
    """Return what each row of a person becomes, by obs_id."""
    roles: dict[int, str] = {}
    for obs_id, row in chart.rows.items():
        if row["voided"]:
            roles[obs_id] = HIDDEN["voided"]
        else:
            roles[obs_id] = HIDDEN["no value" if obs_id in chart.live else "replaced"]
    shown: dict[int, int] = {}
    for saying in chart.sayings:
        first = chart.rank(saying.anchor)
        shown[first] = max(shown.get(first, 0), saying.anchor["obs_id"])
    for saying in chart.sayings:
        stating = [row["obs_id"] for row in saying.stating]
        if shown[chart.rank(saying.anchor)] != saying.anchor["obs_id"]:
            roles |= dict.fromkeys(stating, HIDDEN["another version"])
        elif saying.anchor in saying.stating:
            roles |= dict.fromkeys(stating, _record(saying.kind))
        else:
            kind = saying.kind.replace("_", " ")
            roles[saying.anchor["obs_id"]] = f"the header of {_record(saying.kind)}"
            said = "the diagnosis" if saying.kind == "condition" else "the value"
            roles |= dict.fromkeys(stating, f"{said} of its {kind}")
            for name, members in saying.parts.items():
                part = PARTS.get(name, f"{name} of its {kind}")
                roles |= {member["obs_id"]: part for member in members}
    return roles


def _record(kind: str) -> str:
    """Return the words for a record of this kind, or why there is none."""
    if kind in HIDDEN:
        return HIDDEN[kind]
    assert kind in TYPES, f"{kind} is in no record, and nothing says why"
    article = "an" if kind[0] in "aeio" else "a"
    return f"{article} {kind.replace('_', ' ')}"


def check(heading: str, found: Counter[Known]) -> None:
    """Raise an AssertionError if the table beneath this heading says something else."""
    rows = [
        f"| {' | '.join(known)} | {count:,} |"
        for known, count in sorted(found.items(), key=lambda one: (-one[1], one[0]))
    ]
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    begin = lines.index(HEAD[0], lines.index(f"## {heading}"))
    end = begin
    while end < len(lines) and lines[end].startswith("|"):
        end += 1
    if os.environ.get("UPDATE_DOCS"):
        lines[begin:end] = HEAD + rows
        PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    else:
        assert lines[begin:end] == HEAD + rows

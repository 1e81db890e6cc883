"""Which rule of the mapping fits."""

from pathlib import Path
from typing import Any

import pytest

from destinations.mongo import rules_by_hospital
from meaning.facts import Row, Subject, codes
from meaning.reading import read
from meaning.rules import MappingRules, Matcher, fingerprint, load, parse
from passport.errors import Fatal
from passport.settings import Destination
from tests.settings import build_settings, hospital_settings, kafka_settings


def subject(name: str = "Pulse", **fields: Any) -> Subject:
    given = {
        "concept_class": "Test",
        "datatype": "Numeric",
        "mappings": (),
        "value_class": None,
    } | fields
    return Subject(name=name, **given)


@pytest.mark.parametrize(
    ("matcher", "fits"),
    [
        ({"mappings": ["CIEL:1", "CIEL:2"]}, {"mappings": ("CIEL:2", "SNOMED CT:2")}),
        ({"classes": ["Test"]}, {"concept_class": "Test"}),
        ({"datatypes": ["Numeric"]}, {"datatype": "Numeric"}),
        ({"names": ["visit DIAGNOSES"]}, {"name": "Visit Diagnoses"}),
        ({"sources": ["CIEL", "SNOMED CT"]}, {"mappings": ("PIH:1", "SNOMED CT:2")}),
        ({"value_classes": ["Drug"]}, {"value_class": "Drug"}),
        ({"values": ["CIEL:1107"]}, {"value_mappings": ("CIEL:1107", "PIH:1107")}),
        ({"classes": ["Test"], "datatypes": ["Numeric"]}, {}),
    ],
)
def test_fits(matcher: dict[str, list[str]], fits: dict[str, Any]) -> None:
    assert Matcher.model_validate(matcher).fits(subject(**fits))


@pytest.mark.parametrize(
    ("matcher", "differs"),
    [
        ({"mappings": ["CIEL:1"]}, {"mappings": ("CIEL:11", "ciel:1")}),
        ({"classes": ["Test"]}, {"concept_class": "LabSet"}),
        ({"names": ["Diagnoses"]}, {"name": "Visit Diagnoses"}),
        ({"sources": ["CIEL"]}, {"mappings": ("CIELO:1", "uuid:CIEL")}),
        ({"value_classes": ["Drug"]}, {"value_class": None}),
        ({"values": ["CIEL:1107"]}, {"mappings": ("CIEL:1107",)}),
        ({"classes": ["Test"], "datatypes": ["Coded"]}, {}),
    ],
)
def test_does_not_fit(matcher: dict[str, list[str]], differs: dict[str, Any]) -> None:
    assert not Matcher.model_validate(matcher).fits(subject(**differs))


@pytest.fixture(scope="module")
def default() -> MappingRules:
    return load()


def test_a_subject_is_remembered(default: MappingRules) -> None:
    assert default.sense(subject()) is default.sense(subject())


@pytest.mark.parametrize(
    ("uuid", "added"),
    [
        ("1271" + "A" * 32, ("CIEL:1271",)),
        ("1271" + "A" * 31, ()),
        ("A" * 36, ()),
        ("89d1ca16-c2cc-11de-8d13-0010c6dffd0f", ()),
    ],
)
def test_a_uuid_of_the_ciel_dictionary_is_a_mapping(uuid: str, added: tuple[str, ...]) -> None:
    assert codes(uuid, ["LOINC:1"]) == ("LOINC:1", *added, f"uuid:{uuid}")


def test_groups_of_the_default_mapping(default: MappingRules) -> None:
    header = default.sense(subject("Visit Diagnoses", mappings=("CIEL:159947",))).heads
    assert header is not None
    roles = {
        code: default.role(header, subject("member", mappings=(code,)))
        for code in ("CIEL:1284", "CIEL:159394", "X:1")
    }
    assert roles == {"CIEL:1284": "value", "CIEL:159394": "certainty", "X:1": None}


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"version": 3}, "version"),
        ({"version": 2, "rules": [{"kind": "test"}]}, r"rules\.0"),
        ({"version": 2, "rules": [{"kind": "image", "names": ["x"]}]}, r"rules\.0\.kind"),
        ({"version": 2, "rules": [{"kind": "test", "words": ["x"]}]}, r"rules\.0\.words"),
        ({"version": 2, "answers": {"maybe": {"names": ["x"]}}}, r"answers\.maybe"),
        ({"version": 2, "groups": [{"name": "g", "kind": "test"}]}, r"groups\.0\.header"),
        ({"version": 1, "rules": [{"type": "allergy", "names": ["x"]}]}, r"rules\.0\.type"),
        ({"version": 1, "rules": [{"type": "test", "words": ["x"]}]}, "Take this rule out"),
        ({"version": 1, "rules": [{"type": "test", "value_classes": ["x"]}]}, "Take this rule out"),
        (
            {"version": 1, "groups": [{"name": "g", "type": "test", "header": {"names": ["x"]}}]},
            r"groups\.0\.value",
        ),
    ],
)
def test_a_wrong_mapping_is_named(tmp_path: Path, wrong: dict[str, Any], named: str) -> None:
    file = tmp_path / "mapping.yaml"
    file.write_text(repr(wrong))
    with pytest.raises(Fatal, match=named) as failure:
        load(file)
    assert str(file) in failure.value.hint


@pytest.mark.parametrize("content", [None, "a: [", "just text"])
def test_what_is_no_mapping_at_all(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "mapping.yaml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(Fatal, match="mapping"):
        load(file)


def test_the_first_rule_wins(default: MappingRules) -> None:
    rules = [{"kind": "visit", "names": ["pulse"]}, {"kind": "note", "classes": ["Test"]}]
    own = parse({"version": 2, "rules": rules}, default)
    assert kind_of(own, subject()) == "visit"
    assert kind_of(own, subject("Weight")) == "note", "a hospital's own rules come first"
    assert kind_of(own, subject("Weight", concept_class="Finding")) == "finding", "and no more"


def test_a_hospitals_own_file_is_asked_first_and_for_it_alone(tmp_path: Path) -> None:
    shared = tmp_path / "shared.yaml"
    shared.write_text("version: 2\nrules:\n  - {kind: visit, names: [Pulse, Weight]}\n")
    own = tmp_path / "kigali.yaml"
    own.write_text("version: 2\nrules:\n  - {kind: note, names: [Pulse]}\n")
    destination = Destination(type="mongo", mapping=str(shared))
    hospitals = {
        "kigali": hospital_settings(mapping=str(own)),
        "butaro": hospital_settings(partition=1),
    }
    settings = build_settings(hospitals, kafka_settings("nowhere", "t"), {"passport": destination})
    rules = rules_by_hospital(settings, destination)
    kinds = {
        hospital: [kind_of(rules[hospital], subject(name)) for name in ("Pulse", "Weight", "Mood")]
        for hospital in hospitals
    }
    assert kinds == {"kigali": ["note", "visit", "test"], "butaro": ["visit", "visit", "test"]}


def test_rules_that_decide_otherwise_have_another_fingerprint(tmp_path: Path) -> None:
    file = tmp_path / "kigali.yaml"

    def of(text: str) -> str:
        file.write_text(f"version: 2\n{text}")
        return fingerprint(load(file))

    visit = '{ kind: visit, mappings: ["CIEL:1"] }'
    order = '{ kind: order, classes: ["Drug"] }'
    answers = 'answers: { past: { mappings: ["CIEL:2", "CIEL:3", "CIEL:4"] } }'
    texts = [
        "",
        f"rules: [{visit}]",
        f"rules: [{visit}, {order}]",
        f"rules: [{order}, {visit}]",
        answers,
        "panels: { classes: [Panel] }",
        "other_notes: false",
    ]
    assert len({of(text) for text in texts}) == len(texts)
    assert of(texts[1]) == of(f"# the same\nrules:\n  - {visit}")
    assert of(answers) == of('answers: { past: { mappings: ["CIEL:4", "CIEL:3", "CIEL:2"] } }')


def test_a_file_of_version_1_stands_alone(default: MappingRules) -> None:
    rules = [
        {"type": "visit", "names": ["pulse"]},
        {"type": "none", "datatypes": ["Coded"], "values": ["CIEL:1"]},
        {"type": "condition", "datatypes": ["Coded"], "value_classes": ["Diagnosis"]},
    ]
    old = parse({"version": 1, "rules": rules}, default)
    coded = subject("Found", datatype="Coded", value_class="Diagnosis")
    assert kind_of(old, subject()) == "visit"
    assert kind_of(old, coded) == "condition"
    assert kind_of(old, coded._replace(value_mappings=("CIEL:1",))) == "detail"
    assert kind_of(old, coded._replace(value_mappings=("CIEL:1066",))) == "negated"
    assert kind_of(old, subject("Weight")) == "note"
    assert not old.other_notes, "what it didn't know was in no record"


def kind_of(rules: MappingRules, asked: Subject) -> str:
    [fact] = read([Row(1, asked._replace(value="coded"))], rules)
    return fact.kind

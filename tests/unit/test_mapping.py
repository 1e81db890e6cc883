"""Which rule of the mapping fits."""

from pathlib import Path
from typing import Any

import pytest

from destinations.mongo.projection.mapping import MappingRules, Matcher, Subject, codes, load, parse
from passport.errors import Fatal


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
        ({"words": ["lab", "test"]}, {"name": "Rapid TEST result"}),
        ({"words": ["blood test"]}, {"name": "A blood test"}),
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
        ({"words": ["test"]}, {"name": "Testosterone"}),
        ({"words": ["test"]}, {"name": "Contest test_2"}),
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


@pytest.mark.parametrize(
    ("asked", "type_"),
    [
        (
            subject(
                "Chief complaint",
                mappings=("CIEL:5219",),
                datatype="Text",
                concept_class="Question",
            ),
            "visit",
        ),
        (
            subject(
                "Answered", concept_class="Question", datatype="Coded", value_class="Diagnosis"
            ),
            "condition",
        ),
        (
            subject("Answered", concept_class="Question", datatype="Coded", value_class="Drug"),
            "medication",
        ),
        (subject(), "test"),
        (subject("Weight", concept_class="Finding"), "test"),
        (subject("Drug allergies", concept_class="Finding", datatype="Text"), "medication"),
        (subject("Diagnosis certainty", concept_class="Finding", datatype="Coded"), None),
        (
            subject(
                "Certitude", concept_class="Finding", datatype="Coded", mappings=("CIEL:159394",)
            ),
            None,
        ),
        (subject("Tests ordered", concept_class="Question", datatype="Coded"), "test"),
        (
            subject("TB", concept_class="Question", datatype="Coded", mappings=("CIEL:1270",)),
            "medication",
        ),
        (
            subject("TB", datatype="Coded", mappings=("CIEL:1270",), value_mappings=("CIEL:1107",)),
            None,
        ),
        (subject("Drugstore", concept_class="Misc", datatype="Text"), None),
    ],
)
def test_the_default_mapping(default: MappingRules, asked: Subject, type_: str | None) -> None:
    assert default.sense(asked).alone == type_
    assert default.sense(asked) is default.sense(asked)


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
    assert codes(uuid, ["LOINC:1"]) == ("LOINC:1", *added)


def test_groups_of_the_default_mapping(default: MappingRules) -> None:
    header = default.sense(subject("Visit Diagnoses", mappings=("CIEL:159947",))).heads
    assert header is not None
    roles = {
        code: MappingRules.role(header, subject("member", mappings=(code,)))
        for code in ("CIEL:1284", "CIEL:159394", "X:1")
    }
    assert roles == {"CIEL:1284": "value", "CIEL:159394": "certainty", "X:1": None}


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"version": 2}, "version"),
        ({"version": 1, "rules": [{"type": "test"}]}, r"rules\.0"),
        ({"version": 1, "rules": [{"type": "allergy", "words": ["x"]}]}, r"rules\.0\.type"),
        ({"version": 1, "rules": [{"type": "test", "word": ["x"]}]}, r"rules\.0\.word"),
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


def test_the_first_rule_wins() -> None:
    rules = [{"type": "visit", "words": ["pulse"]}, {"type": "test", "classes": ["Test"]}]
    assert parse({"version": 1, "rules": rules}).sense(subject()).alone == "visit"

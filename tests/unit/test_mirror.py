"""The mirror's document of a row: names, ranges, and documents of an earlier release."""

from typing import Any

import bson
from msgspec.structs import replace

from destinations.mongo import mirror
from passport.facts import Interpretation, ReferenceRange, Value
from reconcile import differences
from tests.observations import DIAGNOSIS, MALARIA, PULSE, coded, number, obs

QUESTION = replace(DIAGNOSIS, names=(("en", "PROBLEM LIST"), ("fr", "Liste de problèmes")))
ANSWER = replace(MALARIA, names=(("en", "Malaria"), ("fr", "Paludisme"), ("rw", "Malaria")))
DIAGNOSED = obs(1, 100, QUESTION, replace(coded(ANSWER), names=ANSWER.names))
RANGE = ReferenceRange(None, 40.0, 55.0, 100.0, None, 230.0, "obs")
COUNTED = obs(
    2,
    100,
    PULSE,
    replace(number(120), reference_range=RANGE, interpretation=Interpretation("HIGH", "range")),
)


def written(document: mirror.SealedDocument) -> dict[str, Any]:
    """Return the document as MongoDB gives it back."""
    return bson.decode(document.written.raw)


def test_only_names_that_differ_are_kept_each_once() -> None:
    document = written(mirror.document(DIAGNOSED))
    assert document["concept"]["names"] == {"fr": "Liste de problèmes"}
    assert document["value"]["names"] == {"fr": "Paludisme"}
    assert "names" not in document["value"]["concept"]
    assert "names" not in written(mirror.document(COUNTED))["concept"]


def test_a_number_has_the_bounds_that_there_are() -> None:
    value = written(mirror.document(COUNTED))["value"]
    assert value["range"] == {
        "lowCritical": 40.0,
        "low": 55.0,
        "high": 100.0,
        "highAbsolute": 230.0,
        "source": "obs",
    }
    assert value["computed"] == "HIGH"


def test_what_the_hospital_states_is_in_the_row_alone() -> None:
    stated = Value("numeric", "120", 120.0, interpretation=Interpretation("LOW", "obs"))
    document = written(mirror.document(obs(2, 100, PULSE, stated, interpretation="LOW")))
    assert "computed" not in document["value"]
    assert document["row"]["interpretation"] == "LOW"


def test_a_document_of_the_last_release_is_as_good_as_ours() -> None:
    """It has no format: neither names nor ranges, which nobody could compare."""
    ours = written(mirror.document(DIAGNOSED))
    theirs = {name: part for name, part in ours.items() if name != "format"}
    theirs["concept"] = {name: part for name, part in ours["concept"].items() if name != "names"}
    theirs["value"] = {name: part for name, part in ours["value"].items() if name != "names"}
    key = ours["_id"]
    assert not differences.rows({key: ours}, {key: theirs})
    theirs["concept"] = theirs["concept"] | {"name": "Another"}
    assert differences.rows({key: ours}, {key: theirs})


def test_a_document_of_this_release_must_have_the_names_and_the_range() -> None:
    for observation, part, name in (
        (DIAGNOSED, "concept", "names"),
        (DIAGNOSED, "value", "names"),
        (COUNTED, "value", "range"),
        (COUNTED, "value", "computed"),
    ):
        ours = written(mirror.document(observation))
        lacking = {key: each for key, each in ours[part].items() if key != name}
        assert lacking != ours[part]
        assert differences.rows({"x": ours}, {"x": ours | {part: lacking}}), name

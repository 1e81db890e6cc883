"""The soak's own eyes: what they must see, and what is no fault."""

from tests.soak.ownership import pairs_in
from tests.soak.watch import never_theirs

ONE, OTHER = "1199080012345678", "1199080087654321"
A_NATIONAL_ID_EACH = [("identifier", "1", 7, ONE, 0), ("identifier", "2", 8, OTHER, 0)]


def test_an_obs_is_theirs_whose_national_id_its_person_had() -> None:
    history = [*A_NATIONAL_ID_EACH, ("obs", "a", 7, "", 0)]
    assert pairs_in(history) == {("a", ONE)}


def test_an_obs_that_moves_is_of_both_but_not_at_the_same_time() -> None:
    """The former owner's national id of later has nothing to do with it."""
    history = [
        *A_NATIONAL_ID_EACH,
        ("obs", "a", 7, "", 0),
        ("obs", "a", 8, "", 0),
        ("identifier", "1", 7, "1 1990 80099999999", 0),
    ]
    assert pairs_in(history) == {("a", ONE), ("a", OTHER)}


def test_a_national_id_that_is_corrected_brings_the_obs_to_its_new_holder() -> None:
    history = [
        *A_NATIONAL_ID_EACH,
        ("obs", "a", 7, "", 0),
        ("identifier", "1", 7, ONE, 1),
        ("identifier", "2", 7, OTHER, 0),
    ]
    assert pairs_in(history) == {("a", ONE), ("a", OTHER)}


def test_what_was_shown_to_somebody_else_is_found() -> None:
    theirs = {"kigali": {("a", ONE)}}
    national_ids = {"p1": ONE, "p2": OTHER}
    assert never_theirs({("kigali", "p1", "a")}, theirs, national_ids) == []
    [line] = never_theirs({("kigali", "p2", "a"), ("kigali", "p1", "a")}, theirs, national_ids)
    assert "p2" in line

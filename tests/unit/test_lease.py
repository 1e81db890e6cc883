"""Names and numbers that a hospital's reader has for good."""

from hypothesis import given
from hypothesis import strategies as st

from cdc.lease import lock_name, server_id


@given(st.text(min_size=1, max_size=200))
def test_every_hospital_has_a_valid_lock_and_replica_id(hospital: str) -> None:
    assert len(lock_name(hospital)) <= 64
    assert 2**31 <= server_id(hospital) < 2**32


def test_long_names_do_not_meet() -> None:
    assert lock_name("k" * 60) != lock_name("k" * 61)


def test_they_do_not_change() -> None:
    assert server_id("kigali") == server_id("kigali") != server_id("butare")
    assert lock_name("kigali") == "passport.kigali"

"""Names and numbers that a reader has for good."""

from hypothesis import given
from hypothesis import strategies as st

from cdc.lease import ReaderName, former_lock_name, lock_name, server_id

texts = st.text(min_size=1, max_size=200)
KIGALI = ReaderName("kigali", "cluster", "openmrs.changes")


@given(st.builds(ReaderName, texts, texts, texts))
def test_every_reader_has_a_valid_lock_and_replica_id(name: ReaderName) -> None:
    assert len(lock_name(name)) <= 64
    assert len(former_lock_name(name.hospital)) <= 64
    assert 2**31 <= server_id(name) < 2**32


def test_long_names_do_not_meet() -> None:
    one, other = KIGALI._replace(hospital="k" * 60), KIGALI._replace(hospital="k" * 61)
    assert lock_name(one) != lock_name(other)
    assert former_lock_name("k" * 60) != former_lock_name("k" * 61)


def test_a19_readers_of_other_topics_and_clusters_do_not_meet() -> None:
    others = [
        KIGALI._replace(hospital="butare"),
        KIGALI._replace(cluster_id="staging"),
        KIGALI._replace(topic="staging"),
    ]
    assert len({lock_name(name) for name in [KIGALI, *others]}) == 4
    assert len({server_id(name) for name in [KIGALI, *others]}) == 4


def test_they_do_not_change() -> None:
    assert server_id(KIGALI) == 2565202604
    assert lock_name(KIGALI) == "passport.kigali.800e804aca4b4795a3bd"
    assert former_lock_name("kigali") == "passport.kigali"

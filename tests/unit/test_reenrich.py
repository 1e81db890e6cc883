"""What a key change asks for, and how far the offset may move meanwhile."""

import re
from typing import Any

import pytest

from consumers.lookups import Lookups
from consumers.reenrich import ReenrichmentQueue
from consumers.waiting import Request, enriched_as
from openmrs.affected import PERSON_KEYS, QUERIES, QUERY_BY_NAME
from openmrs.read import Source
from openmrs.tables import KEY_COLUMNS, OBS
from passport.event import ENVELOPE, EventSource, KeyChangeEvent
from passport.settings import Hospital, LoadBudget, MySQL

MYSQL = MySQL(host="localhost", user="nobody")
HOSPITAL = Hospital(
    name="Kigali", partition=0, timezone="Africa/Kigali", national_id_type="t", mysql=MYSQL
)


@pytest.fixture
def queue() -> ReenrichmentQueue:
    lookups = Lookups("kigali", HOSPITAL, Source("kigali", MYSQL), entries=100, ttl_s=1)
    return ReenrichmentQueue(lookups, LoadBudget())


def a_key_change(table: str, *keys: dict[str, Any], pos: int = 100) -> KeyChangeEvent:
    version = f"{1:010d}-{1:010d}-{pos:016d}-{1:08d}"
    source = EventSource(
        "kigali", "UTC", "openmrs", table, "b.000001", pos, 1, "", "s", 1, version, "binlog"
    )
    return KeyChangeEvent(v=ENVELOPE, op="u", source=source, ts_ms=1, keys=keys)


def test_key_changes_of_the_same_row_are_read_once(queue: ReenrichmentQueue) -> None:
    for offset in (30, 10, 20):
        queue.add_key_change(
            a_key_change("encounter", {"encounter_id": 5, "patient_id": 1}), offset, frozenset()
        )
        queue.add_key_change(
            a_key_change("encounter_provider", {"encounter_provider_id": 9, "encounter_id": 5}),
            offset,
            frozenset(),
        )
    assert queue.pending() == 1
    assert queue.held_offset() == 10


def test_persons_wait_once_and_hold_the_lowest_offset(queue: ReenrichmentQueue) -> None:
    for table, key in PERSON_KEYS.items():
        queue.add_key_change(a_key_change(table, {key: 7}), 40, frozenset())
    queue.add_persons([7, 8], None, None)
    assert queue.pending_persons() == 2
    assert queue.held_offset() == 40


def test_what_only_the_destination_asks_for_holds_nothing(queue: ReenrichmentQueue) -> None:
    queue.add_persons([7], None, None)
    assert (queue.pending(), queue.held_offset()) == (1, None)


def test_a_key_change_that_concerns_no_obs_asks_for_nothing(queue: ReenrichmentQueue) -> None:
    queue.add_key_change(
        a_key_change("provider", {"provider_id": None, "person_id": None}), 1, frozenset()
    )
    assert (queue.pending(), queue.held_offset(), queue.due()) == (0, None, False)


def test_every_table_of_key_changes_is_thought_of() -> None:
    assert {*QUERIES, *PERSON_KEYS} == KEY_COLUMNS.keys() - {"patient_identifier_type"}


@pytest.mark.parametrize("table", QUERIES)
def test_queries_ask_by_a_key_that_key_changes_have(table: str) -> None:
    for column, queries in QUERIES[table]:
        assert column in KEY_COLUMNS[table]
        for query in queries:
            assert re.fullmatch(r"SELECT o\.obs_id FROM obs o .*WHERE \w+\.\w+ IN %s", query.sql)


def test_tables_that_share_a_query_store_it_by_the_name_of_earlier_releases() -> None:
    (query, _) = dict(QUERIES["concept"])["concept_id"]
    assert query.name == "concept_reference_map.concept_id.0"
    assert QUERY_BY_NAME[query.name] is query
    assert query.table is OBS


def test_a_range_that_openmrs_applied_concerns_its_own_obs(queue: ReenrichmentQueue) -> None:
    key = {"obs_reference_range_id": 3, "obs_id": 9}
    queue.add_key_change(a_key_change("obs_reference_range", key), 5)
    ((query, keys),) = queue._collected.keys.items()
    assert query.sql == "SELECT o.obs_id FROM obs o WHERE o.obs_id IN %s"
    assert keys == {9}


def test_how_rows_are_enriched_is_stored_and_asks_for_nothing(queue: ReenrichmentQueue) -> None:
    now = enriched_as(HOSPITAL.locales, HOSPITAL.kept_locales)
    queue.restore([now])
    assert (queue.pending(), queue.as_json()) == (0, [])
    assert now not in [enriched_as(("fr",), HOSPITAL.kept_locales), enriched_as(("en",), ("en",))]
    assert Request.from_json(now).keys == {}, "an earlier release does nothing"


def test_other_rules_of_the_destination_are_stored_too(queue: ReenrichmentQueue) -> None:
    by_rules = enriched_as(HOSPITAL.locales, HOSPITAL.kept_locales, "of yesterday")
    queue.restore([by_rules])
    assert (queue.pending(), queue.as_json()) == (0, [])
    assert by_rules != enriched_as(HOSPITAL.locales, HOSPITAL.kept_locales, "of today")
    assert Request.from_json(by_rules).keys == {}, "an earlier release does nothing"


def test_everybody_is_read_from_the_first_person_on(queue: ReenrichmentQueue) -> None:
    queue.restore([{"keys": {}, "done": 700, "at": None, "everyone": True}])
    queue.add_everyone()
    (everyone,) = queue.as_json()
    assert everyone["done"] < 0, "those up to 700 were read by the release before"
    assert queue.held_offset() is None

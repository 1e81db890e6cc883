"""What is done to encounters afterwards.

They are voided and restored, moved in time and place, given to another patient, and signed by
another provider.
"""

from datetime import timedelta

from dev.hospital.recording import LIVE_PATIENT, add_provider
from dev.hospital.sql import Row
from dev.hospital.work import VOIDED_TOGETHER, NothingToDo, Work

WITH_OBS = (
    "t.voided = 0 AND (SELECT 1 FROM obs o"
    " WHERE o.encounter_id = t.encounter_id AND o.voided = 0 LIMIT 1) IS NOT NULL"
)
OF_LIVE_PATIENT = (
    "(SELECT 1 FROM patient p WHERE p.patient_id = t.patient_id AND p.voided = 1 LIMIT 1) IS NULL"
)
RESTORABLE = (
    f"t.voided = 1 AND {OF_LIVE_PATIENT} AND (SELECT 1 FROM visit v"
    " WHERE v.visit_id = t.visit_id AND v.voided = 1 LIMIT 1) IS NULL"
)


def void(work: Work) -> None:
    """Void an encounter with its obs."""
    encounter = work.pick("encounter", "encounter_id", WITH_OBS)
    void_these(work, [encounter["encounter_id"]], "wrong patient")


def void_these(work: Work, encounters: list[int], reason: str) -> None:
    """Void the encounters with these ids, and all their live obs."""
    if not encounters:
        return
    live = "encounter_id IN %s AND voided = 0"
    work.void("encounter", reason, live, encounters)
    work.void_obs(work.obs_ids(live, encounters), reason)


def unvoid(work: Work) -> None:
    """Restore an encounter with its obs."""
    unvoid_these(work, [work.pick("encounter", "encounter_id", RESTORABLE)])


def unvoid_these(work: Work, encounters: list[Row]) -> None:
    """Restore the encounters, each with the obs that were voided together with it."""
    for row in encounters:
        number = row["encounter_id"]
        work.unvoid("encounter", "encounter_id = %s", number)
        condition = f"encounter_id = %s AND {VOIDED_TOGETHER}"
        work.unvoid_obs(work.obs_ids(condition, number, row["date_voided"], row["voided_by"]))


def void_visit(work: Work) -> None:
    """Void a visit with its encounters and their obs."""
    reason = "visit entered twice"
    used = (
        "(SELECT 1 FROM encounter e"
        " WHERE e.visit_id = t.visit_id AND e.voided = 0 LIMIT 1) IS NOT NULL"
    )
    visit = work.pick("visit", "visit_id", f"t.voided = 0 AND {used}")["visit_id"]
    work.void("visit", reason, "visit_id = %s", visit)
    live = work.fetch(
        "SELECT encounter_id AS id FROM encounter WHERE visit_id = %s AND voided = 0 FOR UPDATE",
        visit,
    )
    void_these(work, [row["id"] for row in live], reason)


def unvoid_visit(work: Work) -> None:
    """Restore a visit with the encounters and obs that were voided together with it."""
    visit = work.pick("visit", "visit_id", f"t.voided = 1 AND {OF_LIVE_PATIENT}")
    work.unvoid("visit", "visit_id = %s", visit["visit_id"])
    encounters = work.fetch(
        f"SELECT * FROM encounter WHERE visit_id = %s AND {VOIDED_TOGETHER} FOR UPDATE",
        *(visit["visit_id"], visit["date_voided"], visit["voided_by"]),
    )
    unvoid_these(work, encounters)


def change_date(work: Work) -> None:
    """Move an encounter in time. Every obs that had inherited its date is edited."""
    encounter = work.pick("encounter", "encounter_id", WITH_OBS)
    earlier = encounter["encounter_datetime"] - timedelta(minutes=work.rng.randint(1, 600))
    _change(work, encounter, "encounter_datetime", "obs_datetime", earlier)


def change_location(work: Work) -> None:
    """Move an encounter to another location. Every obs that had inherited it is edited."""
    encounter = work.pick("encounter", "encounter_id", f"t.location_id IS NOT NULL AND {WITH_OBS}")
    others = [place for place in work.metadata.locations if place != encounter["location_id"]]
    if not others:
        raise NothingToDo("a hospital of one location")
    _change(work, encounter, "location_id", "location_id", work.rng.choice(others))


def _change(work: Work, encounter: Row, column: str, obs_column: str, value: object) -> None:
    """Change the encounter's column, and the obs whose `obs_column` had the same value."""
    before = encounter[column]
    work.change("encounter", {column: value}, "encounter_id = %s", encounter["encounter_id"])

    def change(row: Row) -> Row:
        return {obs_column: value} if row[obs_column] == before else {}

    for root in work.roots("encounter_id = %s", encounter["encounter_id"]):
        rows = work.tree(root)
        if any(row[obs_column] == before for row in rows):
            work.amend(rows, change, "encounter changed")


def transfer(work: Work) -> None:
    """Give an encounter to another patient: it is copied there, and the old one is voided."""
    old = work.pick("encounter", "encounter_id", WITH_OBS)
    another = f"{LIVE_PATIENT} AND t.patient_id <> {int(old['patient_id'])}"
    patient = work.pick("patient", "patient_id", another)["patient_id"]
    copied = {**old, "patient_id": patient, "visit_id": None, **work.created()}
    del copied["encounter_id"]
    new = work.insert("encounter", copied)
    sql = "SELECT * FROM encounter_provider WHERE encounter_id = %s AND voided = 0"
    for row in work.fetch(sql, old["encounter_id"]):
        add_provider(work, new, row["provider_id"])
    change = {"person_id": patient, "encounter_id": new}
    for root in work.roots("encounter_id = %s", old["encounter_id"]):
        work.copy(work.tree(root), lambda _: change, edit=False)
    void_these(work, [old["encounter_id"]], "transferred to another patient")


def change_provider(work: Work) -> None:
    """Let somebody else sign an encounter: the old entry is voided, a new one added."""
    encounter = work.pick("encounter", "encounter_id", WITH_OBS)["encounter_id"]
    if not work.metadata.providers:
        raise NothingToDo("no providers")
    live = "encounter_id = %s AND voided = 0"
    work.void("encounter_provider", "signed by another", live, encounter)
    add_provider(work, encounter, work.rng.choice(work.metadata.providers))

"""Encounters voided and restored, moved in time and place, given to another patient, signed by
another provider.
"""

from datetime import timedelta

from dev.hospital.recording import LIVE_PATIENT, add_provider
from dev.hospital.sql import Row
from dev.hospital.work import NothingToDo, Work

WITH_OBS = (
    "t.voided = 0 AND (SELECT 1 FROM obs o"
    " WHERE o.encounter_id = t.encounter_id AND o.voided = 0 LIMIT 1) IS NOT NULL"
)
RESTORABLE = (
    "t.voided = 1 AND (SELECT 1 FROM patient p WHERE p.patient_id = t.patient_id AND p.voided = 1 LIMIT 1) IS NULL"
    " AND (SELECT 1 FROM visit v WHERE v.visit_id = t.visit_id AND v.voided = 1 LIMIT 1) IS NULL"
)
VOID = "voided = 1, voided_by = %s, date_voided = %s, void_reason = %s"
UNVOID = "voided = 0, voided_by = NULL, date_voided = NULL, void_reason = NULL"


def void(work: Work) -> None:
    void_these(
        work, [work.pick("encounter", "encounter_id", WITH_OBS)["encounter_id"]], "wrong patient"
    )


def void_these(work: Work, encounters: list[int], reason: str) -> None:
    """With all their live obs."""
    if not encounters:
        return
    work.execute(
        f"UPDATE encounter SET {VOID} WHERE encounter_id IN %s AND voided = 0",
        work.user,
        work.now,
        reason,
        encounters,
    )
    live = work.fetch(
        "SELECT obs_id FROM obs WHERE encounter_id IN %s AND voided = 0 FOR UPDATE", encounters
    )
    work.void_obs([row["obs_id"] for row in live], reason)


def unvoid(work: Work) -> None:
    unvoid_these(work, [work.pick("encounter", "encounter_id", RESTORABLE)])


def unvoid_these(work: Work, encounters: list[Row]) -> None:
    """OpenMRS restores the obs that were voided in the same second by the same user."""
    for row in encounters:
        work.execute(f"UPDATE encounter SET {UNVOID} WHERE encounter_id = %s", row["encounter_id"])
        sql = "SELECT obs_id FROM obs WHERE encounter_id = %s AND voided = 1 AND date_voided = %s AND voided_by = %s"
        together = work.fetch(
            f"{sql} FOR UPDATE", row["encounter_id"], row["date_voided"], row["voided_by"]
        )
        work.unvoid_obs([one["obs_id"] for one in together])


def void_visit(work: Work) -> None:
    used = "(SELECT 1 FROM encounter e WHERE e.visit_id = t.visit_id AND e.voided = 0 LIMIT 1) IS NOT NULL"
    visit = work.pick("visit", "visit_id", f"t.voided = 0 AND {used}")["visit_id"]
    work.execute(
        f"UPDATE visit SET {VOID} WHERE visit_id = %s",
        work.user,
        work.now,
        "visit entered twice",
        visit,
    )
    live = work.fetch(
        "SELECT encounter_id AS id FROM encounter WHERE visit_id = %s AND voided = 0 FOR UPDATE",
        visit,
    )
    void_these(work, [row["id"] for row in live], "visit entered twice")


def unvoid_visit(work: Work) -> None:
    condition = (
        "t.voided = 1 AND (SELECT 1 FROM patient p"
        " WHERE p.patient_id = t.patient_id AND p.voided = 1 LIMIT 1) IS NULL"
    )
    visit = work.pick("visit", "visit_id", condition)
    work.execute(f"UPDATE visit SET {UNVOID} WHERE visit_id = %s", visit["visit_id"])
    sql = "SELECT * FROM encounter WHERE visit_id = %s AND voided = 1 AND date_voided = %s AND voided_by = %s"
    unvoid_these(
        work,
        work.fetch(
            f"{sql} FOR UPDATE", visit["visit_id"], visit["date_voided"], visit["voided_by"]
        ),
    )


def change_date(work: Work) -> None:
    """Every obs that had inherited the encounter's date is edited."""
    row = work.pick("encounter", "encounter_id", WITH_OBS)
    later = row["encounter_datetime"] - timedelta(minutes=work.rng.randint(1, 600))
    _change(work, row, "encounter_datetime", "obs_datetime", later)


def change_location(work: Work) -> None:
    """Every obs that had inherited the encounter's location is edited."""
    row = work.pick("encounter", "encounter_id", f"t.location_id IS NOT NULL AND {WITH_OBS}")
    others = [place for place in work.metadata.locations if place != row["location_id"]]
    if not others:
        raise NothingToDo("a hospital of one location")
    _change(work, row, "location_id", "location_id", work.rng.choice(others))


def _change(work: Work, encounter: Row, column: str, obs_column: str, value: object) -> None:
    number, before = encounter["encounter_id"], encounter[column]
    work.execute(
        f"UPDATE encounter SET {column} = %s, changed_by = %s, date_changed = %s WHERE encounter_id = %s",
        *(value, work.user, work.now, number),
    )
    for root in work.roots("encounter_id = %s", number):
        rows = work.tree(root)
        if any(row[obs_column] == before for row in rows):
            work.amend(
                rows,
                lambda row: {obs_column: value} if row[obs_column] == before else {},
                "encounter changed",
            )


def transfer(work: Work) -> None:
    """To another patient: everything is copied there, and what was is voided."""
    old = work.pick("encounter", "encounter_id", WITH_OBS)
    patient = work.pick(
        "patient", "patient_id", f"{LIVE_PATIENT} AND t.patient_id <> {int(old['patient_id'])}"
    )
    copied = {name: value for name, value in old.items() if name != "encounter_id"}
    to = {"patient_id": patient["patient_id"], "visit_id": None, **work.created()}
    new = work.insert("encounter", {**copied, **to})
    sql = "SELECT * FROM encounter_provider WHERE encounter_id = %s AND voided = 0"
    for row in work.fetch(sql, old["encounter_id"]):
        add_provider(work, new, row["provider_id"])
    change = {"person_id": patient["patient_id"], "encounter_id": new}
    for root in work.roots("encounter_id = %s", old["encounter_id"]):
        work.copy(work.tree(root), lambda _: change, edit=False)
    void_these(work, [old["encounter_id"]], "transferred to another patient")


def change_provider(work: Work) -> None:
    """Signed by somebody else: the old entry voided, a new one added."""
    encounter = work.pick("encounter", "encounter_id", WITH_OBS)["encounter_id"]
    if not work.metadata.providers:
        raise NothingToDo("no providers")
    work.execute(
        f"UPDATE encounter_provider SET {VOID} WHERE encounter_id = %s AND voided = 0",
        *(work.user, work.now, "signed by another", encounter),
    )
    add_provider(work, encounter, work.rng.choice(work.metadata.providers))

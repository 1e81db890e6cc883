"""Patients merged, voided and restored; their national ids corrected, added and voided."""

from dev.hospital import people
from dev.hospital.encounters import UNVOID, VOID, unvoid_these, void_these
from dev.hospital.recording import LIVE_PATIENT, add_identifier
from dev.hospital.sql import Row
from dev.hospital.work import NothingToDo, Work

BELONGING = (
    "orders",
    "conditions",
    "allergy",
    "encounter_diagnosis",
)  # rows that just change their patient_id

# Else a clinic that works for hours ends with a few patients who have everything.
SMALL = f"{LIVE_PATIENT} AND (SELECT COUNT(*) FROM obs o WHERE o.person_id = t.patient_id) < 1000"


def merge(work: Work) -> None:
    """Two patients become one: the loser's live obs are copied to the winner and voided, voided
    ones moved.
    """
    winner = work.pick("patient", "patient_id", LIVE_PATIENT)["patient_id"]
    loser = work.pick("patient", "patient_id", f"{SMALL} AND t.patient_id <> {int(winner)}")[
        "patient_id"
    ]
    voided = work.fetch(
        "SELECT obs_id FROM obs WHERE person_id = %s AND voided = 1 FOR UPDATE", loser
    )
    for table in ("visit", "encounter"):
        work.execute(
            f"UPDATE {table} SET patient_id = %s, changed_by = %s, date_changed = %s WHERE patient_id = %s",
            *(winner, work.user, work.now, loser),
        )
    for root in work.roots("person_id = %s", loser):
        work.amend(work.tree(root), lambda _: {"person_id": winner}, f"merged into {winner}")
    work.update_obs([row["obs_id"] for row in voided], "person_id = %s", winner)
    for table in work.metadata.tables.intersection(BELONGING):
        work.execute(f"UPDATE `{table}` SET patient_id = %s WHERE patient_id = %s", winner, loser)
    _copy_unpreferred(work, "patient_identifier", "patient_id", winner, loser)
    _copy_unpreferred(work, "person_name", "person_id", winner, loser)
    _retire_loser(work, winner, loser)


def _copy_unpreferred(work: Work, table: str, owner: str, winner: int, loser: int) -> None:
    same = (
        ("identifier", "identifier_type")
        if owner == "patient_id"
        else ("given_name", "family_name")
    )
    sql = f"SELECT * FROM {table} WHERE {owner} = %s AND voided = 0"
    known = {tuple(row[name] for name in same) for row in work.fetch(sql, winner)}
    for row in work.fetch(sql, loser):
        if tuple(row[name] for name in same) not in known:
            copied = {name: value for name, value in row.items() if name != f"{table}_id"}
            work.insert(table, {**copied, owner: winner, "preferred": 0, **work.created()})


def _retire_loser(work: Work, winner: int, loser: int) -> None:
    reason = (work.user, work.now, f"merged with patient {winner}")
    for table, owner in (
        ("patient_identifier", "patient_id"),
        ("patient", "patient_id"),
        ("person", "person_id"),
    ):
        work.execute(f"UPDATE {table} SET {VOID} WHERE {owner} = %s AND voided = 0", *reason, loser)
    work.execute("UPDATE users SET person_id = %s WHERE person_id = %s", winner, loser)
    log = {"winner_person_id": winner, "loser_person_id": loser, "merged_data": "<merged/>"}
    work.insert("person_merge_log", {**log, **work.created()})


def void(work: Work) -> None:
    """With names, identifiers, visits, encounters and obs."""
    treated = "(SELECT 1 FROM obs o WHERE o.person_id = t.patient_id AND o.voided = 0 LIMIT 1) IS NOT NULL"
    patient = work.pick("patient", "patient_id", f"{LIVE_PATIENT} AND {treated}")["patient_id"]
    reason = "registered by mistake"
    for table, owner in _OWN:
        sql = f"UPDATE {table} SET {VOID} WHERE {owner} = %s AND voided = 0"
        work.execute(sql, work.user, work.now, reason, patient)
    live = work.fetch(
        "SELECT encounter_id AS id FROM encounter WHERE patient_id = %s AND voided = 0", patient
    )
    void_these(work, [row["id"] for row in live], reason)
    loose = work.fetch(
        "SELECT obs_id FROM obs WHERE person_id = %s AND voided = 0 FOR UPDATE", patient
    )
    work.void_obs([row["obs_id"] for row in loose], reason)


def unvoid(work: Work) -> None:
    """What was voided together with the patient is back; one who was merged away stays."""
    gone = "(SELECT 1 FROM person_merge_log g WHERE g.loser_person_id = t.patient_id LIMIT 1) IS NOT NULL"
    patient = work.pick("patient", "patient_id", f"t.voided = 1 AND NOT {gone}")
    who, when, by = patient["patient_id"], patient["date_voided"], patient["voided_by"]
    for table, owner in _OWN:
        together = f"{owner} = %s AND voided = 1 AND date_voided = %s AND voided_by = %s"
        work.execute(f"UPDATE {table} SET {UNVOID} WHERE {together}", who, when, by)
    sql = "SELECT * FROM encounter WHERE patient_id = %s AND voided = 1 AND date_voided = %s AND voided_by = %s"
    unvoid_these(work, work.fetch(sql, who, when, by))
    sql = "SELECT obs_id FROM obs WHERE person_id = %s AND encounter_id IS NULL AND voided = 1 AND date_voided = %s"
    work.unvoid_obs(
        [row["obs_id"] for row in work.fetch(f"{sql} AND voided_by = %s FOR UPDATE", who, when, by)]
    )


_OWN = (
    ("patient", "patient_id"),
    ("person", "person_id"),
    ("person_name", "person_id"),
    ("patient_identifier", "patient_id"),
    ("visit", "patient_id"),
)


def correct_national_id(work: Work) -> None:
    """Another number, the same one written otherwise, or (a mistake) that of somebody else."""
    row = _national_id(work)
    work.execute(
        "UPDATE patient_identifier SET identifier = %s, changed_by = %s, date_changed = %s"
        " WHERE patient_identifier_id = %s",
        *(_corrected(work, row), work.user, work.now, row["patient_identifier_id"]),
    )


def _corrected(work: Work, row: Row) -> str:
    digits = "".join(filter(str.isdigit, row["identifier"]))
    chance = work.rng.random()
    if chance < 0.4 and len(digits) == 16:
        return work.rng.choice((people.spaced(digits), people.dashed(digits), digits))
    if chance < 0.5:
        return str(_national_id(work)["identifier"])
    year = work.rng.randrange(1940, 2020)
    return people.national_id(year, work.rng.choice("MF"), work.rng.randrange(5_100_000, 9_900_000))


def _national_id(work: Work) -> Row:
    if not work.metadata.national_id:
        raise NothingToDo("no National ID type")
    condition = f"t.voided = 0 AND t.identifier_type = {int(work.metadata.national_id)}"
    return work.pick("patient_identifier", "patient_identifier_id", condition)


def add_national_id(work: Work) -> None:
    """To a patient who has none."""
    if not work.metadata.national_id:
        raise NothingToDo("no National ID type")
    none = (
        "(SELECT 1 FROM patient_identifier i WHERE i.patient_id = t.patient_id AND i.voided = 0"
        f" AND i.identifier_type = {int(work.metadata.national_id)} LIMIT 1) IS NULL"
    )
    patient = work.pick("patient", "patient_id", f"{LIVE_PATIENT} AND {none}")["patient_id"]
    person = work.fetch(
        "SELECT gender, YEAR(birthdate) AS born FROM person WHERE person_id = %s", patient
    )[0]
    serial = work.rng.randrange(5_100_000, 9_900_000)
    value = people.national_id(int(person["born"] or 1970), str(person["gender"]), serial)
    add_identifier(work, patient, value, preferred=True)


def void_national_id(work: Work) -> None:
    row = _national_id(work)
    work.execute(
        f"UPDATE patient_identifier SET {VOID} WHERE patient_identifier_id = %s",
        *(work.user, work.now, "typing error", row["patient_identifier_id"]),
    )

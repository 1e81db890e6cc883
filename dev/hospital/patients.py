"""Patients merged, voided and restored; their national ids corrected, added and voided."""

from dev.hospital import people
from dev.hospital.encounters import unvoid_these, void_these
from dev.hospital.recording import LIVE_PATIENT, add_identifier
from dev.hospital.sql import Row
from dev.hospital.work import VOIDED_TOGETHER, NothingToDo, Work

# At a merge the rows of these tables just change their patient_id.
BELONGING = ("orders", "conditions", "allergy", "encounter_diagnosis")

# Without this limit a clinic that works for hours ends with a few patients who have everything.
SMALL = f"{LIVE_PATIENT} AND (SELECT COUNT(*) FROM obs o WHERE o.person_id = t.patient_id) < 1000"

# What is voided and restored together with a patient, besides encounters and obs.
OWN = (
    ("patient", "patient_id"),
    ("person", "person_id"),
    ("person_name", "person_id"),
    ("patient_identifier", "patient_id"),
    ("visit", "patient_id"),
)


def merge(work: Work) -> None:
    """Make one patient of two: a winner, who gets everything, and a loser, who is voided.

    The loser's live obs are copied to the winner and voided; voided ones are moved.
    """
    winner = work.pick("patient", "patient_id", LIVE_PATIENT)["patient_id"]
    another = f"{SMALL} AND t.patient_id <> {int(winner)}"
    loser = work.pick("patient", "patient_id", another)["patient_id"]
    voided = work.obs_ids("person_id = %s AND voided = 1", loser)
    for table in ("visit", "encounter"):
        work.change(table, {"patient_id": winner}, "patient_id = %s", loser)
    for root in work.roots("person_id = %s", loser):
        work.amend(work.tree(root), lambda _: {"person_id": winner}, f"merged into {winner}")
    work.update_obs(voided, "person_id = %s", winner)
    for table in work.metadata.tables.intersection(BELONGING):
        work.execute(f"UPDATE `{table}` SET patient_id = %s WHERE patient_id = %s", winner, loser)
    same_identifier = ("identifier", "identifier_type")
    _copy_unpreferred(work, "patient_identifier", "patient_id", same_identifier, winner, loser)
    same_name = ("given_name", "family_name")
    _copy_unpreferred(work, "person_name", "person_id", same_name, winner, loser)
    reason = f"merged with patient {winner}"
    for table, owner in (
        ("patient_identifier", "patient_id"),
        ("patient", "patient_id"),
        ("person", "person_id"),
    ):
        work.void(table, reason, f"{owner} = %s AND voided = 0", loser)
    work.execute("UPDATE users SET person_id = %s WHERE person_id = %s", winner, loser)
    log = {"winner_person_id": winner, "loser_person_id": loser, "merged_data": "<merged/>"}
    work.insert("person_merge_log", {**log, **work.created()})


def _copy_unpreferred(
    work: Work, table: str, owner: str, same: tuple[str, ...], winner: int, loser: int
) -> None:
    """Copy the loser's live rows to the winner, without those that the winner has already.

    Rows that agree in the columns `same` are the same to OpenMRS.
    """
    sql = f"SELECT * FROM {table} WHERE {owner} = %s AND voided = 0"
    winners = {tuple(row[name] for name in same) for row in work.fetch(sql, winner)}
    for row in work.fetch(sql, loser):
        if tuple(row[name] for name in same) in winners:
            continue
        copied = {**row, owner: winner, "preferred": 0, **work.created()}
        del copied[f"{table}_id"]
        work.insert(table, copied)


def void(work: Work) -> None:
    """Void a patient with names, identifiers, visits, encounters and obs."""
    treated = (
        "(SELECT 1 FROM obs o"
        " WHERE o.person_id = t.patient_id AND o.voided = 0 LIMIT 1) IS NOT NULL"
    )
    patient = work.pick("patient", "patient_id", f"{LIVE_PATIENT} AND {treated}")["patient_id"]
    reason = "registered by mistake"
    for table, owner in OWN:
        work.void(table, reason, f"{owner} = %s AND voided = 0", patient)
    sql = "SELECT encounter_id AS id FROM encounter WHERE patient_id = %s AND voided = 0"
    void_these(work, [row["id"] for row in work.fetch(sql, patient)], reason)
    # What is still live belongs to no encounter.
    work.void_obs(work.obs_ids("person_id = %s AND voided = 0", patient), reason)


def unvoid(work: Work) -> None:
    """Restore a patient with what was voided together; who was merged away stays voided."""
    merged_away = (
        "(SELECT 1 FROM person_merge_log g"
        " WHERE g.loser_person_id = t.patient_id LIMIT 1) IS NOT NULL"
    )
    patient = work.pick("patient", "patient_id", f"t.voided = 1 AND NOT {merged_away}")
    together = (patient["patient_id"], patient["date_voided"], patient["voided_by"])
    for table, owner in OWN:
        work.unvoid(table, f"{owner} = %s AND {VOIDED_TOGETHER}", *together)
    sql = f"SELECT * FROM encounter WHERE patient_id = %s AND {VOIDED_TOGETHER}"
    unvoid_these(work, work.fetch(sql, *together))
    condition = f"person_id = %s AND encounter_id IS NULL AND {VOIDED_TOGETHER}"
    work.unvoid_obs(work.obs_ids(condition, *together))


def correct_national_id(work: Work) -> None:
    """Correct a national id.

    It becomes another number, the same one written otherwise, or (a mistake) somebody else's.
    """
    row = _national_id(work)
    digits = "".join(filter(str.isdigit, row["identifier"]))
    chance = work.rng.random()
    if chance < 0.4 and len(digits) == 16:
        new = work.rng.choice((people.spaced(digits), people.dashed(digits), digits))
    elif chance < 0.5:
        new = str(_national_id(work)["identifier"])
    else:
        year = work.rng.randrange(1940, 2020)
        gender = work.rng.choice("MF")
        new = people.national_id(year, gender, _serial(work))
    key = row["patient_identifier_id"]
    work.change("patient_identifier", {"identifier": new}, "patient_identifier_id = %s", key)


def _serial(work: Work) -> int:
    """Return a serial number that no generated citizen has (see people.citizen)."""
    return work.rng.randrange(5_100_000, 9_900_000)


def _national_id(work: Work) -> Row:
    """Return some live national id, locked."""
    if not work.metadata.national_id:
        raise NothingToDo("no National ID type")
    condition = f"t.voided = 0 AND t.identifier_type = {int(work.metadata.national_id)}"
    return work.pick("patient_identifier", "patient_identifier_id", condition)


def add_national_id(work: Work) -> None:
    """Add a national id to a patient who has none."""
    if not work.metadata.national_id:
        raise NothingToDo("no National ID type")
    has_none = (
        "(SELECT 1 FROM patient_identifier i WHERE i.patient_id = t.patient_id AND i.voided = 0"
        f" AND i.identifier_type = {int(work.metadata.national_id)} LIMIT 1) IS NULL"
    )
    patient = work.pick("patient", "patient_id", f"{LIVE_PATIENT} AND {has_none}")["patient_id"]
    sql = "SELECT gender, YEAR(birthdate) AS born FROM person WHERE person_id = %s"
    (person,) = work.fetch(sql, patient)
    year = int(person["born"] or 1970)
    value = people.national_id(year, str(person["gender"]), _serial(work))
    add_identifier(work, patient, value, preferred=True)


def void_national_id(work: Work) -> None:
    """Void a national id."""
    key = _national_id(work)["patient_identifier_id"]
    work.void("patient_identifier", "typing error", "patient_identifier_id = %s", key)


def swap_national_ids(work: Work) -> None:
    """Correct two patients who were registered with each other's national id."""
    one = _national_id(work)
    other = _national_id(work)
    if one["patient_id"] == other["patient_id"]:
        raise NothingToDo("twice the same patient")
    for row, value in ((one, other["identifier"]), (other, one["identifier"])):
        key = row["patient_identifier_id"]
        work.change("patient_identifier", {"identifier": value}, "patient_identifier_id = %s", key)

"""What is done to observations afterwards: edited, voided, unvoided, purged, archived."""

from datetime import timedelta

from dev.hospital.sql import Row
from dev.hospital.work import NothingToDo, Work

# Conditions on an obs `t`, as `Work.pick` and `Work.pick_group` want them.
CHILDLESS = "(SELECT 1 FROM obs m WHERE m.obs_group_id = t.obs_id LIMIT 1) IS NULL"
LEAF = f"t.voided = 0 AND {CHILDLESS}"
TOP = "(SELECT 1 FROM obs p WHERE p.obs_id = t.obs_group_id LIMIT 1) IS NULL"
NEWEST = "(SELECT 1 FROM obs n WHERE n.previous_version = t.obs_id LIMIT 1) IS NULL"
# It was voided on purpose, not by an edit, and what it is part of is live.
RESTORABLE = (
    f"t.voided = 1 AND {NEWEST}"
    " AND (SELECT 1 FROM obs p WHERE p.obs_id = t.obs_group_id AND p.voided = 1 LIMIT 1) IS NULL"
    " AND (SELECT 1 FROM encounter e"
    " WHERE e.encounter_id = t.encounter_id AND e.voided = 1 LIMIT 1) IS NULL"
    " AND (SELECT 1 FROM person q WHERE q.person_id = t.person_id AND q.voided = 1 LIMIT 1) IS NULL"
)
# It has a newer version that is live.
REPLACED = (
    "t.voided = 1 AND (SELECT 1 FROM obs n"
    " WHERE n.previous_version = t.obs_id AND n.voided = 0 LIMIT 1) IS NOT NULL"
)


def edit(work: Work) -> None:
    """Correct one value; in a group, of this member alone."""
    row = work.pick("obs", "obs_id", LEAF)
    value = _another_value(work, row)
    work.amend([row], lambda _: value, "corrected")


def edit_group(work: Work) -> None:
    """Correct a member's value and date the group anew: the whole tree is copied."""
    rows = work.tree(work.pick_group(TOP))
    later = rows[0]["obs_datetime"] + timedelta(seconds=1)
    member = work.rng.choice(rows[1:])
    value = _another_value(work, member)

    def change(row: Row) -> Row:
        if row is member:
            return {"obs_datetime": later, **value}
        return {"obs_datetime": later}

    work.amend(rows, change, "group corrected")


def _another_value(work: Work, row: Row) -> Row:
    """Return the columns of another value of the same kind."""
    if row["value_numeric"] is not None:
        difference = work.rng.choice((-2, -1, 1, 2, 0.5))
        return {"value_numeric": round(row["value_numeric"] + difference, 2)}
    if row["value_text"] is not None:
        text = row["value_text"].split(" (")[0]
        return {"value_text": f"{text} (rev {work.rng.randrange(10**6)})"}
    if row["value_datetime"] is not None:
        days = timedelta(days=work.rng.choice((-1, 1, 2)))
        return {"value_datetime": row["value_datetime"] + days}
    if row["value_coded"] is not None:
        return {"value_coded": _another_answer(work, row), "value_drug": None}
    return {"comments": f"rev {work.rng.randrange(10**6)}"}


def _another_answer(work: Work, row: Row) -> int:
    """Return what others answered to the same question, or the same answer if all agree."""
    recent = (
        "SELECT value_coded FROM obs WHERE concept_id = %s AND value_coded IS NOT NULL"
        " ORDER BY obs_id DESC LIMIT 50"
    )
    sql = f"SELECT DISTINCT value_coded AS answer FROM ({recent}) recent ORDER BY 1"
    answers = [answer["answer"] for answer in work.fetch(sql, row["concept_id"])]
    others = [answer for answer in answers if answer != row["value_coded"]]
    return int(work.rng.choice(others or [row["value_coded"]]))


def void(work: Work) -> None:
    """Void one obs."""
    work.void_obs([work.pick("obs", "obs_id", LEAF)["obs_id"]], "entered in error")


def void_group(work: Work) -> None:
    """Void a group with its members."""
    work.void_obs(_ids(work.tree(work.pick_group(TOP))), "entered in error")


def unvoid(work: Work) -> None:
    """Restore a voided obs, with the members that were voided together with it.

    No column tells afterwards when it was restored.
    """
    root = work.pick("obs", "obs_id", RESTORABLE)
    rows = work.tree(root, "voided = 1")
    work.unvoid_obs([row["obs_id"] for row in rows if row["date_voided"] == root["date_voided"]])


def unvoid_replaced(work: Work) -> None:
    """Restore an old version although its successor lives."""
    work.unvoid_obs([work.pick("obs", "obs_id", REPLACED)["obs_id"]])


def purge(work: Work) -> None:
    """Really delete an obs, with its members.

    OpenMRS' foreign keys refuse it where a newer version stands on the row.
    """
    root = work.pick("obs", "obs_id", f"{LEAF} AND {NEWEST}")
    _delete(work, work.tree(root, "TRUE"))


def purge_group(work: Work) -> None:
    """Really delete a group with its members, on none of which a newer version stands."""
    sql = "SELECT 1 FROM obs WHERE previous_version IN %s AND obs_id NOT IN %s LIMIT 1"
    for _ in range(20):
        rows = work.tree(work.pick_group(NEWEST), "TRUE")
        ids = _ids(rows)
        if not work.fetch(sql, ids, ids):
            _delete(work, rows)
            return
    raise NothingToDo("every group has members with a newer version elsewhere")


def archive(work: Work) -> None:
    """Move an old version out of the table, which is no clinical delete."""
    old = work.pick("obs", "obs_id", f"{REPLACED} AND {CHILDLESS}")["obs_id"]
    newer = work.obs_ids("previous_version = %s", old)
    work.update_obs(newer, "previous_version = NULL")
    work.delete_obs([old])


def change_uuid(work: Work) -> None:
    """Give a row another uuid in place, as a repair of what a synchronisation doubled does."""
    work.update_obs([work.pick("obs", "obs_id", "TRUE")["obs_id"]], "uuid = %s", work.uuid())


def _delete(work: Work, tree: list[Row]) -> None:
    """Delete a tree: the deepest level first, and in it the newest version."""
    depth: dict[int, int] = {}
    for row in tree:
        depth[row["obs_id"]] = depth.get(row["obs_group_id"], -1) + 1
    work.delete_obs(sorted(depth, key=lambda obs_id: (-depth[obs_id], -obs_id)))


def _ids(rows: list[Row]) -> list[int]:
    return [row["obs_id"] for row in rows]

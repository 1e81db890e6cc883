"""What is done to observations afterwards: edited, voided, unvoided, purged, archived."""

from datetime import timedelta

from dev.hospital.sql import Row
from dev.hospital.work import NothingToDo, Work

LEAF = "t.voided = 0 AND (SELECT 1 FROM obs m WHERE m.obs_group_id = t.obs_id LIMIT 1) IS NULL"
TOP = "(SELECT 1 FROM obs p WHERE p.obs_id = t.obs_group_id LIMIT 1) IS NULL"
# Voided on purpose, not by an edit; what it is part of is live.
RESTORABLE = (
    "t.voided = 1 AND (SELECT 1 FROM obs n WHERE n.previous_version = t.obs_id LIMIT 1) IS NULL"
    " AND (SELECT 1 FROM obs p WHERE p.obs_id = t.obs_group_id AND p.voided = 1 LIMIT 1) IS NULL"
    " AND (SELECT 1 FROM encounter e WHERE e.encounter_id = t.encounter_id AND e.voided = 1 LIMIT 1) IS NULL"
    " AND (SELECT 1 FROM person q WHERE q.person_id = t.person_id AND q.voided = 1 LIMIT 1) IS NULL"
)
# With a newer version that is live.
REPLACED = (
    "t.voided = 1 AND (SELECT 1 FROM obs n"
    " WHERE n.previous_version = t.obs_id AND n.voided = 0 LIMIT 1) IS NOT NULL"
)


def edit(work: Work) -> None:
    """One value corrected; of a group, this member alone."""
    row = work.pick("obs", "obs_id", LEAF)
    value = changed(work, row)
    work.amend([row], lambda _: value, "corrected")


def edit_group(work: Work) -> None:
    """A member's value corrected and the group dated anew: the whole tree is copied."""
    rows = work.tree(work.pick_group(TOP))
    later = rows[0]["obs_datetime"] + timedelta(seconds=1)
    chosen = work.rng.choice(rows[1:])
    value = changed(work, chosen)

    def change(row: Row) -> Row:
        return {"obs_datetime": later, **(value if row is chosen else {})}

    work.amend(rows, change, "group corrected")


def changed(work: Work, row: Row) -> Row:
    """Another value of the same kind."""
    if row["value_numeric"] is not None:
        return {
            "value_numeric": round(row["value_numeric"] + work.rng.choice((-2, -1, 1, 2, 0.5)), 2)
        }
    if row["value_text"] is not None:
        return {
            "value_text": f"{row['value_text'].split(' (')[0]} (rev {work.rng.randrange(10**6)})"
        }
    if row["value_datetime"] is not None:
        return {
            "value_datetime": row["value_datetime"] + timedelta(days=work.rng.choice((-1, 1, 2)))
        }
    if row["value_coded"] is not None:
        return {"value_coded": _another_answer(work, row), "value_drug": None}
    return {"comments": f"rev {work.rng.randrange(10**6)}"}


def _another_answer(work: Work, row: Row) -> int:
    """What others answered to the same question."""
    sql = (
        "SELECT DISTINCT value_coded AS answer FROM (SELECT value_coded FROM obs WHERE concept_id = %s"
        " AND value_coded IS NOT NULL ORDER BY obs_id DESC LIMIT 50) recent ORDER BY 1"
    )
    answers = [one["answer"] for one in work.fetch(sql, row["concept_id"])]
    return int(
        work.rng.choice(
            [one for one in answers if one != row["value_coded"]] or [row["value_coded"]]
        )
    )


def void(work: Work) -> None:
    work.void_obs([work.pick("obs", "obs_id", LEAF)["obs_id"]], "entered in error")


def void_group(work: Work) -> None:
    work.void_obs(_ids(work.tree(work.pick_group(TOP))), "entered in error")


def unvoid(work: Work) -> None:
    """A voided obs, or group with the members that were voided together with it, is back; no column
    tells when.
    """
    root = work.pick("obs", "obs_id", RESTORABLE)
    rows = work.tree(root, "voided = 1")
    work.unvoid_obs([row["obs_id"] for row in rows if row["date_voided"] == root["date_voided"]])


def unvoid_replaced(work: Work) -> None:
    """An old version is back although its successor lives."""
    work.unvoid_obs([work.pick("obs", "obs_id", REPLACED)["obs_id"]])


def purge(work: Work) -> None:
    """Really deleted, members too; OpenMRS' foreign keys refuse it where a newer version stands on
    the row.
    """
    whole = work.tree(work.pick("obs", "obs_id", f"{LEAF} AND {_UNFOLLOWED}"), "TRUE")
    _delete(work, whole)


def purge_group(work: Work) -> None:
    for _ in range(20):
        whole = work.tree(work.pick_group(_UNFOLLOWED), "TRUE")
        ids = _ids(whole)
        sql = "SELECT 1 FROM obs WHERE previous_version IN %s AND obs_id NOT IN %s LIMIT 1"
        if not work.fetch(sql, ids, ids):
            return _delete(work, whole)
    raise NothingToDo("every group has members with a newer version elsewhere")


_UNFOLLOWED = "(SELECT 1 FROM obs n WHERE n.previous_version = t.obs_id LIMIT 1) IS NULL"


def archive(work: Work) -> None:
    """An old version is moved out of the table: no clinical delete."""
    condition = (
        f"{REPLACED} AND (SELECT 1 FROM obs m WHERE m.obs_group_id = t.obs_id LIMIT 1) IS NULL"
    )
    old = work.pick("obs", "obs_id", condition)["obs_id"]
    newer = work.fetch("SELECT obs_id FROM obs WHERE previous_version = %s FOR UPDATE", old)
    work.update_obs(_ids(newer), "previous_version = NULL")
    work.delete_obs([old])


def _delete(work: Work, whole: list[Row]) -> None:
    """Deepest level first, and in it the newest version."""
    depth: dict[int, int] = {}
    for row in whole:
        depth[row["obs_id"]] = depth.get(row["obs_group_id"], -1) + 1
    work.delete_obs(sorted(depth, key=lambda obs: (-depth[obs], -obs)))


def _ids(rows: list[Row]) -> list[int]:
    return [row["obs_id"] for row in rows]

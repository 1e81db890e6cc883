"""Names changed that observations are shown with; no row of obs changes."""

from dev.hospital.work import NothingToDo, Work


def rename_concept(work: Work) -> None:
    """Of a concept that obs use, in one locale."""
    concept = work.pick("obs", "obs_id", "t.voided = 0")["concept_id"]
    sql = "SELECT concept_name_id AS id, name FROM concept_name WHERE concept_id = %s AND voided = 0 ORDER BY 1"
    names = work.fetch(sql, concept)
    if not names:
        raise NothingToDo("a concept without a name")
    chosen = work.rng.choice(names)
    sql = "UPDATE concept_name SET name = %s, changed_by = %s, date_changed = %s WHERE concept_name_id = %s"
    work.execute(sql, _renamed(work, chosen["name"]), work.user, work.now, chosen["id"])


def rename_provider(work: Work) -> None:
    treats = "(SELECT 1 FROM provider p WHERE p.person_id = t.person_id AND p.retired = 0 LIMIT 1) IS NOT NULL"
    row = work.pick("person_name", "person_name_id", f"t.voided = 0 AND {treats}")
    sql = "UPDATE person_name SET family_name = %s, changed_by = %s, date_changed = %s WHERE person_name_id = %s"
    work.execute(
        sql, _renamed(work, row["family_name"], 30), work.user, work.now, row["person_name_id"]
    )


def rename_location(work: Work) -> None:
    row = work.pick("location", "location_id", "t.retired = 0")
    sql = "UPDATE location SET name = %s, changed_by = %s, date_changed = %s WHERE location_id = %s"
    work.execute(sql, _renamed(work, row["name"]), work.user, work.now, row["location_id"])


def _renamed(work: Work, name: str, limit: int = 200) -> str:
    return f"{name.split(' [')[0][:limit]} [{work.rng.randrange(10**6)}]"

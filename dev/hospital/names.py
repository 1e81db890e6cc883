"""Names changed that observations are shown with; no row of obs changes."""

from dev.hospital.work import NothingToDo, Work


def rename_concept(work: Work) -> None:
    """Give a concept that obs use another name in one locale."""
    concept = work.pick("obs", "obs_id", "t.voided = 0")["concept_id"]
    names = work.fetch(
        "SELECT concept_name_id AS id, name FROM concept_name"
        " WHERE concept_id = %s AND voided = 0 ORDER BY 1",
        concept,
    )
    if not names:
        raise NothingToDo("a concept without a name")
    name = work.rng.choice(names)
    new = _renamed(work, name["name"])
    work.change("concept_name", {"name": new}, "concept_name_id = %s", name["id"])


def rename_provider(work: Work) -> None:
    """Give somebody who treats patients another family name."""
    treats = (
        "(SELECT 1 FROM provider p"
        " WHERE p.person_id = t.person_id AND p.retired = 0 LIMIT 1) IS NOT NULL"
    )
    row = work.pick("person_name", "person_name_id", f"t.voided = 0 AND {treats}")
    new = _renamed(work, row["family_name"], 30)
    work.change("person_name", {"family_name": new}, "person_name_id = %s", row["person_name_id"])


def rename_location(work: Work) -> None:
    """Give a location another name."""
    row = work.pick("location", "location_id", "t.retired = 0")
    new = _renamed(work, row["name"])
    work.change("location", {"name": new}, "location_id = %s", row["location_id"])


def _renamed(work: Work, name: str, limit: int = 200) -> str:
    """Return the name with another number behind it, in place of an earlier number."""
    return f"{name.split(' [')[0][:limit]} [{work.rng.randrange(10**6)}]"

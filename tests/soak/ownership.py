"""Whose each obs was, and who had which national id, at every moment of a hospital's history.

Triggers write it down in the hospital's own transactions. So what was rolled back is not in it.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from tests.e2e.stage import Hospital

HISTORY = """
CREATE TABLE IF NOT EXISTS ownership (
  seq BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  kind VARCHAR(10) NOT NULL,
  name VARCHAR(50) NOT NULL,
  person INT NOT NULL,
  identifier VARCHAR(50) NOT NULL,
  voided TINYINT NOT NULL
) ENGINE=InnoDB
"""
OBS = "INSERT INTO ownership VALUES (NULL, 'obs', NEW.uuid, NEW.person_id, '', 0)"
IDENTIFIER = (
    "INSERT INTO ownership VALUES (NULL, 'identifier', NEW.patient_identifier_id,"
    " NEW.patient_id, NEW.identifier, NEW.voided)"
)
TRIGGERS = (
    f"CREATE TRIGGER obs_is_new AFTER INSERT ON obs FOR EACH ROW {OBS}",
    f"""CREATE TRIGGER obs_is_changed AFTER UPDATE ON obs FOR EACH ROW
    IF NEW.uuid <> OLD.uuid OR NEW.person_id <> OLD.person_id THEN {OBS}; END IF""",
    f"CREATE TRIGGER id_is_new AFTER INSERT ON patient_identifier FOR EACH ROW {IDENTIFIER}",
    f"CREATE TRIGGER id_is_changed AFTER UPDATE ON patient_identifier FOR EACH ROW {IDENTIFIER}",
)
OF_NOW = (
    """INSERT INTO ownership SELECT NULL, 'identifier', patient_identifier_id, patient_id,
    identifier, voided FROM patient_identifier""",
    "INSERT INTO ownership SELECT NULL, 'obs', uuid, person_id, '', 0 FROM obs",
)


def write_down(hospital: Hospital) -> None:
    """Begin the history with what is there. Nobody may work at the hospital meanwhile."""
    with hospital.connect() as connection, connection.cursor() as cursor:
        for statement in (HISTORY, *OF_NOW, *TRIGGERS):
            cursor.execute(statement)
        connection.commit()


def ever_theirs(hospital: Hospital) -> set[tuple[str, str]]:
    """Return each pair of an obs' uuid and a national id (digits) that once belonged together.

    They belong together when the obs is of a person who has the national id at that moment.
    """
    with hospital.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT kind, name, person, identifier, voided FROM ownership ORDER BY seq")
        return pairs_in(cursor.fetchall())


def pairs_in(history: Iterable[tuple[Any, ...]]) -> set[tuple[str, str]]:
    """Return the pairs of a history: rows of kind, name, person, identifier and voided."""
    owner: dict[str, int] = {}  # by uuid
    obs: dict[int, set[str]] = defaultdict(set)  # uuids by person
    identifiers: dict[str, tuple[int, str]] = {}  # live ones: person and digits by the row's id
    pairs: set[tuple[str, str]] = set()
    for kind, name, person, identifier, voided in history:
        if kind == "obs":
            obs[owner.get(name, person)].discard(name)
            owner[name] = person
            obs[person].add(name)
            pairs.update((name, digits) for one, digits in identifiers.values() if one == person)
            continue
        identifiers.pop(name, None)
        if not voided:
            digits = "".join(filter(str.isdigit, identifier))
            identifiers[name] = (person, digits)
            pairs.update((uuid, digits) for uuid in obs[person])
    return pairs

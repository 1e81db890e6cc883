"""What the clinic records: new encounters with their observations, new patients."""

from datetime import datetime, timedelta

from dev.hospital import people
from dev.hospital.forms import FORMS, Filled, fill
from dev.hospital.sql import Row
from dev.hospital.work import NothingToDo, Work

LIVE_PATIENT = "t.voided = 0"


def new_vitals(work: Work) -> None:
    """Record the vital signs of some patient."""
    encounter(work, _patient(work), "Vitals")


def new_lab_panel(work: Work) -> None:
    """Record some patient's laboratory results."""
    encounter(work, _patient(work), "Laboratory")


def new_diagnoses(work: Work) -> None:
    """Record a visit note with its diagnoses."""
    encounter(work, _patient(work), "Visit Note")


def new_prescription(work: Work) -> None:
    """Record a consultation with its prescriptions."""
    encounter(work, _patient(work), "Consultation")


def _patient(work: Work) -> int:
    return int(work.pick("patient", "patient_id", LIVE_PATIENT)["patient_id"])


def encounter(work: Work, patient: int, form: str, created: datetime | None = None) -> int:
    """Insert an encounter, its provider and the form's obs; return its encounter_id.

    Every tenth is written down long after it took place. `created` is the date_created of all the
    rows if it is not now.
    """
    observations = _fill_form(work, form)
    written = created or work.now
    minutes = (0, 30)
    if work.rng.random() >= 0.9:
        minutes = (1440, 400_000)
    when = written - timedelta(minutes=work.rng.randint(*minutes))
    stamp = {**work.created(), "date_created": written}
    place = None
    if work.rng.random() < 0.9:
        place = work.rng.choice(work.metadata.locations)
    types = work.metadata.encounter_types
    encounter_type = types.get(people.ENCOUNTER_TYPES[form])
    if not encounter_type:  # somebody else's OpenMRS may lack it
        encounter_type = work.rng.choice(list(types.values()))
    encounter_id = work.insert(
        "encounter",
        {
            "encounter_type": encounter_type,
            "patient_id": patient,
            "location_id": place,
            "encounter_datetime": when,
            "visit_id": _visit(work, patient, when),
            **stamp,
        },
    )
    count = work.rng.choice((0, 1, 1, 1, 1, 1, 2))
    providers = list(work.metadata.providers)
    for provider in work.rng.sample(providers, min(count, len(providers))):
        add_provider(work, encounter_id, provider)
    for filled in observations:
        common = {
            "person_id": patient,
            "encounter_id": encounter_id,
            "obs_datetime": when,
            "location_id": place if work.rng.random() < 0.7 else None,
            "date_created": written,
        }
        _add(work, filled, common)
    return encounter_id


def _fill_form(work: Work, form: str) -> list[Filled]:
    """Return the form's observations, at least one. Raises NothingToDo."""
    for _ in range(20):  # a form may be left empty
        observations = []
        for draft in FORMS[form](work.rng, work.now):
            filled = fill(draft, work.metadata.dictionary, work.rng)
            if filled:
                observations.append(filled)
        if observations:
            return observations
    raise NothingToDo(f"no concept of the form {form}")


def _visit(work: Work, patient: int, when: datetime) -> int | None:
    """Return the visit_id of the patient's visit at this time, a new one if there is none."""
    if not work.metadata.visit_types:
        return None
    visits = work.fetch(
        "SELECT visit_id FROM visit WHERE patient_id = %s AND voided = 0 AND date_started <= %s"
        " AND (date_stopped IS NULL OR date_stopped >= %s) LIMIT 1",
        *(patient, when, when),
    )
    if visits:
        return int(visits[0]["visit_id"])
    return work.insert(
        "visit",
        {
            "patient_id": patient,
            "visit_type_id": work.metadata.visit_types[0],
            "date_started": when,
            "date_stopped": when + timedelta(hours=6),
            "location_id": work.rng.choice(work.metadata.locations),
            **work.created(),
        },
    )


def add_provider(work: Work, encounter_id: int, provider: int) -> None:
    """Let the provider sign the encounter."""
    row = {
        "encounter_id": encounter_id,
        "provider_id": provider,
        "encounter_role_id": work.metadata.roles[-1],
    }
    work.insert("encounter_provider", {**row, **work.created()})


def _add(work: Work, filled: Filled, common: Row, group: int | None = None) -> None:
    """Insert a parent, then its members, a row at a time as Hibernate does."""
    row = {**work.created(), **filled.columns, **common, "obs_group_id": group}
    obs_id = work.insert_obs(row)
    for member in filled.members:
        _add(work, member, common, obs_id)


def old_import(work: Work) -> None:
    """Record vital signs whose rows bring their own date_created, two years ago."""
    encounter(work, _patient(work), "Vitals", created=work.now - timedelta(days=730))


def rolled_back(work: Work) -> None:
    """Record a whole encounter and take it back."""
    new_vitals(work)
    work.rollback = True


def savepoint(work: Work) -> None:
    """Record three encounters, the second of which is taken back before the commit."""
    patient = _patient(work)
    encounter(work, patient, "Vitals")
    work.execute("SAVEPOINT half")
    touched = list(work.touched)
    counter = work.counter
    encounter(work, patient, "Visit Note")
    work.execute("ROLLBACK TO SAVEPOINT half")
    work.touched = touched
    work.counter = counter
    encounter(work, patient, "Vitals")


def register(work: Work) -> None:
    """Register a new patient, nine of ten with a national id."""
    citizen = people.citizen(work.rng.randrange(2_000_000, 5_000_000))
    person = {"gender": citizen.gender, "birthdate": citizen.born}
    person_id = work.insert("person", {**person, **work.created()})
    name = {
        "person_id": person_id,
        "preferred": 1,
        "given_name": citizen.given,
        "family_name": citizen.family,
    }
    work.insert("person_name", {**name, **work.created()})
    patient = {"patient_id": person_id, **work.created()}
    del patient["uuid"]  # the one table without it
    work.insert("patient", patient)
    if work.metadata.national_id and work.rng.random() < 0.9:
        add_identifier(work, person_id, citizen.national_id, preferred=True)


def add_identifier(work: Work, patient: int, value: str, *, preferred: bool) -> None:
    """Give the patient a national id, as it is written."""
    row = {
        "patient_id": patient,
        "identifier": value,
        "identifier_type": work.metadata.national_id,
        "preferred": int(preferred),
        "location_id": work.metadata.locations[0],
    }
    work.insert("patient_identifier", {**row, **work.created()})

"""What the clinic records: new encounters with their observations, new patients."""

from collections.abc import Callable
from datetime import datetime, timedelta

from dev.hospital import people
from dev.hospital.forms import FORMS, Filled, fill
from dev.hospital.sql import Row
from dev.hospital.work import NothingToDo, Work

LIVE_PATIENT = "t.voided = 0"


def new(form: str) -> Callable[[Work], None]:
    """An action: one encounter of this form for some patient."""

    def action(work: Work) -> None:
        encounter(work, work.pick("patient", "patient_id", LIVE_PATIENT)["patient_id"], form)

    return action


def encounter(work: Work, patient: int, form: str, created: datetime | None = None) -> int:
    """Encounter, provider and the form's obs; every tenth is written down long after it took place."""
    filled = _filled(work, form)
    minutes = (
        work.rng.randint(0, 30) if work.rng.random() < 0.9 else work.rng.randint(1440, 400_000)
    )
    when = (created or work.now) - timedelta(minutes=minutes)
    stamp = {**work.created(), "date_created": created or work.now}
    place = work.rng.choice(work.metadata.locations) if work.rng.random() < 0.9 else None
    types = work.metadata.encounter_types
    row = {
        "encounter_type": types.get(people.ENCOUNTER_TYPES[form])
        or work.rng.choice(list(types.values())),
        "patient_id": patient,
        "location_id": place,
        "encounter_datetime": when,
        "visit_id": _visit(work, patient, when),
        **stamp,
    }
    number = work.insert("encounter", row)
    _providers(work, number)
    common = {"person_id": patient, "encounter_id": number, "obs_datetime": when}
    for one in filled:
        here = place if work.rng.random() < 0.7 else None
        add(work, one, {**common, "location_id": here, "date_created": stamp["date_created"]})
    return number


def _filled(work: Work, form: str) -> list[Filled]:
    for _ in range(20):  # a form may be left empty
        drafts = FORMS[form](work.rng, work.now)
        filled = [
            one for draft in drafts if (one := fill(draft, work.metadata.dictionary, work.rng))
        ]
        if filled:
            return filled
    raise NothingToDo(f"no concept of the form {form}")


def _visit(work: Work, patient: int, when: datetime) -> int | None:
    if not work.metadata.visit_types:
        return None
    sql = "SELECT visit_id FROM visit WHERE patient_id = %s AND voided = 0 AND date_started <= %s"
    today = work.fetch(
        f"{sql} AND (date_stopped IS NULL OR date_stopped >= %s) LIMIT 1", patient, when, when
    )
    if today:
        return int(today[0]["visit_id"])
    row = {
        "patient_id": patient,
        "visit_type_id": work.metadata.visit_types[0],
        "date_started": when,
    }
    row |= {
        "date_stopped": when + timedelta(hours=6),
        "location_id": work.rng.choice(work.metadata.locations),
    }
    return work.insert("visit", {**row, **work.created()})


def _providers(work: Work, encounter: int) -> None:
    many = work.rng.choice((0, 1, 1, 1, 1, 1, 2))
    providers = list(work.metadata.providers)
    for provider in work.rng.sample(providers, min(many, len(providers))):
        add_provider(work, encounter, provider)


def add_provider(work: Work, encounter: int, provider: int) -> None:
    row = {"encounter_id": encounter, "provider_id": provider}
    work.insert(
        "encounter_provider",
        {**row, "encounter_role_id": work.metadata.roles[-1], **work.created()},
    )


def add(work: Work, filled: Filled, common: Row, group: int | None = None) -> int:
    """Parent, then members, a row at a time as Hibernate does."""
    obs = work.insert_obs({**work.created(), **filled.columns, **common, "obs_group_id": group})
    for member in filled.members:
        add(work, member, common, obs)
    return obs


def old_import(work: Work) -> None:
    """Rows that bring their own date_created, two years ago."""
    patient = work.pick("patient", "patient_id", LIVE_PATIENT)["patient_id"]
    encounter(work, patient, "Vitals", created=work.now - timedelta(days=730))


def rolled_back(work: Work) -> None:
    """A whole encounter that never happened."""
    new("Vitals")(work)
    work.rollback = True


def savepoint(work: Work) -> None:
    """An encounter of which a part is taken back before the commit."""
    patient = work.pick("patient", "patient_id", LIVE_PATIENT)["patient_id"]
    encounter(work, patient, "Vitals")
    work.execute("SAVEPOINT half")
    touched, counter = list(work.touched), work.counter
    encounter(work, patient, "Visit Note")
    work.execute("ROLLBACK TO SAVEPOINT half")
    work.touched, work.counter = touched, counter
    encounter(work, patient, "Vitals")


def register(work: Work) -> None:
    """A new patient, with a national id (nine of ten)."""
    one = people.citizen(work.rng.randrange(2_000_000, 5_000_000))
    person = work.insert("person", {"gender": one.gender, "birthdate": one.born, **work.created()})
    name = {"person_id": person, "preferred": 1, "given_name": one.given, "family_name": one.family}
    work.insert("person_name", {**name, **work.created()})
    stamp = work.created()
    del stamp["uuid"]
    work.insert("patient", {"patient_id": person, **stamp})
    if work.metadata.national_id and work.rng.random() < 0.9:
        add_identifier(work, person, one.national_id, preferred=True)


def add_identifier(work: Work, patient: int, value: str, *, preferred: bool) -> None:
    row = {"patient_id": patient, "identifier": value, "identifier_type": work.metadata.national_id}
    row |= {"preferred": int(preferred), "location_id": work.metadata.locations[0]}
    work.insert("patient_identifier", {**row, **work.created()})

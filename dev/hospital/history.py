"""Years of patients' data as rows, ready for multi-row INSERTs; pure, but for the ids it is given."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Any

from dev.hospital import people
from dev.hospital.dictionary import Dictionary
from dev.hospital.forms import FORMS, Filled, fill

# Columns of the rows that a Chart collects, by table, in an order that foreign keys accept.
COLUMNS: Mapping[str, str] = {
    "person": "person_id gender birthdate dead creator date_created voided voided_by date_voided void_reason uuid",
    "person_name": "preferred person_id given_name family_name creator date_created uuid",
    "patient": "patient_id creator date_created voided voided_by date_voided void_reason",
    "patient_identifier": "patient_id identifier identifier_type preferred location_id creator date_created"
    " voided voided_by date_voided void_reason uuid",
    "visit": "visit_id patient_id visit_type_id date_started date_stopped location_id creator date_created uuid",
    "encounter": "encounter_id encounter_type patient_id location_id encounter_datetime creator date_created"
    " voided voided_by date_voided void_reason visit_id uuid",
    "encounter_provider": "encounter_id provider_id encounter_role_id creator date_created voided uuid",
    "orders": "order_id order_type_id concept_id orderer encounter_id date_activated creator date_created"
    " patient_id uuid order_number order_action care_setting",
    "obs": "obs_id person_id concept_id encounter_id order_id obs_datetime location_id obs_group_id"
    " accession_number value_coded value_coded_name_id value_drug value_datetime value_numeric value_modifier"
    " value_text value_complex comments creator date_created voided voided_by date_voided void_reason uuid"
    " previous_version form_namespace_and_path status interpretation",
    "obs_reference_range": "obs_id low_normal hi_normal uuid",
    "allergy": "patient_id coded_allergen allergen_type creator date_created voided uuid",
    "encounter_diagnosis": "diagnosis_coded encounter_id patient_id certainty dx_rank uuid creator date_created",
}
OBS_COLUMNS = COLUMNS["obs"].split()
VOIDED_PATIENT = 50  # every so many-th patient is one that the hospital has voided
NOT_VOIDED = (0, None, None, None)


@dataclass(frozen=True, slots=True)
class Known:
    """Ids of the metadata, as this database gives them."""

    dictionary: Dictionary
    users: Sequence[int]
    providers: Sequence[int]
    locations: Sequence[int]
    encounter_types: Mapping[str, int]
    roles: Mapping[str, int]
    identifier_types: Mapping[str, int]


@dataclass(slots=True)
class Chart:
    """Rows by table; `add_patient` appends a whole patient."""

    known: Known
    rng: Random
    now: datetime
    next_obs: int
    first_person: int
    rows: dict[str, list[tuple[Any, ...]]] = field(
        default_factory=lambda: {name: [] for name in COLUMNS}
    )
    next_visit: int = 1
    next_encounter: int = 1
    next_order: int = 1

    def uuid(self) -> str:
        return str(uuid.UUID(int=self.rng.getrandbits(128), version=4))

    def add_patient(
        self, index: int, person: people.Citizen, sharer: people.Citizen, visits: int
    ) -> None:
        """Patient number `index` (from 1) with `visits` visits on average."""
        patient, clerk = self.first_person + index, self.known.users[2]
        registered = self.now - timedelta(
            days=self.rng.randint(700, 1500), seconds=self.rng.randrange(86400)
        )
        void = (
            (1, clerk, self.now, "registered twice") if index % 97 == VOIDED_PATIENT else NOT_VOIDED
        )
        dead = index % 89 == 7
        self.rows["person"].append(
            (patient, person.gender, person.born, dead, clerk, registered, *void, self.uuid())
        )
        self._names(patient, person, registered, index)
        self.rows["patient"].append((patient, clerk, registered, *void))
        for one in people.identifiers(index, person, sharer):
            self._identifier(patient, one, registered, void)
        for _ in range(self.rng.randint(max(visits - 1, 1), visits + 1)):
            self._visit(patient, void)
        if index % 20 == 0:
            self._elsewhere(patient, registered)
        if index % 25 == 0:  # telephoned in: no encounter
            self._obs(
                Filled(self._value("162169", "Phoned: feels better.")), self._place(patient, void)
            )

    def add_staff_obs(self, person: int) -> None:
        """An observation of somebody who is not a patient."""
        self._obs(
            Filled(self._value("162169", "Needle-stick injury, staff.")),
            self._place(person, NOT_VOIDED),
        )

    def _value(self, key: str, text: str) -> dict[str, Any]:
        return {"concept_id": self.known.dictionary.concepts[key], "value_text": text}

    def _place(self, person: int, void: tuple[Any, ...]) -> dict[str, Any]:
        when = self.now - timedelta(days=self.rng.randint(1, 60))
        return self._common(person, None, when, when, None, void)

    def _names(self, patient: int, person: people.Citizen, when: datetime, index: int) -> None:
        names = [(1, person.family)] + (
            [(0, self.rng.choice(people.FAMILY))] if index % 9 == 2 else []
        )
        for preferred, family in names:
            row = (preferred, patient, person.given, family, self.known.users[2], when, self.uuid())
            self.rows["person_name"].append(row)

    def _identifier(
        self, patient: int, one: people.Identifier, when: datetime, void: tuple[Any, ...]
    ) -> None:
        clerk = self.known.users[2]
        voided = (1, clerk, when, "typing error") if one.voided else void
        kind = self.known.identifier_types[one.type]
        place = self.known.locations[0]
        self.rows["patient_identifier"].append(
            (patient, one.value, kind, one.preferred, place, clerk, when, *voided, self.uuid())
        )

    def _visit(self, patient: int, void: tuple[Any, ...]) -> None:
        start = self.now - timedelta(
            days=self.rng.randint(1, 690), seconds=self.rng.randrange(86400)
        )
        visit, place = self.next_visit, self.rng.choice(self.known.locations)
        self.next_visit += 1
        stop = start + timedelta(hours=self.rng.randint(1, 8))
        clerk = self.known.users[2]
        self.rows["visit"].append(
            (visit, patient, 1, start, stop, place, clerk, start, self.uuid())
        )
        for number, name in enumerate(FORMS):
            if name in ("Vitals", "Visit Note") or self.rng.random() < 0.5:
                self._encounter(name, patient, visit, start + timedelta(minutes=15 * number), void)

    def _encounter(
        self, name: str, patient: int, visit: int, when: datetime, void: tuple[Any, ...]
    ) -> None:
        encounter, user = self.next_encounter, self.rng.choice(self.known.users[3:])
        self.next_encounter += 1
        late = timedelta(days=self.rng.randint(1, 20)) if self.rng.random() < 0.1 else timedelta()
        created = min(when + late + timedelta(seconds=self.rng.randint(60, 1500)), self.now)
        place = self.rng.choice(self.known.locations) if self.rng.random() < 0.9 else None
        if void is NOT_VOIDED and self.rng.random() < 0.015:
            void = (1, user, min(created + timedelta(hours=1), self.now), "wrong patient")
        kind = self.known.encounter_types[name]
        self.rows["encounter"].append(
            (encounter, kind, patient, place, when, user, created, *void, visit, self.uuid())
        )
        order = self._order(encounter, patient, when, user) if name == "Laboratory" else None
        self._providers(encounter, user, created, none=0.5 if order else 0.1)
        common = self._common(patient, encounter, when, created, place, void) | {"creator": user}
        for index, draft in enumerate(FORMS[name](self.rng, when)):
            filled = fill(draft, self.known.dictionary, self.rng)
            if filled:
                path = f"HtmlFormEntry^{name}.1.0/{index}-0"
                self._obs(filled, common | {"form_namespace_and_path": path, "order_id": order})

    def _providers(self, encounter: int, user: int, when: datetime, *, none: float) -> None:
        if self.rng.random() < none:
            return
        roles = ["Clinician"] + (["Assistant"] if self.rng.random() < 0.15 else [])
        for role, provider in zip(
            roles, self.rng.sample(self.known.providers, len(roles)), strict=True
        ):
            voided = self.rng.random() < 0.03
            row = (encounter, provider, self.known.roles[role], user, when, voided, self.uuid())
            self.rows["encounter_provider"].append(row)

    def _order(self, encounter: int, patient: int, when: datetime, user: int) -> int | None:
        if self.rng.random() < 0.6:
            return None
        order, concept = self.next_order, self.known.dictionary.concepts["1019"]
        self.next_order += 1
        provider = self.rng.choice(self.known.providers)
        head = (order, 1, concept, provider, encounter, when, user, when, patient)
        self.rows["orders"].append((*head, self.uuid(), f"ORD-{order}", "NEW", 1))
        return order

    def _common(
        self,
        person: int,
        encounter: int | None,
        when: datetime,
        created: datetime,
        place: int | None,
        void: tuple[Any, ...],
    ) -> dict[str, Any]:
        names = ("voided", "voided_by", "date_voided", "void_reason")
        return {
            "person_id": person,
            "encounter_id": encounter,
            "obs_datetime": when,
            "date_created": created,
            "location_id": place,
            "creator": self.known.users[3],
            **dict(zip(names, void, strict=True)),
        }

    def _obs(self, filled: Filled, common: Mapping[str, Any]) -> None:
        """One tree; now and then as an edited one: the old tree voided, the new one following it."""
        if self.rng.random() < 0.3:
            common = {**common, "location_id": None}
        if self.rng.random() < 0.1:  # taken later than its encounter began
            later = common["obs_datetime"] + timedelta(minutes=self.rng.randint(1, 9))
            common = {**common, "obs_datetime": min(later, self.now)}
        if common["voided"] or self.rng.random() > 0.03:
            self._tree(filled, common, None, {})
            return
        changed = min(
            common["date_created"] + timedelta(minutes=self.rng.randint(1, 600)), self.now
        )
        void = {
            "voided": 1,
            "voided_by": common["creator"],
            "date_voided": changed,
            "void_reason": "corrected",
        }
        old = self._tree(filled, {**common, **void}, None, {})
        new = {**common, "date_created": changed, "status": "AMENDED", "value_coded_name_id": None}
        self._tree(filled, new, None, old)

    def _tree(
        self, filled: Filled, common: Mapping[str, Any], group: int | None, previous: dict[int, int]
    ) -> dict[int, int]:
        """Appends parent, then members; returns id(filled) -> obs_id. What was FINAL only becomes
        AMENDED.
        """
        obs = self.next_obs
        self.next_obs += 1
        row = {
            **filled.columns,
            **common,
            "obs_id": obs,
            "obs_group_id": group,
            "uuid": self.uuid(),
        }
        row["previous_version"] = previous.get(id(filled))
        final = filled.columns.get("status", "FINAL")
        row["status"] = common.get("status", final) if final == "FINAL" else final
        row.setdefault("value_coded_name_id", None)
        self.rows["obs"].append(tuple(map(row.get, OBS_COLUMNS)))
        if row.get("interpretation") and self.rng.random() < 0.1:
            self.rows["obs_reference_range"].append((obs, 4.0, 11.0, self.uuid()))
        made = {id(filled): obs}
        for member in filled.members:
            made |= self._tree(member, common, obs, previous)
        return made

    def _elsewhere(self, patient: int, when: datetime) -> None:
        """What OpenMRS keeps outside obs: an allergy and a diagnosis of the last encounter."""
        concepts, user = self.known.dictionary.concepts, self.known.users[5]
        self.rows["allergy"].append(
            (patient, concepts["71160"], "DRUG", user, when, 0, self.uuid())
        )
        encounter = self.next_encounter - 1
        row = (concepts["117399"], encounter, patient, "CONFIRMED", 1, self.uuid(), user, when)
        self.rows["encounter_diagnosis"].append(row)

"""Years of patients' data as rows, ready for multi-row INSERTs.

It is pure: the ids of the metadata come from outside.
"""

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
    "person": (
        "person_id gender birthdate dead creator date_created"
        " voided voided_by date_voided void_reason uuid"
    ),
    "person_name": "preferred person_id given_name family_name creator date_created uuid",
    "patient": "patient_id creator date_created voided voided_by date_voided void_reason",
    "patient_identifier": (
        "patient_id identifier identifier_type preferred location_id creator date_created"
        " voided voided_by date_voided void_reason uuid"
    ),
    "visit": (
        "visit_id patient_id visit_type_id date_started date_stopped location_id"
        " creator date_created uuid"
    ),
    "encounter": (
        "encounter_id encounter_type patient_id location_id encounter_datetime"
        " creator date_created voided voided_by date_voided void_reason visit_id uuid"
    ),
    "encounter_provider": (
        "encounter_id provider_id encounter_role_id creator date_created voided uuid"
    ),
    "orders": (
        "order_id order_type_id concept_id orderer encounter_id date_activated"
        " creator date_created patient_id uuid order_number order_action care_setting"
    ),
    "obs": (
        "obs_id person_id concept_id encounter_id order_id obs_datetime location_id obs_group_id"
        " accession_number value_coded value_coded_name_id value_drug value_datetime"
        " value_numeric value_modifier value_text value_complex comments"
        " creator date_created voided voided_by date_voided void_reason uuid"
        " previous_version form_namespace_and_path status interpretation"
    ),
    "obs_reference_range": "obs_id low_normal hi_normal uuid",
    "allergy": "patient_id coded_allergen allergen_type creator date_created voided uuid",
    "encounter_diagnosis": (
        "diagnosis_coded encounter_id patient_id certainty dx_rank uuid creator date_created"
    ),
}
OBS_COLUMNS = COLUMNS["obs"].split()
VOIDED_PATIENT = 50  # the hospital has voided patient 50, 147, 244 ...

# The columns voided, voided_by, date_voided and void_reason of a row.
Void = tuple[int, int | None, datetime | None, str | None]
VOID_COLUMNS = ("voided", "voided_by", "date_voided", "void_reason")
NOT_VOIDED: Void = (0, None, None, None)


@dataclass(frozen=True, slots=True)
class MetadataIds:
    """Ids of the metadata, as this database gives them. They are the same for the same seed."""

    dictionary: Dictionary
    users: Sequence[int]
    providers: Sequence[int]
    locations: Sequence[int]
    encounter_types: Mapping[str, int]  # by name
    roles: Mapping[str, int]  # by name
    identifier_types: Mapping[str, int]  # by uuid

    @property
    def clerk(self) -> int:
        """The user who registers patients and visits."""
        return self.users[2]


@dataclass(slots=True)
class Chart:
    """Rows by table. `add_patient` appends a whole patient to them."""

    ids: MetadataIds
    rng: Random
    now: datetime
    next_obs: int
    first_person: int
    rows: dict[str, list[tuple[Any, ...]]] = field(
        default_factory=lambda: {table: [] for table in COLUMNS}
    )
    next_visit: int = 1
    next_encounter: int = 1
    next_order: int = 1

    def uuid(self) -> str:
        """Return a uuid that follows the seed."""
        return str(uuid.UUID(int=self.rng.getrandbits(128), version=4))

    def add_patient(
        self, index: int, citizen: people.Citizen, sharer: people.Citizen, visits: int
    ) -> None:
        """Append patient number `index` (from 1) with `visits` visits on average.

        `sharer` is somebody whose national id a second patient has got by mistake.
        """
        patient = self.first_person + index
        clerk = self.ids.clerk
        registered = self.now - self._days_and_seconds(700, 1500)
        void: Void = NOT_VOIDED
        if index % 97 == VOIDED_PATIENT:
            void = (1, clerk, self.now, "registered twice")
        dead = index % 89 == 7
        self.rows["person"].append(
            (patient, citizen.gender, citizen.born, dead, clerk, registered, *void, self.uuid())
        )
        self._add_names(patient, citizen, registered, index)
        self.rows["patient"].append((patient, clerk, registered, *void))
        for identifier in people.identifiers(index, citizen, sharer):
            self._add_identifier(patient, identifier, registered, void)
        for _ in range(self.rng.randint(max(visits - 1, 1), visits + 1)):
            self._add_visit(patient, void)
        if index % 20 == 0:
            self._add_outside_obs(patient, registered)
        if index % 25 == 0:  # telephoned in: no encounter
            self._add_note(patient, "Phoned: feels better.", void)

    def add_staff_obs(self, person: int) -> None:
        """Append an observation of somebody who is not a patient."""
        self._add_note(person, "Needle-stick injury, staff.", NOT_VOIDED)

    def _days_and_seconds(self, fewest: int, most: int) -> timedelta:
        days = self.rng.randint(fewest, most)
        return timedelta(days=days, seconds=self.rng.randrange(86400))

    def _add_note(self, person: int, text: str, void: Void) -> None:
        """Append a text of the last two months, without an encounter."""
        when = self.now - timedelta(days=self.rng.randint(1, 60))
        note = {"concept_id": self.ids.dictionary.concepts["162169"], "value_text": text}
        self._add_obs(Filled(note), self._common(person, None, when, when, None, void))

    def _add_names(self, patient: int, citizen: people.Citizen, when: datetime, index: int) -> None:
        names = [(1, citizen.family)]
        if index % 9 == 2:
            names.append((0, self.rng.choice(people.FAMILY)))
        clerk = self.ids.clerk
        for preferred, family in names:
            self.rows["person_name"].append(
                (preferred, patient, citizen.given, family, clerk, when, self.uuid())
            )

    def _add_identifier(
        self, patient: int, identifier: people.Identifier, when: datetime, void: Void
    ) -> None:
        clerk = self.ids.clerk
        if identifier.voided:
            void = (1, clerk, when, "typing error")
        kind = self.ids.identifier_types[identifier.type]
        place = self.ids.locations[0]
        head = (patient, identifier.value, kind, identifier.preferred, place, clerk, when)
        self.rows["patient_identifier"].append((*head, *void, self.uuid()))

    def _add_visit(self, patient: int, void: Void) -> None:
        """Append a visit of the last 23 months, with its encounters a quarter of an hour apart."""
        start = self.now - self._days_and_seconds(1, 690)
        visit = self.next_visit
        self.next_visit += 1
        place = self.rng.choice(self.ids.locations)
        stop = start + timedelta(hours=self.rng.randint(1, 8))
        self.rows["visit"].append(
            (visit, patient, 1, start, stop, place, self.ids.clerk, start, self.uuid())
        )
        for number, form in enumerate(FORMS):
            if form in ("Vitals", "Visit Note") or self.rng.random() < 0.5:
                when = start + timedelta(minutes=15 * number)
                self._add_encounter(form, patient, visit, when, void)

    def _add_encounter(
        self, form: str, patient: int, visit: int, when: datetime, void: Void
    ) -> None:
        """Append an encounter with what its form says; every tenth is written down days later."""
        encounter = self.next_encounter
        self.next_encounter += 1
        user = self.rng.choice(self.ids.users[3:])
        # The order of the random choices must stay, else the same seed would give other rows.
        late = timedelta()
        if self.rng.random() < 0.1:
            late = timedelta(days=self.rng.randint(1, 20))
        created = min(when + late + timedelta(seconds=self.rng.randint(60, 1500)), self.now)
        place = None
        if self.rng.random() < 0.9:
            place = self.rng.choice(self.ids.locations)
        if void is NOT_VOIDED and self.rng.random() < 0.015:
            void = (1, user, min(created + timedelta(hours=1), self.now), "wrong patient")
        kind = self.ids.encounter_types[form]
        self.rows["encounter"].append(
            (encounter, kind, patient, place, when, user, created, *void, visit, self.uuid())
        )
        order = None
        if form == "Laboratory":
            order = self._add_order(encounter, patient, when, user)
        self._add_providers(encounter, user, created, without=0.5 if order else 0.1)
        common = self._common(patient, encounter, when, created, place, void)
        common |= {"creator": user, "order_id": order}
        for number, draft in enumerate(FORMS[form](self.rng, when)):
            filled = fill(draft, self.ids.dictionary, self.rng)
            if filled:
                path = f"HtmlFormEntry^{form}.1.0/{number}-0"
                self._add_obs(filled, {**common, "form_namespace_and_path": path})

    def _add_providers(self, encounter: int, user: int, when: datetime, *, without: float) -> None:
        """Append who signed the encounter: nobody, with the probability `without`."""
        if self.rng.random() < without:
            return
        roles = ["Clinician"]
        if self.rng.random() < 0.15:
            roles.append("Assistant")
        providers = self.rng.sample(self.ids.providers, len(roles))
        for role, provider in zip(roles, providers, strict=True):
            voided = self.rng.random() < 0.03
            self.rows["encounter_provider"].append(
                (encounter, provider, self.ids.roles[role], user, when, voided, self.uuid())
            )

    def _add_order(self, encounter: int, patient: int, when: datetime, user: int) -> int | None:
        """Append the order of a laboratory's results, for four of ten, and return its order_id."""
        if self.rng.random() < 0.6:
            return None
        order = self.next_order
        self.next_order += 1
        concept = self.ids.dictionary.concepts["1019"]
        provider = self.rng.choice(self.ids.providers)
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
        void: Void,
    ) -> dict[str, Any]:
        """Return the columns that the obs of one encounter have in common."""
        return {
            "person_id": person,
            "encounter_id": encounter,
            "obs_datetime": when,
            "date_created": created,
            "location_id": place,
            "creator": self.ids.users[3],
            **dict(zip(VOID_COLUMNS, void, strict=True)),
        }

    def _add_obs(self, filled: Filled, common: Mapping[str, Any]) -> None:
        """Append one tree.

        Now and then it is an edited one: the old tree is voided, and a new one follows it.
        """
        if self.rng.random() < 0.3:
            common = {**common, "location_id": None}
        if self.rng.random() < 0.1:  # taken later than its encounter began
            later = common["obs_datetime"] + timedelta(minutes=self.rng.randint(1, 9))
            common = {**common, "obs_datetime": min(later, self.now)}
        if common["voided"] or self.rng.random() > 0.03:
            self._add_tree(filled, common, None, {})
            return
        minutes = timedelta(minutes=self.rng.randint(1, 600))
        changed = min(common["date_created"] + minutes, self.now)
        void = (1, common["creator"], changed, "corrected")
        voided = {**common, **dict(zip(VOID_COLUMNS, void, strict=True))}
        old_ids = self._add_tree(filled, voided, None, {})
        new = {**common, "date_created": changed, "status": "AMENDED", "value_coded_name_id": None}
        self._add_tree(filled, new, None, old_ids)

    def _add_tree(
        self, filled: Filled, common: Mapping[str, Any], group: int | None, previous: dict[int, int]
    ) -> dict[int, int]:
        """Append a parent, then its members.

        `previous` and what is returned have the obs_id of each `Filled` by its id(). Only what was
        FINAL becomes AMENDED.
        """
        obs_id = self.next_obs
        self.next_obs += 1
        row = {
            **filled.columns,
            **common,
            "obs_id": obs_id,
            "obs_group_id": group,
            "uuid": self.uuid(),
            "previous_version": previous.get(id(filled)),
        }
        row["status"] = filled.columns.get("status", "FINAL")
        if row["status"] == "FINAL":
            row["status"] = common.get("status", "FINAL")
        self.rows["obs"].append(tuple(row.get(column) for column in OBS_COLUMNS))
        if row.get("interpretation") and self.rng.random() < 0.1:
            self.rows["obs_reference_range"].append((obs_id, 4.0, 11.0, self.uuid()))
        obs_ids = {id(filled): obs_id}
        for member in filled.members:
            obs_ids |= self._add_tree(member, common, obs_id, previous)
        return obs_ids

    def _add_outside_obs(self, patient: int, when: datetime) -> None:
        """Append what is in no obs: an allergy, and a diagnosis of the last encounter."""
        concepts = self.ids.dictionary.concepts
        user = self.ids.users[5]
        self.rows["allergy"].append(
            (patient, concepts["71160"], "DRUG", user, when, 0, self.uuid())
        )
        encounter = self.next_encounter - 1
        self.rows["encounter_diagnosis"].append(
            (concepts["117399"], encounter, patient, "CONFIRMED", 1, self.uuid(), user, when)
        )

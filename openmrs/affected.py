"""Which obs a changed row of another table concerns: one query a way, by indexes that OpenMRS has."""

_OBS = "SELECT o.obs_id FROM obs o "
_CONCEPT = (f"{_OBS}WHERE o.concept_id IN %s", f"{_OBS}WHERE o.value_coded IN %s")
_ENCOUNTER = f"{_OBS}WHERE o.encounter_id IN %s"
_CREATOR = f"{_OBS}WHERE o.creator IN %s"
_CREATOR_PERSON = f"{_OBS}JOIN users u ON u.user_id = o.creator WHERE u.person_id IN %s"
_IN_ENCOUNTER = f"{_OBS}JOIN encounter e ON e.encounter_id = o.encounter_id "
_IN_VISIT = f"{_IN_ENCOUNTER}JOIN visit v ON v.visit_id = e.visit_id "
_PROVIDED = f"{_OBS}JOIN encounter_provider p ON p.encounter_id = o.encounter_id "
_ORDERED = f"{_OBS}JOIN orders r ON r.order_id = o.order_id "


def _question_or_answer(join: str, where: str) -> tuple[str, str]:
    return (
        f"{_OBS}JOIN concept c ON c.concept_id = o.concept_id {join} WHERE {where} IN %s",
        f"{_OBS}JOIN concept c ON c.concept_id = o.value_coded {join} WHERE {where} IN %s",
    )


_MAPPED = "JOIN concept_reference_map m ON m.concept_id = c.concept_id"
_MAPPED_TERM = f"{_MAPPED} JOIN concept_reference_term t ON t.concept_reference_term_id = m.concept_reference_term_id"

# By table of the notice: its key column, and the queries that take a list of its values.
QUERIES: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "concept": (("concept_id", _CONCEPT),),
    "concept_class": (("concept_class_id", _question_or_answer("", "c.class_id")),),
    "concept_datatype": (("concept_datatype_id", _question_or_answer("", "c.datatype_id")),),
    "concept_name": (
        ("concept_id", _CONCEPT),
        ("concept_name_id", (f"{_OBS}WHERE o.value_coded_name_id IN %s",)),
    ),
    "concept_numeric": (("concept_id", _CONCEPT),),
    "concept_reference_map": (("concept_id", _CONCEPT),),
    "concept_reference_source": (
        ("concept_source_id", _question_or_answer(_MAPPED_TERM, "t.concept_source_id")),
    ),
    "concept_reference_term": (
        ("concept_reference_term_id", _question_or_answer(_MAPPED, "m.concept_reference_term_id")),
    ),
    "drug": (("drug_id", (f"{_OBS}WHERE o.value_drug IN %s",)),),
    "encounter": (("encounter_id", (_ENCOUNTER,)),),
    "encounter_provider": (("encounter_id", (_ENCOUNTER,)),),
    "encounter_role": (("encounter_role_id", (f"{_PROVIDED}WHERE p.encounter_role_id IN %s",)),),
    "encounter_type": (("encounter_type_id", (f"{_IN_ENCOUNTER}WHERE e.encounter_type IN %s",)),),
    "location": (
        (
            "location_id",
            (
                f"{_OBS}WHERE o.location_id IN %s",
                f"{_IN_ENCOUNTER}WHERE e.location_id IN %s",
                f"{_IN_VISIT}WHERE v.location_id IN %s",
            ),
        ),
    ),
    "orders": (("order_id", (f"{_OBS}WHERE o.order_id IN %s",)),),
    "person_name": (
        (
            "person_id",
            (
                f"{_PROVIDED}JOIN provider d ON d.provider_id = p.provider_id WHERE d.person_id IN %s",
                f"{_ORDERED}JOIN provider d ON d.provider_id = r.orderer WHERE d.person_id IN %s",
                _CREATOR_PERSON,
            ),
        ),
    ),
    "provider": (
        (
            "provider_id",
            (f"{_PROVIDED}WHERE p.provider_id IN %s", f"{_ORDERED}WHERE r.orderer IN %s"),
        ),
        ("person_id", (_CREATOR_PERSON,)),
    ),
    "users": (("user_id", (_CREATOR,)),),
    "visit": (("visit_id", (f"{_IN_ENCOUNTER}WHERE e.visit_id IN %s",)),),
    "visit_type": (("visit_type_id", (f"{_IN_VISIT}WHERE v.visit_type_id IN %s",)),),
}

# A name of each query, to be stored: what is stored outlives a release, so a name stays though its
# query changes.
NAMES = {
    query: f"{table}.{column}.{number}"
    for table, ways in QUERIES.items()
    for column, queries in ways
    for number, query in enumerate(queries)
}
QUERY = {name: query for query, name in NAMES.items()}

# Whose rows concern a person as a whole.
PERSON_KEYS = {"patient": "patient_id", "patient_identifier": "patient_id", "person": "person_id"}

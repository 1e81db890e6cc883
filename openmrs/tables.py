"""What is read of OpenMRS: the columns of obs that may leave the hospital, and the keys of the
tables around it.
"""

# Least data: void_reason, voided_by, accession_number and value_group_id stay at the hospital.
OBS_COLUMNS: tuple[str, ...] = (
    "obs_id",
    "person_id",
    "concept_id",
    "encounter_id",
    "order_id",
    "obs_datetime",
    "location_id",
    "obs_group_id",
    "value_boolean",  # OpenMRS 1.x only
    "value_coded",
    "value_coded_name_id",
    "value_drug",
    "value_datetime",
    "value_numeric",
    "value_modifier",
    "value_text",
    "value_complex",
    "comments",
    "creator",
    "date_created",
    "voided",
    "date_voided",
    "uuid",
    "previous_version",
    "form_namespace_and_path",
    "status",
    "interpretation",
)

# Columns that older or newer versions of OpenMRS lack: absent from the row, not null.
OBS_OPTIONAL = frozenset(
    {
        "value_boolean",
        "value_complex",
        "previous_version",
        "form_namespace_and_path",
        "status",
        "interpretation",
    }
)

# A change in one of these tables makes a notice with these columns (primary and foreign keys),
# never another value.
NOTICE_KEYS: dict[str, tuple[str, ...]] = {
    "concept": ("concept_id",),
    "concept_class": ("concept_class_id",),
    "concept_datatype": ("concept_datatype_id",),
    "concept_name": ("concept_name_id", "concept_id"),
    "concept_numeric": ("concept_id",),
    "concept_reference_map": ("concept_map_id", "concept_id"),
    "concept_reference_source": ("concept_source_id",),
    "concept_reference_term": ("concept_reference_term_id",),
    "drug": ("drug_id",),
    "encounter": ("encounter_id", "patient_id"),
    "encounter_provider": ("encounter_provider_id", "encounter_id"),
    "encounter_role": ("encounter_role_id",),
    "encounter_type": ("encounter_type_id",),
    "global_property": (),
    "location": ("location_id",),
    "orders": ("order_id",),
    "patient": ("patient_id",),
    "patient_identifier": ("patient_identifier_id", "patient_id"),
    "patient_identifier_type": ("patient_identifier_type_id",),
    "person": ("person_id",),
    "person_name": ("person_name_id", "person_id"),
    "provider": ("provider_id", "person_id"),
    "users": ("user_id", "person_id"),
    "visit": ("visit_id",),
    "visit_type": ("visit_type_id",),
}

"""The mutants of the acceptance table's rows 8 to 46, one or two a row.

The row's own test, on real servers, must see each.
"""

from tests.mutants.edit import Mutant, TextMutant
from tests.mutants.patches import SINK

CHANGES = "tests/e2e/test_acceptance_changes.py::"
MEANING = "tests/e2e/test_acceptance_meaning.py::"
EDITS = "tests/integration/test_doctors_edits.py::"
RECORDS = "destinations/mongo/projection/obs.py"
IDENTITY = "openmrs/identity.py"

ROWS = (
    Mutant(
        "row 08: a voided obs is not shown",
        RECORDS,
        function="_live",
        old='not row["deleted"] and not row["row"]["voided"]',
        new='not row["deleted"]',
        test=f"{CHANGES}test_row_8_a_voided_obs_disappears",
    ),
    Mutant(
        "row 09: an unvoided obs is back",
        "destinations/mongo/record_update.py",
        function="change",
        old="_restoration(old, new, returned, rev)",
        new='None if old["rev"] else _restoration(old, new, returned, rev)',
        test=f"{CHANGES}test_row_9_an_unvoided_obs_is_back_as_the_same_record",
    ),
    Mutant(
        "row 10: an edit is no second record",
        RECORDS,
        function="_first_version",
        old='first["row"].get("previous_version")',
        new="-1",
        test=f"{CHANGES}test_row_10_edits_are_one_record_with_the_latest_value_and_a_history",
    ),
    Mutant(
        "row 11: a purge is seen",
        "consumers/apply.py",
        function="Applier._enrich_and_write",
        old="row.event.deleted",
        new="False",
        test=f"{CHANGES}test_row_11_what_is_purged_is_gone_and_leaves_an_empty_tombstone",
    ),
    Mutant(
        "row 12: archiving an old version takes no record",
        RECORDS,
        function="_live",
        old="obs_id not in replaced",
        new=(
            "obs_id not in replaced and not any(\n"
            '    rows.get(int(key.split("/")[1]), {}).get("deleted")\n'
            '    for key in row.get("related", ()))'
        ),
        test=f"{CHANGES}test_row_12_archiving_voided_rows_changes_no_record",
    ),
    Mutant(
        "row 13: a record follows its row to the winner",
        "destinations/mongo/record_update.py",
        function="_update",
        old='("patientId", "type", "createdBy", "openmrsData")',
        new='("type", "createdBy", "openmrsData")',
        test=f"{EDITS}test_row_13_a_merge_moves_a_record_that_nobody_has_edited",
    ),
    Mutant(
        "row 14: a voided patient is nobody",
        IDENTITY,
        function="stated",
        old="facts.voided",
        new="facts.voided and not facts.patient",
        test=(
            f"{CHANGES}test_row_14_encounters_visits_and_patients_that_are_moved_"
            "voided_and_restored"
        ),
    ),
    Mutant(
        "row 15: an old event changes nothing",
        "destinations/mongo/observations.py",
        function="RowBatch.next_writes",
        old='head.version > document["version"]',
        new="not head.version",
        test=f"{CHANGES}test_row_15_old_events_out_of_order_change_nothing",
    ),
    Mutant(
        "row 16: poison stops nobody",
        "consumers/partition.py",
        function="parse_record",
        old="return RejectedRecord(record, reject)",
        new="raise",
        test=f"{CHANGES}test_row_16_poison_is_parked_and_what_follows_goes_on",
    ),
    Mutant(
        "row 17: an identifier that is added later releases what waits",
        "openmrs/tables.py",
        function="",
        old=(
            'ReferenceTable("patient_identifier", keys=("patient_identifier_id", "patient_id"),'
            ' owner="patient_id", person="patient_id")'
        ),
        new=(
            'ReferenceTable("patient_identifier", keys=("patient_identifier_id", "patient_id"),'
            ' owner="patient_id")'
        ),
        test=f"{CHANGES}test_row_17_obs_of_an_unknown_patient_wait_for_the_identifier",
    ),
    Mutant(
        "row 18: what looks alike is not the same",
        RECORDS,
        function="first_id",
        old='row["row"]["uuid"]',
        new='"{person_id} {concept_id} {obs_datetime}".format(**row["row"])',
        test=f"{CHANGES}test_row_18_answers_that_look_alike_are_all_kept",
    ),
    Mutant(
        "row 19: an obs_id is one hospital's",
        RECORDS,
        function="first_id",
        old='record_id(row["hospital"], row["row"]["uuid"])',
        new='record_id("", str(row["obsId"]))',
        test=f"{CHANGES}test_row_19_the_same_obs_id_at_two_hospitals_is_two_records",
    ),
    Mutant(
        "row 20: an emptied destination is rebuilt",
        "consumers/worker.py",
        function="Worker._first_offset",
        old="committed = self._subscription.committed(number)",
        new=(
            "committed = self._subscription.committed(number)\n"
            "if progress is None and committed is not None:\n"
            "    return committed"
        ),
        test=f"{CHANGES}test_row_20_a_rebuild_ends_the_same_with_the_same_dates",
    ),
    Mutant(
        "row 21: what a snapshot read is older than what the stream says after it",
        "cdc/envelopes.py",
        function="Envelopes.read",
        old="prefix(self.epoch, at.number, at.pos)",
        new="prefix(self.epoch, at.number + 1, at.pos)",
        test=f"{CHANGES}test_row_21_what_is_written_during_the_snapshot_is_there_once",
    ),
    Mutant(
        "row 22: another consumer takes over",
        "consumers/worker.py",
        function="Worker._assign",
        old="number in self._hospitals",
        new="number in self._hospitals and self._assigned[0] < 1",
        test=(
            f"{CHANGES}test_row_22_killed_readers_and_consumers_lose_nothing_and_another_takes_over"
        ),
    ),
    Mutant(
        "row 22: a killed reader goes on where it was",
        "cdc/session.py",
        function="Session._open_stream",
        old="None if start.by_gtid else start.position",
        new="self._lease.end().position if start.format_ts else start.position",
        test=(
            f"{CHANGES}test_row_22_killed_readers_and_consumers_lose_nothing_and_another_takes_over"
        ),
    ),
    Mutant(
        "row 23: a hospital that is away delays no other",
        "consumers/worker.py",
        function="Worker._serve",
        old="self._pause(partition, error)",
        new="self._pause(partition, error)\nwhile partition.waiting():\n    time.sleep(0.1)",
        test=f"{CHANGES}test_row_23_a_hospital_that_is_away_delays_no_other",
    ),
    Mutant(
        "row 24: an identifier's type is chosen by its uuid, not by a name",
        IDENTITY,
        function="_facts",
        old=(
            '"""SELECT patient_id, identifier, preferred FROM patient_identifier\n'
            'WHERE voided = 0 AND identifier_type = %s AND patient_id IN %s"""'
        ),
        new=(
            '"""SELECT patient_id, identifier, preferred FROM patient_identifier\n'
            "WHERE voided = 0 AND identifier_type IN (SELECT patient_identifier_type_id\n"
            "FROM patient_identifier_type\n"
            "WHERE %s AND name LIKE '%%National%%ID%%')"
            ' AND patient_id IN %s"""'
        ),
        test=f"{MEANING}test_row_24_the_type_of_the_national_id_is_chosen_by_uuid",
    ),
    Mutant(
        "row 25: two ids are none",
        IDENTITY,
        function="stated",
        old="len(ids) != 1",
        new="not ids",
        test=f"{MEANING}test_row_25_preferred_and_not_voided_identifiers_count_and_two_are_none",
    ),
    Mutant(
        "row 26: an id with spaces or dashes is the same",
        "openmrs/national_id.py",
        function="read_national_id",
        old='_SEPARATORS.sub("", written.strip())',
        new="written.strip()",
        test=f"{MEANING}test_row_26_spaces_and_dashes_match_and_bad_ids_are_listed",
    ),
    Mutant(
        "row 27: a name matches nobody",
        IDENTITY,
        function="_facts",
        old=(
            '"""SELECT patient_id, identifier, preferred FROM patient_identifier\n'
            'WHERE voided = 0 AND identifier_type = %s AND patient_id IN %s"""'
        ),
        new=(
            '"""SELECT n.person_id AS patient_id, i.identifier, i.preferred FROM person_name n\n'
            "JOIN person_name o ON o.given_name = n.given_name AND o.family_name = n.family_name\n"
            "JOIN patient_identifier i ON i.patient_id = o.person_id\n"
            'WHERE i.voided = 0 AND i.identifier_type = %s AND n.person_id IN %s"""'
        ),
        test=f"{MEANING}test_row_27_a_name_matches_nobody",
    ),
    Mutant(
        "row 28: who is no patient is listed as such",
        IDENTITY,
        function="_facts",
        old='row["patient_id"] is not None',
        new="True",
        test=f"{MEANING}test_row_28_obs_of_who_is_no_patient_are_attached_to_nobody",
    ),
    Mutant(
        "row 29: the encounter's provider is the author",
        "consumers/enrich/obs.py",
        function="_candidates",
        old="encounter.providers if encounter is not None else ()",
        new="()",
        test=(
            f"{MEANING}test_row_29_the_author_is_the_encounters_provider_then_the_"
            "orderer_then_the_creator"
        ),
    ),
    Mutant(
        "row 30: a provider is one hospital's",
        "destinations/mongo/placeholder_accounts.py",
        function="identity",
        old='f"{kind}/{hospital_id}/{key}"',
        new='f"{kind}/{key}"',
        test=f"{MEANING}test_row_30_a_doctor_is_the_providers_uuid_within_a_hospital",
    ),
    Mutant(
        "row 31: a name need not be preferred",
        "openmrs/lookup_queries.py",
        function="staff",
        old=(
            '"""SELECT person_id, given_name, family_name FROM person_name\n'
            "WHERE voided = 0 AND person_id IN %s\n"
            'ORDER BY preferred DESC, person_name_id"""'
        ),
        new=(
            '"""SELECT person_id, given_name, family_name FROM person_name\n'
            "WHERE voided = 0 AND preferred = 1 AND person_id IN %s\n"
            'ORDER BY preferred DESC, person_name_id"""'
        ),
        test=f"{MEANING}test_row_31_a_name_that_is_not_preferred_is_a_name",
    ),
    Mutant(
        "row 32: names are the hospital's locales'",
        "openmrs/lookup_queries.py",
        function="_nearness",
        old="enumerate(locales)",
        new='enumerate(("en",))',
        test=f"{MEANING}test_row_32_names_follow_the_hospitals_locales_and_the_chosen_name",
    ),
    Mutant(
        "row 33: a date is a date",
        "consumers/enrich/obs.py",
        function="_datetime",
        old='datatype == "Date"',
        new='datatype == "date"',
        test=f"{MEANING}test_row_33_every_datatype_says_what_was_written",
    ),
    Mutant(
        "row 34: a header finds the members that came before it",
        "destinations/mongo/observations.py",
        function="Observations.connected_heads",
        old='{"$or": [{"_id": {"$in": keys}}, {"related": {"$in": keys}}]}',
        new='{"_id": {"$in": keys}}',
        test=f"{MEANING}test_row_34_a_diagnosis_is_one_condition_whatever_comes_first",
    ),
    Mutant(
        "row 35: a certainty and a rank are parts of their diagnosis",
        "meaning/reading.py",
        function="_keys",
        old="{role: [row.key for row in rows] for role, rows in parts.items()}",
        new="{}",
        test=(
            "tests/e2e/test_real_data.py::"
            "test_row_35_diagnoses_are_conditions_and_vitals_are_tests_with_units"
        ),
    ),
    Mutant(
        "row 36: what is outside obs is told",
        "cdc/checks/not_carried.py",
        function="_count",
        old='f"{count} rows, not carried yet"',
        new='"no rows"',
        test=f"{MEANING}test_row_36_what_is_kept_outside_obs_is_reported",
    ),
    TextMutant(
        "row 37: a critical result is not normal",
        "meaning/interpretation.py",
        old='"CRITICALLY_HIGH": "Critical"',
        new='"CRITICALLY_HIGH": "Normal"',
        test=f"{MEANING}test_row_37_status_interpretation_and_comments_are_carried",
    ),
    Mutant(
        "row 38: the visit's place, where the encounter has none",
        "consumers/enrich/obs.py",
        function="place",
        old="return places[encounter.visit_location_id]",
        new="return None",
        test=f"{MEANING}test_row_38_the_place_is_the_obs_own_then_the_encounters_then_the_visits",
    ),
    Mutant(
        "row 39: what is renamed is read anew",
        "consumers/apply.py",
        function="Applier._note",
        old="lookups.evict(event)",
        new="pass",
        test=f"{MEANING}test_row_39_what_is_renamed_moved_and_corrected_reaches_what_is_stored",
    ),
    Mutant(
        "row 40: no value is read back",
        "consumers/lookups.py",
        function="Lookups._enriched",
        old="references = self._references(rows, read)",
        new=(
            "references = self._references(rows, read)\n"
            "now = 'SELECT value_numeric, voided FROM obs WHERE obs_id = %s'\n"
            "found = [[*read().rows(now, (row['obs_id'],)), row][0] for row, *_ in rows]\n"
            "rows = [({**row, **one}, *rest) for (row, *rest), one in zip(rows, found)]"
        ),
        test=f"{MEANING}test_row_40_the_events_own_image_decides_the_value",
    ),
    Mutant(
        "row 40: a name is not older than its event",
        "consumers/apply.py",
        function="Applier._enrich_and_write",
        old="partition.lookups.observations(to_enrich, partition.latest)",
        new="partition.lookups.observations(to_enrich)",
        test=f"{MEANING}test_row_40_a_name_is_never_older_than_the_event_that_needed_it",
    ),
    Mutant(
        "row 41: a crash between rows and records heals",
        "destinations/mongo/hospital_writer.py",
        function="HospitalWriter.retain_range",
        old='[{"deleted": False}, {"version": version, "deleted": True}]',
        new='[{"deleted": False}]',
        test=f"{SINK}test_row_41_a_crash_at_any_write_heals",
    ),
    Mutant(
        "row 42: what is removed is no patient's",
        "destinations/mongo/record_update.py",
        function="_removal",
        old='{"patientId": "", "data": {}, "editableBy": [],'
        ' "openmrsData": {"hospitalId": hospital_id, "obsUuid": old["openmrsData"]["obsUuid"]},'
        ' "removedAt": now}',
        new='{"data": {}, "editableBy": [],'
        ' "openmrsData": {"hospitalId": hospital_id, "obsUuid": old["openmrsData"]["obsUuid"]},'
        ' "removedAt": now}',
        test=f"{SINK}test_row_42_a_voided_record_is_found_by_no_reader_and_comes_back_as_the_same",
    ),
    Mutant(
        "row 43: the hospital's values wait beside a doctor's edit",
        "destinations/mongo/record_update.py",
        function="_edited_update",
        old='applied(document) != old.get("applied")',
        new="not document",
        test=f"{SINK}test_row_43_a_doctors_edit_stays_and_the_hospitals_values_wait_beside_it",
    ),
    Mutant(
        "row 44: nobody can guess a placeholder's password",
        "destinations/mongo/placeholder_accounts.py",
        function="_random_text",
        old="os.urandom(size)",
        new="bytes(size)",
        test=f"{MEANING}test_row_44_placeholders_cannot_sign_in",
    ),
    Mutant(
        "row 45: an audit entry has the Passport's own words",
        "destinations/mongo/auditlogs.py",
        function="shaped",
        old='"regular"',
        new='"sync"',
        test=f"{MEANING}test_row_45_every_document_passes_the_passports_own_schemas",
    ),
    Mutant(
        "row 46: no row is logged",
        "consumers/worker.py",
        function="Worker._serve",
        old="self._received(partition, items)",
        new=(
            "self._received(partition, items)\n"
            'log.info("received", rows=[str(item) for item in items])'
        ),
        test="tests/e2e/test_privacy.py::test_row_46_no_output_holds_anything_of_a_patient",
    ),
)

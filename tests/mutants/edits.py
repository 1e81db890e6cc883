"""Mutants of what doctors write in the Passport."""

from tests.mutants.edit import Mutant, TextMutant

UNIT = "tests/unit/"
EDITS = "tests/integration/test_doctors_edits.py::"

MUTANTS: tuple[Mutant | TextMutant, ...] = (
    Mutant(
        "b7: a record that is shown again has its edit",
        "destinations/mongo/record_update.py",
        function="_with_owned",
        old='fields["data"] | kept["data"]',
        new='fields["data"]',
        test=f"{EDITS}test_b7_an_edit_survives_void_and_unvoid",
    ),
    Mutant(
        "b7: a hidden record keeps nothing of the hospital's",
        "destinations/mongo/record_update.py",
        function="_is_stated",
        old="return any(checksums[place : place + _CHECKSUM.size] == wanted for place in places)",
        new="return not places",
        test=f"{EDITS}test_b7_an_edit_survives_void_and_unvoid",
    ),
    Mutant(
        "b7: an edit is of one patient",
        "destinations/mongo/record_update.py",
        function="_of_patient",
        old='document["patientId"] == patient',
        new="document",
        test=f"{EDITS}test_b7_an_edit_never_comes_to_another_patient",
    ),
    Mutant(
        "b7: a record that becomes another patient's leaves its edit behind",
        "destinations/mongo/record_update.py",
        function="change",
        old='old["patientId"] != new.document["patientId"]',
        new="not old",
        test=f"{EDITS}test_b7_an_edit_never_comes_to_another_patient",
    ),
    Mutant(
        "b7: nothing is kept of who has left",
        "destinations/mongo/keptedits.py",
        function="moves",
        old='kept is not None and kept["patientId"] in patients',
        new="kept is not None",
        test=f"{EDITS}test_b7_nothing_is_kept_of_somebody_who_left_before",
    ),
    Mutant(
        "b7: what is kept goes with its patient",
        "destinations/mongo/registrations.py",
        function="Registrations._watch",
        old="keptedits.forget_former_patients(self._db)",
        new="pass",
        test=f"{EDITS}test_b7_the_sweep_finds_what_is_kept_of_former_patients",
    ),
    Mutant(
        "b11: an edit is told without a clock",
        "destinations/mongo/record_update.py",
        function="edited",
        old='record.get("lastEditedAt") is not None',
        new='(record.get("lastEditedAt") or record["syncDate"]) > record["syncDate"]',
        test=f"{EDITS}test_b11_an_edit_is_seen_although_the_hospitals_clock_is_ahead",
    ),
    Mutant(
        "b12: a decision is about the hospital's type too",
        "destinations/mongo/conflicts.py",
        function="_as_stated",
        old='{"type": _their_type(record), "data": theirs}',
        new='{"type": record["type"], "data": theirs}',
        test=f"{EDITS}test_b12_keep_passport_is_kept_when_the_type_changed_too",
    ),
    Mutant(
        "b8: a merge moves a record with its dates",
        "destinations/mongo/projection/obs.py",
        function="first_created",
        old='(row.get("first") or row).get("created")',
        new='row.get("created")',
        test=f"{EDITS}test_b8_a_merge_of_somebody_who_was_never_shown_keeps_the_dates",
    ),
    Mutant(
        "b8: a merge moves an edit",
        "destinations/mongo/record_update.py",
        function="change",
        old='old["openmrsData"].get("personId") not in new.merged',
        new="old",
        test=f"{EDITS}test_b8_a_merge_moves_a_record_with_its_id_dates_status_and_edit",
    ),
    Mutant(
        "b8: the loser's edit waits for the winner's row",
        "destinations/mongo/record_update.py",
        function="_of_patient",
        old='document["personId"] in merged',
        new="not document",
        test=f"{EDITS}test_b8_the_loser_is_hidden_before_the_winners_rows_come",
    ),
    Mutant(
        "b8: only of who was merged",
        "consumers/enrich/obs.py",
        function="first_version",
        old="earlier is None or earlier.person_id == person_id or not earlier.merged",
        new="earlier is None or earlier.person_id == person_id",
        test=f"{UNIT}test_enrich.py::test_b8_a_row_of_somebody_who_lives_is_not_followed",
    ),
    Mutant(
        "b12: what was before the tombstone went is told from what is new",
        "destinations/mongo/auditlogs.py",
        function="beside",
        old="change.seen is None",
        new="not change",
        test=f"{EDITS}test_b12_each_change_is_audited_after_mongodb_has_deleted_the_tombstone",
    ),
    Mutant(
        "a record that a doctor deleted stays deleted",
        "destinations/mongo/medicalrecords.py",
        function="MedicalRecords._restore_tombstones",
        old='is_deleted=action != "delete"',
        new="is_deleted=False",
        test=f"{EDITS}test_a_record_that_a_doctor_deleted_does_not_come_back",
    ),
    Mutant(
        "a tombstone into which the Passport wrote late is emptied",
        "destinations/mongo/registrations.py",
        function="Registrations._watch",
        old="keptedits.settle_late_writes(self._db)",
        new="pass",
        test=f"{EDITS}test_a_medicine_that_is_read_while_it_is_hidden_leaves_the_tombstone_empty",
    ),
    Mutant(
        "what the Passport writes by being read is no difference",
        "destinations/mongo/record_update.py",
        function="",
        old='frozenset({"medicationStatus", "medications"})',
        new='frozenset({"medicationStatus"})',
        test="tests/integration/test_verify.py::test_what_the_passport_owns_is_no_difference",
    ),
    Mutant(
        "a stray's record that a crash has left is ended by any later event of its row",
        "destinations/mongo/hospital_writer.py",
        function="HospitalWriter._tombstones_of_strays",
        old='max(version, row["version"])',
        new="version",
        test=(
            "tests/integration/test_mongo_sink.py::"
            "test_a_row_that_went_to_an_unmatched_person_is_gone_after_a_crash_before_its_record"
        ),
    ),
)

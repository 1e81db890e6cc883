"""The mutants of the mirror, of the records that it explains, and of the watch on registrations."""

from tests.mutants.edit import Mutant

OBSERVATIONS = "destinations/mongo/observations.py"
REGISTRATIONS = "tests/integration/test_registrations.py::"
MIRROR_TESTS = "tests/integration/test_mongo_rows.py::"

MIRROR = (
    Mutant(
        "an obs that was edited often takes few round trips",
        OBSERVATIONS,
        function="Observations.connected_heads",
        old="steps >= STEPS",
        new="steps < 1",
        test=f"{MIRROR_TESTS}test_b13_an_obs_may_be_edited_any_number_of_times",
    ),
    Mutant(
        "a row keeps the records that it was shown under before",
        OBSERVATIONS,
        function="_with_what_was_named",
        old="former.add(first_id(earlier))",
        new="pass",
        test=f"{MIRROR_TESTS}test_b1_a_record_ends_when_its_row_gets_another_uuid",
    ),
    Mutant(
        "a row keeps all of the records that it was shown under before",
        OBSERVATIONS,
        function="_with_what_was_named",
        old='{*document.get("formerRecords", ()), *head.former_records}',
        new='{*document.get("formerRecords", ())}',
        test=f"{MIRROR_TESTS}test_b1_a_record_ends_when_its_row_gets_another_uuid",
    ),
    Mutant(
        "a record that shows another row by now is that row's",
        "destinations/mongo/medicalrecords.py",
        function="MedicalRecords._rows_shown_by",
        old='record["patientId"]',
        new='not record["patientId"]',
        test=f"{MIRROR_TESTS}test_b1_a_uuid_that_passes_to_another_row_shows_that_one",
    ),
    Mutant(
        "a person who is read whole keeps no record without a reason",
        "destinations/mongo/hospital_writer.py",
        function="HospitalWriter._end_unexplained",
        old="self._records.refresh((), unexplained=looked_at.unexplained)",
        new="pass",
        test=(
            f"{MIRROR_TESTS}test_b1_a_person_who_is_read_whole_keeps_no_record_that_no_row_explains"
        ),
    ),
    Mutant(
        "verify waits until what is extra is removed, and says which it was",
        "reconcile/verify.py",
        function="_Verification._wait_for_removal",
        old="records - shown",
        new="set()",
        test=(
            "tests/integration/test_compare.py::"
            "test_b19_verify_removes_the_records_that_no_row_explains_and_says_which"
        ),
    ),
    Mutant(
        "one process watches registrations for all",
        "destinations/mongo/watch_lease.py",
        function="WatchLease.take",
        old='{"$or": [{"holder": self._holder}, is_over]}',
        new="{}",
        test=f"{REGISTRATIONS}test_b20_one_process_watches_for_all",
    ),
    Mutant(
        "who takes over goes on where the last one was",
        "destinations/mongo/registrations.py",
        function="Registrations._follow",
        old='left_there.get("resume")',
        new="None",
        test=f"{REGISTRATIONS}test_b20_who_takes_over_goes_on_where_the_last_one_was",
    ),
    Mutant(
        "where the stream can't go on everybody is looked at",
        "destinations/mongo/registrations.py",
        function="Registrations._follow",
        old='self._lease.renew({"resume": None})',
        new="pass",
        test=f"{REGISTRATIONS}test_b20_where_the_stream_cannot_go_on_everybody_is_looked_at",
    ),
    Mutant(
        "who takes over from one that had no stream looks at everybody from the beginning",
        "destinations/mongo/registrations.py",
        function="Registrations._follow",
        old="resume is not None",
        new='"patients" in left_there',
        test=f"{REGISTRATIONS}test_b20_who_dies_is_followed_when_the_lease_ends",
    ),
    Mutant(
        "who registers again after an erasure is read whole",
        "destinations/mongo/people.py",
        function="People._change",
        old='present["pending"] = "read"',
        new="pass",
        test=(
            "tests/integration/test_erasure.py::"
            "test_b17_who_is_erased_and_registers_again_is_read_whole"
        ),
    ),
)

"""The mutants of who somebody is: national ids, links, and what a position's check answers."""

from tests.mutants.edit import Mutant

MEANING = "tests/e2e/test_acceptance_meaning.py::"
READS = "tests/integration/test_identity.py::"
SINK = "tests/integration/test_mongo_sink.py::"
LINKS = "tests/integration/test_contradictions.py::"

IDENTITY = (
    Mutant(
        "B5: letters make an identifier invalid",
        "openmrs/national_id.py",
        function="read_national_id",
        old="_WRITTEN.fullmatch(written)",
        new="True",
        test=f"{MEANING}test_b5_letters_make_an_identifier_invalid",
    ),
    Mutant(
        "B5: an identifier fits its type's format",
        "openmrs/national_id.py",
        function="IdentifierType.reader",
        old="pattern is not None",
        new="False",
        test=f"{MEANING}test_b5_what_openmrs_would_refuse_is_no_national_id",
    ),
    Mutant(
        "B5: an identifier has its check digit",
        "openmrs/national_id.py",
        function="IdentifierType.reader",
        old="self.validator in LUHN",
        new="False",
        test=f"{MEANING}test_b5_what_openmrs_would_refuse_is_no_national_id",
    ),
    Mutant(
        "B4: who may not see the binlog is told so",
        "openmrs/read.py",
        function="_visible_end_of_binlog",
        old="error.args[0] != NO_REPLICATION_GRANT",
        new="error.args[0] == NO_REPLICATION_GRANT",
        test=f"{READS}test_b4_three_answers_to_whether_a_position_is_visible",
    ),
    Mutant(
        "B4: what is elsewhere waits",
        "consumers/reenrich.py",
        function="ReenrichmentQueue._reading",
        old="isinstance(reading.answer, Elsewhere)",
        new="False",
        test=f"{READS}test_b4_what_is_elsewhere_waits_for_the_stream_to_get_there",
    ),
    Mutant(
        "B4: what waits since an older epoch is read in the new one",
        "consumers/reenrich.py",
        function="ReenrichmentQueue._forget_older_epochs",
        old="epoch == self._epoch",
        new="True",
        test=f"{READS}test_b4_what_is_elsewhere_waits_for_the_stream_to_get_there",
    ),
    Mutant(
        "B4: a polled hospital is read with SELECT alone",
        "consumers/lookups.py",
        function="Lookups.end",
        old="ANY_POSITION if is_polled else SourcePosition.end_of(self._server)",
        new="SourcePosition.end_of(self._server)",
        test=f"{READS}test_b4_a_polled_hospital_needs_no_right_to_see_a_binlog",
    ),
    Mutant(
        "B3: a reading older than the link clears no mark",
        "destinations/mongo/hospital_writer.py",
        function="_rev_to_settle",
        old="version >= max(link.floor, link.version)",
        new="version >= link.floor",
        test=f"{SINK}test_b3_a_reading_older_than_the_link_leaves_the_mark",
    ),
    Mutant(
        "B16: a table that isn't read any more empties no cache",
        "consumers/lookups.py",
        function="Lookups.evict",
        old="source.table not in REFERENCE_TABLES",
        new="False",
        test=f"{READS}test_b16_a_property_of_openmrs_makes_nothing_be_read_again",
    ),
    Mutant(
        "B6: a contradicting link waits",
        "destinations/mongo/contradictions.py",
        function="link_fields",
        old='mode == "ask"',
        new="False",
        test=f"{LINKS}test_b6_a_contradicting_link_waits_for_an_operator",
    ),
    Mutant(
        "B6: a decision is about one patient",
        "destinations/mongo/contradictions.py",
        function="link_fields",
        old='is_about_these and decision["idHash"] == id_hash',
        new="True",
        test=f"{LINKS}test_b6_a_decision_is_about_one_id_and_one_patient",
    ),
    Mutant(
        "B6: an estimated year may be off",
        "destinations/mongo/contradictions.py",
        function="contradictions",
        old="person.is_birth_estimated",
        new="False",
        test=f"{LINKS}test_b6_what_contradicts",
    ),
    Mutant(
        "B6: a corrected date of birth is compared",
        "destinations/mongo/registrations.py",
        function="Registrations._mark_concerned",
        old='{"candidateId": patient}',
        new='{"candidateId": ""}',
        test=f"{LINKS}test_b6_a_corrected_date_of_birth_is_compared_at_once",
    ),
)

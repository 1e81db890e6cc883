"""The mutants of who somebody is: national ids, links, and what a position's check answers."""

from tests.mutants.edit import Mutant

MEANING = "tests/e2e/test_acceptance_meaning.py::"

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
)

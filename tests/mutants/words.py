"""The mutants of names in other languages, and of usual ranges."""

from tests.mutants.edit import Mutant

UNIT = "tests/unit/"
LOOKUPS = "tests/integration/test_lookups.py::"
VERIFY = "tests/integration/test_verify.py::"
LANGUAGES = "tests/integration/test_portal_languages.py::"

WORDS = (
    Mutant(
        "a name is kept in a locale only if it is of that language",
        "openmrs/lookup_queries.py",
        function="names_in",
        old='is_same_language(name["locale"], locale)',
        new="True",
        test=f"{UNIT}test_names.py::test_a_name_is_kept_in_each_locale_that_has_one_to_read",
    ),
    Mutant(
        "what the doctor chose holds in its own language alone",
        "consumers/enrich/obs.py",
        function="_answer_names",
        old="is_same_language(chosen.locale, locale)",
        new="True",
        test=f"{UNIT}test_enrich.py::test_an_answer_is_named_in_each_kept_locale",
    ),
    Mutant(
        "the hospital's own interpretation comes first",
        "consumers/enrich/obs.py",
        function="value",
        old='row.get("interpretation")',
        new="None",
        test=(
            f"{UNIT}test_enrich.py::"
            "test_the_range_that_was_applied_and_the_hospitals_own_word_come_first"
        ),
    ),
    Mutant(
        "a range that changes is read again",
        "consumers/lookups.py",
        function="Lookups._evict",
        old='key.get("obs_id")',
        new="None",
        test=f"{LOOKUPS}test_the_range_that_openmrs_applied_holds_before_that_of_the_question",
    ),
    Mutant(
        "what an earlier release wrote is no difference",
        "reconcile/differences.py",
        function="rows",
        old='"format" not in live[key]',
        new="False",
        test=f"{UNIT}test_mirror.py::test_a_document_of_the_last_release_is_as_good_as_ours",
    ),
    Mutant(
        "what an earlier release wrote gets its names",
        "consumers/worker.py",
        function="Worker._start",
        old="partition.reenrichment.add_everyone()",
        new="pass",
        test=f"{VERIFY}test_what_an_earlier_release_wrote_is_equal_and_is_filled_in_the_background",
    ),
    Mutant(
        "an account that lacks the grant of an optional table is served",
        "cdc/session.py",
        function="_key_columns",
        old="table not in OPTIONAL_TABLES or table in columns",
        new="True",
        test=(
            "tests/integration/test_preflight.py::"
            "test_a_table_of_newer_versions_that_is_not_granted_is_named_and_left_out"
        ),
    ),
    Mutant(
        "a number that somebody edited in the Passport was not compared",
        "portal/reader_words.py",
        function="usual",
        old='value["text"] == result',
        new="True",
        test=(
            f"{UNIT}test_portal_view.py::"
            "test_a_flag_is_the_hospitals_else_it_follows_of_the_range_and_says_so"
        ),
    ),
    Mutant(
        "a record takes words of its own obs alone",
        "portal/patients.py",
        function="_RowsOfRecords.read",
        old='row["row"]["uuid"] != record["openmrsData"]["obsUuid"]',
        new="False",
        test=f"{LANGUAGES}test_a_row_of_somebody_else_says_nothing",
    ),
)

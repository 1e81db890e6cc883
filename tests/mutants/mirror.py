"""The mutants of the mirror, of the records that it explains, and of the watch on registrations."""

from tests.mutants.edit import Mutant

OBSERVATIONS = "destinations/mongo/observations.py"
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
)

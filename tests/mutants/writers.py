"""The mutants of what two writers of one hospital promise each other."""

from tests.mutants.edit import Mutant

FENCE = "destinations/mongo/fence.py"
FENCE_TESTS = "tests/integration/test_mongo_fence.py::"
REPLAY_TESTS = "tests/integration/test_replay.py::"

WRITERS = (
    Mutant(
        "only the last writer to take a hospital writes",
        FENCE,
        function="Fence._touch",
        old='{"_id": hospital, "generation": generation}',
        new='{"_id": hospital}',
        test=f"{FENCE_TESTS}test_the_last_to_take_a_hospital_writes_alone",
    ),
    Mutant(
        "a transaction meets the one that takes its hospital",
        FENCE,
        function="Fence._touch",
        old='{"$inc": {"writes": 1}}',
        new='{"$set": {"generation": generation}}',
        test=f"{FENCE_TESTS}test_who_may_end_no_session_waits_for_its_transaction",
    ),
    Mutant(
        "a transaction that stands still is ended",
        FENCE,
        function="Fence._take",
        old='self._end(before["session"])',
        new="pass",
        test=f"{FENCE_TESTS}test_a_frozen_transaction_is_ended_by_who_takes_the_hospital",
    ),
    Mutant(
        "what is committed stays so when its session is ended",
        FENCE,
        function="Fence._commit",
        old="error.code != _INTERRUPTED",
        new="error.code",
        test=f"{FENCE_TESTS}test_a_commit_whose_session_is_ended_is_one",
    ),
    Mutant(
        "a change that misses its document takes the others with it",
        FENCE,
        function="Fence._transaction",
        old="matched[guarded] < len(updates)",
        new="matched[guarded] < 0",
        test=f"{FENCE_TESTS}test_only_what_mongodb_refuses_is_left_out",
    ),
    Mutant(
        "an older state of a person that comes late ends no link",
        "destinations/mongo/people.py",
        function="_raised_versions",
        old='person.version > documents[key]["version"]',
        new='person.version < documents[key]["version"]',
        test=f"{FENCE_TESTS}test_b10_an_older_state_of_a_person_that_comes_late_unlinks_nobody",
    ),
    Mutant(
        "a consumer that lost its hospital takes it again",
        "consumers/worker.py",
        function="Worker._start",
        old="self._one_writer.take(hospital_id)",
        new="pass",
        test=f"{REPLAY_TESTS}test_a_command_and_a_living_consumer_both_come_to_their_end",
    ),
    Mutant(
        "a record of an older epoch that is replayed brings nothing back",
        "consumers/replay.py",
        function="_Replay.begin",
        old="self._partition.lookups.seen(progress.version)",
        new="pass",
        test=f"{REPLAY_TESTS}test_b9_a_late_record_that_is_replayed_brings_no_purged_row_back",
    ),
)

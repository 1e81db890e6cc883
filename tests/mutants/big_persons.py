"""The mutants of what holds for a person with very many obs, and for very many patients."""

from tests.mutants.edit import Mutant

TESTS = "tests/e2e/test_big_persons.py::"
SINK_TESTS = "tests/integration/test_mongo_sink.py::"
QUEUE_TESTS = "tests/integration/test_reenrich.py::"

BIG_PERSONS = (
    Mutant(
        "B15: a person with many obs is read in slices",
        "consumers/reenrich.py",
        function="ReenrichmentQueue._about_a_slice",
        old="size > SLICE",
        new="False",
        test=f"{QUEUE_TESTS}test_b15_slices_of_a_big_person_are_read_once_and_others_in_between",
    ),
    Mutant(
        "B15: what is retained of a person is as old as the first slice",
        "consumers/waiting.py",
        function="BigPerson.take",
        old="self.version or version",
        new="version",
        test=f"{QUEUE_TESTS}test_b15_slices_of_a_big_person_are_read_once_and_others_in_between",
    ),
    Mutant(
        "B15: a link that changed between two slices is not settled",
        "destinations/mongo/hospital_writer.py",
        function="HospitalWriter.retain_steps",
        old="link.rev == begun",
        new="True",
        test=f"{SINK_TESTS}test_b15_who_is_matched_between_two_slices_is_wanted_again",
    ),
    Mutant(
        "B15: a slice begins behind the last one",
        "consumers/waiting.py",
        function="BigPerson.finish",
        old="self.keys.extend(ids)",
        new="self.keys.extend(ids[:-1])",
        test=f"{QUEUE_TESTS}test_b15_slices_of_a_big_person_are_read_once_and_others_in_between",
    ),
    Mutant(
        "B15: a new epoch begins a big person anew",
        "consumers/waiting.py",
        function="WholePersons.begin_new_epoch",
        old="big.restart()",
        new="pass",
        test=f"{QUEUE_TESTS}test_b15_a_new_epoch_begins_a_big_person_anew",
    ),
    Mutant(
        "B15: who is asked for again in the middle is read again, and holds the offset",
        "consumers/waiting.py",
        function="BigPerson.ask",
        old="not self.version",
        new="True",
        test=f"{QUEUE_TESTS}test_b15_who_is_asked_for_in_the_middle_is_read_again",
    ),
    Mutant(
        "B15: all persons wait for a big one before the next portion",
        "consumers/waiting.py",
        function="WholePersons.__contains__",
        old="person_id in self._waiting or person_id in self._big",
        new="person_id in self._waiting",
        test=f"{QUEUE_TESTS}test_b15_a_big_person_is_one_of_everyone",
    ),
    Mutant(
        "B15: many rows of a person are retained in steps",
        "destinations/mongo/hospital_writer.py",
        function="HospitalWriter.retain_steps",
        old="len(rows) == SLICE",
        new="False",
        test=f"{SINK_TESTS}test_b15_a_person_is_retained_in_steps",
    ),
    Mutant(
        "B15: what comes between two steps is newer than the reading",
        "destinations/mongo/hospital_writer.py",
        function="HospitalWriter._retain_rows",
        old='row["version"] <= version',
        new="True",
        test=f"{SINK_TESTS}test_b15_a_person_is_retained_in_steps",
    ),
    Mutant(
        "B15: many records are looked at in steps",
        "destinations/mongo/hospital_writer.py",
        function="HospitalWriter._end_unexplained",
        old="looked_at.is_full",
        new="False",
        test=f"{SINK_TESTS}test_b15_a_person_is_retained_in_steps",
    ),
    Mutant(
        "B15: many rows don't move to another patient within a write",
        "destinations/mongo/hospital_writer.py",
        function="HospitalWriter._evaluate_links",
        old="len(rows) == SLICE",
        new="False",
        test=f"{SINK_TESTS}test_b15_many_rows_move_step_by_step",
    ),
    Mutant(
        "B15: the destination that has many rows of somebody gets its time",
        "consumers/retaining.py",
        function="Retaining.person",
        old="queue.read_in_slices(person.person_id)",
        new="pass",
        test=f"{TESTS}test_b15_rows_that_only_the_destination_has_go_in_steps",
    ),
    Mutant(
        "B15: an index that was loaded again takes no more memory",
        "openmrs/identity.py",
        function="Holders.reload",
        old='index.execute("DETACH loaded")',
        new="pass",
        test="tests/unit/test_identity.py::test_b15_the_index_stays_small",
    ),
)

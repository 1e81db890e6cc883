"""Mutants of what a fact is."""

from tests.mutants.edit import Mutant, TextMutant

READING = "meaning/reading.py"
TABLE = "tests/unit/test_meaning.py::"
SHOWN = "tests/unit/test_projection.py::"
SUGGESTED = "tests/unit/test_suggest.py::"
CHECKED = "tests/unit/test_mapping_check.py::"
VERBS = "tests/integration/test_mapping_verbs.py::"

MEANING = (
    TextMutant(
        "meaning: no makes no record",
        READING,
        old='frozenset({"no", "none", "none_known", "unknown"})',
        new='frozenset({"none", "none_known", "unknown"})',
        test=f"{TABLE}test_a_question_by_itself",
    ),
    TextMutant(
        "meaning: an answer that isn't known makes no record",
        READING,
        old='frozenset({"no", "none", "none_known", "unknown"})',
        new='frozenset({"no", "none", "none_known"})',
        test=f"{TABLE}test_a_question_by_itself",
    ),
    Mutant(
        "meaning: a sibling withdraws",
        READING,
        function="_is_withdrawn",
        old='role == "present"',
        new='role == "absent"',
        test=f"{TABLE}test_what_stands_beside_it",
    ),
    Mutant(
        "meaning: what is ruled out is no condition",
        READING,
        function="_is_withdrawn",
        old='("no", "none", "ruled_out")',
        new='("no", "none")',
        test=f"{TABLE}test_what_stands_beside_it",
    ),
    Mutant(
        "meaning: what a relation has is not the patient's",
        READING,
        function="_Reading._decided",
        old='role == "relation"',
        new='role == "relative"',
        test=f"{TABLE}test_what_stands_beside_it",
    ),
    Mutant(
        "meaning: a suspicion stays one",
        READING,
        function="_Reading._decided",
        old='answer in ("past", "suspected")',
        new='answer == "past"',
        test=f"{TABLE}test_a_suspicion_stays_one",
    ),
    Mutant(
        "meaning: the outermost group of somebody else closes all within",
        READING,
        function="_Reading._header",
        old="nearest if outermost is None else outermost",
        new="nearest",
        test=f"{TABLE}test_the_outermost_group_of_somebody_else_closes_all_within",
    ),
    Mutant(
        "meaning: an answer of another class is no name",
        READING,
        function="_is_name",
        old="row.subject.value in _STATED_IN and row.subject.value_class not in _UNFIT[kind]",
        new="row.subject.value in _STATED_IN",
        test=f"{TABLE}test_a_question_by_itself",
    ),
    Mutant(
        "meaning: yes is the name of nothing",
        READING,
        function="_Reading._answered",
        old="answer in _NO_NAMES or not _is_name(kind, row)",
        new="not _is_name(kind, row)",
        test=f"{TABLE}test_a_question_by_itself",
    ),
    Mutant(
        "meaning: each drug of a group has its own dose",
        READING,
        function="_parts",
        old="parts[role] = [rows[index]]",
        new="parts[role] = rows",
        test=f"{SHOWN}test_two_drugs_of_a_prescription_are_two_medications",
    ),
    Mutant(
        "meaning: a dose that is left over is not that of the first drug",
        READING,
        function="_parts",
        old="before - 1 if value_first else min(before, len(values) - 1)",
        new="0",
        test=f"{SHOWN}test_a_second_dose_is_not_that_of_the_first_drug",
    ),
    Mutant(
        "meaning: of two readings nobody knows which belong together",
        READING,
        function="_Reading._blood_pressure",
        old="len(upper) != 1",
        new="len(upper) < 1",
        test=f"{SHOWN}test_of_two_readings_nobody_knows_which_belong_together",
    ),
    Mutant(
        "meaning: numbers of one moment are connected",
        "destinations/mongo/mirror.py",
        function="sealed",
        old="[*rows, moment]",
        new="rows",
        test=f"{SHOWN}test_a_blood_pressure_is_one_record",
    ),
    Mutant(
        "meaning: a hospital's own file is asked before a destination's",
        "destinations/mongo/__init__.py",
        function="rules_by_hospital",
        old="load(hospital.mapping, shared)",
        new="load(hospital.mapping)",
        test="tests/unit/test_mapping.py::test_a_hospitals_own_file_is_asked_first_and_for_it_alone",
    ),
    Mutant(
        "mapping: what nobody accepted is not written",
        "cli/mapping.py",
        function="suggest",
        old="suggestions = _suggestions(context, destination, hospital)",
        new=(
            "suggestions = _suggestions(context, destination, hospital)\n"
            "for _, concept, one in suggestions:\n"
            "    line = rule_line(one, concept.question.codes)\n"
            "    add_rule(Path(context.hospital(hospital).mapping or ''), line, '')"
        ),
        test=f"{VERBS}test_a_suggestion_is_written_only_if_a_person_accepts_it",
    ),
    Mutant(
        "mapping: the accepted suggestion alone is written",
        "cli/mapping.py",
        function="_accept",
        old="code in question.codes",
        new="question.codes",
        test=f"{VERBS}test_a_suggestion_is_written_only_if_a_person_accepts_it",
    ),
    Mutant(
        "mapping: a claim that is not sure is not suggested",
        "meaning/suggest.py",
        function="Suggester.suggest",
        old="kind in CLAIMS and confidence < LEAST_OF_A_CLAIM",
        new="False",
        test=f"{SUGGESTED}test_no_claim_is_suggested_below_its_confidence",
    ),
    Mutant(
        "mapping: a rule that is written leaves the rest of the file as it is",
        "meaning/mapping_file.py",
        function="with_rule",
        old="_is_empty(lines[end - 1])",
        new="False",
        test=f"{SUGGESTED}test_a_rule_is_put_behind_the_last_one_and_the_rest_stays",
    ),
    Mutant(
        "mapping: diff counts the records that go",
        "destinations/mongo/mapping_change.py",
        function="changes_of_person",
        old="old.keys() | new.keys()",
        new="new.keys()",
        test=f"{CHECKED}test_records_that_come_and_go_are_counted",
    ),
    Mutant(
        "mapping: diff counts a state that changes",
        "destinations/mongo/mapping_change.py",
        function="_says",
        old="fact.state",
        new="''",
        test=f"{CHECKED}test_a_state_and_a_content_that_change_are_changes",
    ),
    Mutant(
        "mapping: diff counts whose records change",
        "destinations/mongo/mapping_change.py",
        function="changes",
        old="counted[change].persons.add(person_id)",
        new="counted[change].persons.add(0)",
        test=f"{VERBS}test_the_diff_counts_what_changes_when_the_file_is_used",
    ),
    Mutant(
        "mapping: check names a rule that is never reached",
        "meaning/check.py",
        function="_shadowed_rules",
        old="first is not None and not is_reached",
        new="first is not None and is_reached",
        test=f"{CHECKED}test_a_rule_that_another_is_asked_before_is_named",
    ),
    TextMutant(
        "meaning: a negative test is not abnormal",
        "meaning/interpretation.py",
        old='"NEGATIVE": None',
        new='"NEGATIVE": "Abnormal"',
        test=f"{TABLE}test_every_interpretation_of_openmrs_is_decided",
    ),
    TextMutant(
        "meaning: no real question makes a claim of what is excluded",
        "config/mapping.yaml",
        old="  - name: taken off the history\n    kind: negated\n",
        new="  - name: taken off the history\n    kind: condition\n",
        test="tests/unit/test_corpus.py::test_nothing_becomes_a_claim_that_the_doctor_did_not_state",
    ),
    TextMutant(
        "meaning: nine of ten real questions are right",
        "config/mapping.yaml",
        old="  - name: vaccination that is named\n    kind: vaccination\n",
        new="  - name: vaccination that is named\n    kind: note\n",
        test="tests/unit/test_corpus.py::test_nine_of_ten_are_right",
    ),
    Mutant(
        "mapping: other rules are carried out",
        "destinations/mongo/sink.py",
        function="MongoSink.rules",
        old="fingerprint(self._rules[hospital])",
        new="hospital",
        test="tests/e2e/test_changed_mapping.py::"
        "test_it_is_carried_out_in_the_background_and_after_a_kill",
    ),
    Mutant(
        "mapping: the order of rules is a part of them",
        "meaning/rules.py",
        function="fingerprint",
        old="[rule.model_dump() for rule in rules.rules]",
        new='sorted(str(rule.model_dump(exclude={"name"})) for rule in rules.rules)',
        test="tests/unit/test_mapping.py::"
        "test_rules_that_decide_otherwise_have_another_fingerprint",
    ),
)

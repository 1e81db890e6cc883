"""Finds what in a mapping file does not fit a hospital's dictionary. Pure."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

from meaning.facts import Subject
from meaning.rules import Group, MappingRules, Matcher, Rule
from meaning.suggest import Question, own_code


class Problem(NamedTuple):
    """A finding: `place` is a part of the file, or a concept that stays a note."""

    problem: Literal["unknown code", "matches nothing", "shadowed", "stays a note"]
    place: str
    detail: str


def check(
    own: MappingRules,
    rules: MappingRules,
    dictionary: Sequence[Question],
    in_use: Collection[str],
) -> list[Problem]:
    """Return what a person should look at before the file is used.

    `own` are the rules of the file, `rules` these and all that are asked behind them. `dictionary`
    are all concepts of the hospital. `in_use` has, of each that an obs has as its question, the
    first of its codes.
    """
    problems: list[Problem] = []
    subjects = [_subject(concept) for concept in dictionary]
    known_codes = {code for concept in dictionary for code in concept.codes}
    problems += _unknown_codes(own, known_codes)
    for place, matcher in _matchers(own):
        if not any(_may_fit(matcher, subject) for subject in subjects):
            problems.append(Problem("matches nothing", place, "the dictionary has no such concept"))
    problems += _shadowed_rules(own, rules, subjects)
    problems += _shadowed_groups(own, subjects)
    for concept, subject in zip(dictionary, subjects, strict=True):
        # A concept without a datatype can't have a value: it only heads a form or a group.
        is_asked = concept.codes[0] in in_use and concept.datatype != "N/A"
        if is_asked and not _is_known(rules, subject):
            detail = f"{own_code(concept.codes)}, {concept.concept_class}, {concept.datatype}"
            problems.append(Problem("stays a note", concept.name, detail))
    return problems


def _subject(concept: Question) -> Subject:
    return Subject(concept.name, concept.concept_class, concept.datatype, concept.codes)


def _matchers(rules: MappingRules) -> Iterator[tuple[str, Matcher]]:
    """Yield each matcher of a question, with its place in the file."""
    for group in rules.groups:
        yield f"groups: {group.name}, header", group.header
        if group.value is not None:
            yield f"groups: {group.name}, value", group.value
        for role, part in group.parts.items():
            yield f"groups: {group.name}, {role}", part
    for role, matchers in rules.siblings:
        for matcher in matchers:
            yield f"siblings: {role}", matcher
    for rule in rules.rules:
        yield _place(rule), rule


def _place(rule: Rule) -> str:
    """Return where a rule stands: one without a name was given one that says it."""
    return rule.name if rule.name.startswith("rules.") else f"rules: {rule.name}"


def _unknown_codes(own: MappingRules, known_codes: Collection[str]) -> Iterator[Problem]:
    places: list[tuple[str, Iterable[str]]] = []
    for place, matcher in _matchers(own):
        places.append((place, (*matcher.mappings, *matcher.values)))
    for answer, listed in own.answers:
        places.append((f"answers: {answer}", sorted(listed.mappings)))
    for place, codes in places:
        for code in codes:
            if code not in known_codes:
                yield Problem("unknown code", place, code)


def _shadowed_rules(
    own: MappingRules, rules: MappingRules, subjects: Sequence[Subject]
) -> Iterator[Problem]:
    """Yield each rule that never decides, because rules before it know all of its concepts."""
    for index, rule in enumerate(rules.rules[: len(own.rules)]):
        first: Rule | None = None
        is_reached = False
        for subject in subjects:
            if not _may_fit(rule, subject):
                continue
            # The subject has no answer: a rule that needs one doesn't fit it.
            earlier = next((one for one in rules.rules[:index] if one.fits(subject)), None)
            first = first or earlier
            is_reached = is_reached or earlier is None
        if first is not None and not is_reached:
            detail = f"{first.name} is asked before it, and knows all of its concepts"
            yield Problem("shadowed", _place(rule), detail)


def _shadowed_groups(own: MappingRules, subjects: Sequence[Subject]) -> Iterator[Problem]:
    """Yield each group whose headers all begin another group that is asked before it."""
    for index, group in enumerate(own.groups):
        first: Group | None = None
        is_reached = False
        for subject in subjects:
            if not group.header.fits(subject):
                continue
            earlier = next((one for one in own.groups[:index] if one.header.fits(subject)), None)
            first = first or earlier
            is_reached = is_reached or earlier is None
        if first is not None and not is_reached:
            detail = f"{first.name} is asked before it, and has all of its headers"
            yield Problem("shadowed", f"groups: {group.name}", detail)


def _is_known(rules: MappingRules, subject: Subject) -> bool:
    """Return whether a rule knows the question, or a group has a place for it."""
    return any(_may_fit(matcher, subject) for _, matcher in _matchers(rules))


def _may_fit(matcher: Matcher, subject: Subject) -> bool:
    """Return whether the matcher fits the question with some answer."""
    if not matcher.values and not matcher.value_classes:
        return matcher.fits(subject)
    answered = subject._replace(
        value_class=next(iter(matcher.value_classes), None), value_mappings=matcher.values
    )
    return matcher.fits(answered)

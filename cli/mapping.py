"""The verbs of ``mapping``: what a hospital's observations mean, why, and what would change it."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.context import CommandContext
from cli.options import DestinationOption, HospitalOption, JsonOption, OnlyHospitalOption
from meaning.check import check as find_problems
from meaning.explain import explain as explain_row
from meaning.facts import Row, codes
from meaning.mapping_file import add_rule
from meaning.reading import BLOOD_PRESSURE
from meaning.rules import NO_RULES, MappingRules, load
from meaning.suggest import Question, Suggester, Suggestion, known_concepts, rule_line
from passport.errors import Fatal
from passport.facts import Concept
from passport.settings import Settings

if TYPE_CHECKING:
    from destinations.mongo.unmapped import UnmappedConcept

FileArgument = Annotated[Path, typer.Argument(help="A mapping file, such as the hospital's own.")]

commands = typer.Typer(
    no_args_is_help=True, help="Say what a hospital's observations mean, and prepare its mapping."
)


@commands.command()
def explain(
    ctx: typer.Context,
    obs: Annotated[int, typer.Option("--obs", help="The obs_id at the hospital.")],
    hospital: HospitalOption,
    destination: DestinationOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say which rule decides on one obs, why, what it becomes, and what would change it.

    The obs is read at the hospital. Its answer is never printed, only the answer's class.
    """
    from destinations.mongo import rules_by_hospital
    from destinations.mongo.projection.obs import live_rows
    from reconcile.one_obs import rows_of_its_person

    context: CommandContext = ctx.obj
    context.hospital(hospital)
    name, settings = context.destination(destination, "mongo")
    rules = rules_by_hospital(context.settings, settings)[hospital]
    rows = live_rows(rows_of_its_person(context.settings, hospital, obs), rules)
    explanation = _explained(rows, rules, obs)
    if rule := explanation.get("rule"):
        explanation["file"] = _file_of(context.settings, hospital, name, rule)
    if as_json:
        context.print_json({"hospital": hospital, "obs": obs} | explanation)
        return
    for heading, value in explanation.items():
        for text in value if isinstance(value, list) else [value]:
            if text:
                _print(context, f"{heading.replace('_', ' '):14}{text}")


@commands.command()
def unmapped(
    ctx: typer.Context,
    destination: DestinationOption = None,
    hospital: OnlyHospitalOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the concepts that no rule knows, with a suggestion for each and its confidence.

    `passport mapping suggest` says what a suggestion goes by. Nothing is decided by one.
    """
    context: CommandContext = ctx.obj
    rows: list[dict[str, Any]] = []
    for hospital_id, concept, suggestion in _suggestions(context, destination, hospital):
        rows.append(_as_row(hospital_id, concept, suggestion))
    columns = ("hospital", "obs", "concept", "class", "datatype", "confidence", "rule")
    context.print_rows(rows, columns, as_json=as_json)


@commands.command()
def suggest(
    ctx: typer.Context,
    hospital: HospitalOption,
    accept: Annotated[
        str | None, typer.Option("--accept", help="A code of the concept to write a rule for.")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", help="Write it there, not to the hospital's file in the settings."),
    ] = None,
    destination: DestinationOption = None,
    as_json: JsonOption = False,
) -> None:
    """Suggest what unmapped concepts ask for, as the nearest known concepts do.

    Nothing is written unless one suggestion is accepted, by a code of its concept.
    """
    context: CommandContext = ctx.obj
    suggestions = _suggestions(context, destination, hospital)
    if accept is not None:
        _accept(context, hospital, accept, file, suggestions)
        return
    if as_json:
        context.print_json(
            [
                _as_row(hospital_id, concept, suggestion)
                | {"codes": concept.question.codes, "evidence": _evidence(suggestion)}
                for hospital_id, concept, suggestion in suggestions
            ]
        )
        return
    for _, concept, suggestion in suggestions:
        question = concept.question
        lines = [
            f"{question.name} ({question.concept_class}, {question.datatype}; {concept.obs:,} obs)",
            f"  {rule_line(suggestion, question.codes)}   confidence {suggestion.confidence:.2f}",
            *(f"    {text}" for text in _evidence(suggestion)),
        ]
        _print(context, "\n".join(lines))


@commands.command()
def check(
    ctx: typer.Context,
    file: FileArgument,
    hospital: HospitalOption,
    destination: DestinationOption = None,
    as_json: JsonOption = False,
) -> int:
    """Check a mapping file against the hospital's dictionary before it is used.

    The dictionary is read at the hospital. Exit code 1: a rule of the file can't be used as it is.
    """
    from openmrs.dictionary import all_concepts, asked_concepts
    from openmrs.load_budget import WaitingPace
    from openmrs.load_share import LoadShare
    from openmrs.read import Source

    context: CommandContext = ctx.obj
    own = load(file, NO_RULES)
    rules = _with_file(context.settings, context.destination(destination, "mongo")[0], file)
    settings = context.hospital(hospital)
    with closing(Source(hospital, settings.mysql)) as source:
        pace = WaitingPace(settings.load_budget, Event(), share=LoadShare(source))
        asked = asked_concepts(source)
        concepts = {concept.concept_id: concept for concept in all_concepts(source, settings, pace)}
    questions = {concept_id: _question(concept) for concept_id, concept in concepts.items()}
    in_use = {questions[concept_id].codes[0] for concept_id in asked if concept_id in questions}
    problems = find_problems(own, rules, list(questions.values()), in_use)
    context.print_rows(
        [problem._asdict() for problem in problems],
        ("problem", "place", "detail"),
        as_json=as_json,
    )
    return int(any(problem.problem != "stays a note" for problem in problems))


@commands.command()
def diff(
    ctx: typer.Context,
    file: FileArgument,
    hospital: OnlyHospitalOption = None,
    destination: DestinationOption = None,
    as_json: JsonOption = False,
) -> None:
    """Count the records that a mapping file would change, and whose, before it is used.

    It stands where a hospital's own file stands. The mirror in MongoDB is read, and no hospital.
    """
    from destinations.mongo import mapping_change

    context: CommandContext = ctx.obj
    name, _ = context.destination(destination, "mongo")
    after = _with_file(context.settings, name, file)
    rows: list[dict[str, Any]] = []
    persons = 0
    with context.open_passport(destination) as (database, rules):
        for hospital_id in context.hospital_ids(hospital):
            changes = mapping_change.changes(database, hospital_id, rules[hospital_id], after)
            everybody: set[int] = set()
            for change, counted in sorted(changes.items(), key=lambda item: -item[1].records):
                everybody |= counted.persons
                row = {"hospital": hospital_id, "concept": change.concept, "code": change.code}
                row |= {"before": change.before, "after": change.after}
                rows.append(row | {"records": counted.records, "patients": len(counted.persons)})
            persons += len(everybody)
    columns = ("hospital", "concept", "code", "before", "after", "records", "patients")
    context.print_rows(rows, columns, as_json=as_json)
    if not as_json:
        records = sum(row["records"] for row in rows)
        _print(context, f"{records:,} records of {persons:,} patients")


def _print(context: CommandContext, text: str) -> None:
    """Print a text as it is: names of concepts have brackets and numbers."""
    context.console.print(text, highlight=False, markup=False, soft_wrap=True)


def _suggestions(
    context: CommandContext, destination: str | None, hospital: str | None
) -> list[tuple[str, "UnmappedConcept", Suggestion]]:
    """Return the unmapped concepts of one hospital or of all, each with its suggestion."""
    from destinations.mongo import unmapped as mirror

    suggester = Suggester(known_concepts())
    suggestions: list[tuple[str, UnmappedConcept, Suggestion]] = []
    with context.open_passport(destination) as (database, rules):
        for hospital_id in context.hospital_ids(hospital):
            for concept in mirror.concepts(database, hospital_id, rules[hospital_id]):
                suggestion = suggester.suggest(concept.question)
                suggestions.append((hospital_id, concept, suggestion))
    return suggestions


def _as_row(hospital_id: str, concept: "UnmappedConcept", suggestion: Suggestion) -> dict[str, Any]:
    question = concept.question
    return {
        "hospital": hospital_id,
        "obs": concept.obs,
        "concept": question.name,
        "class": question.concept_class,
        "datatype": question.datatype,
        "confidence": suggestion.confidence,
        "rule": rule_line(suggestion, question.codes),
    }


def _evidence(suggestion: Suggestion) -> list[str]:
    """Return the nearest known concepts that speak for the suggestion, and the one against it."""
    texts: list[str] = []
    for_it = [one for one in suggestion.neighbours if one.known.kind == suggestion.kind]
    against_it = [one for one in suggestion.neighbours if one.known.kind != suggestion.kind]
    for word, neighbours in (("as", for_it[:2]), ("but", against_it[:1])):
        for neighbour in neighbours:
            known = neighbour.known
            texts.append(
                f"{word} {known.question.name} of {known.dictionary}:"
                f" {known.kind.replace('_', ' ')}"
                f" (nearness {neighbour.nearness:.2f}: {neighbour.shared})"
            )
    return texts


def _accept(
    context: CommandContext,
    hospital: str,
    code: str,
    file: Path | None,
    suggestions: Iterable[tuple[str, "UnmappedConcept", Suggestion]],
) -> None:
    """Write the rule of the one concept that has this code. Raises Fatal if there is none."""
    place = file or context.hospital(hospital).mapping
    if place is None:
        raise Fatal(
            f"{hospital} has no mapping file",
            hint=f"set hospitals.{hospital}.mapping, or give --file",
        )
    for _, concept, suggestion in suggestions:
        question = concept.question
        if code in question.codes:
            line = rule_line(suggestion, question.codes)
            add_rule(Path(place), line, question.name)
            _print(context, f"{place}: {line}")
            return
    raise Fatal(
        f"no unmapped concept of {hospital} has the code {code}",
        hint=f"passport mapping suggest --hospital {hospital} --json   # codes",
    )


def _question(concept: Concept) -> Question:
    return Question(
        concept.name,
        concept.concept_class,
        concept.datatype,
        codes(concept.uuid, concept.mappings),
    )


def _with_file(settings: Settings, destination: str, file: Path) -> MappingRules:
    """Return the rules of a hospital whose own mapping file this is."""
    return load(file, load(settings.destinations[destination].mapping))


def _file_of(settings: Settings, hospital: str, destination: str, name: str) -> str:
    """Return the file that has the rule or group of this name."""
    if name == BLOOD_PRESSURE:
        return "none: it is so for all hospitals"
    files = (settings.hospital(hospital).mapping, settings.destinations[destination].mapping)
    for file in files:
        if file is None:
            continue
        own = load(file, NO_RULES)
        if any(rule.name == name for rule in own.rules):
            return file
        if any(group.name == name for group in own.groups):
            return file
    return "config/mapping.yaml"


def _explained(rows: Sequence[Row], rules: MappingRules, obs_id: int) -> dict[str, Any]:
    """Return the lines that explain one row, by their headings."""
    from destinations.mongo.projection.obs import record_type

    by_key = {row.key: row for row in rows}
    if obs_id not in by_key:
        why = "it is voided or replaced by a newer version, or the reader can't carry it"
        return {"becomes": "nothing", "why": why}
    row = by_key[obs_id]
    explanation = explain_row(rows, rules, obs_id)
    fact = explanation.fact
    answer = [row.subject.value, f"class {row.subject.value_class or 'none'}"]
    if explanation.answer:
        answer.append(f"in the list {explanation.answer}")
    lines: dict[str, Any] = {
        "concept": _described(row),
        "codes": ", ".join(dict.fromkeys(row.subject.mappings)),
        "stands_in": [_described(header) for header in _headers(row, by_key)],
        "answer": ", ".join(answer),
    }
    if fact is not None:
        type_of_record = record_type(fact, rules)
        shown = f"a record of type {type_of_record}" if type_of_record else "no record"
        state = "" if fact.state == "present" else f", {fact.state.replace('_', ' ')}"
        lines["becomes"] = f"{fact.kind.replace('_', ' ')}{state}: {shown}"
        if explanation.role:
            shown_kind = fact.kind.replace("_", " ")
            lines["becomes"] = f"the {explanation.role} of a {shown_kind}: {shown}"
        lines["rule"] = fact.rule or None
        lines["why"] = fact.why
    lines["would_change"] = list(explanation.changes)
    return lines


def _described(row: Row) -> str:
    subject = row.subject
    return f"{subject.name} ({subject.concept_class}, {subject.datatype}; obs {row.key})"


def _headers(row: Row, rows: Mapping[int, Row]) -> list[Row]:
    """Return the rows above this one, the nearest first."""
    headers: list[Row] = []
    above = rows.get(row.parent) if row.parent is not None else None
    while above is not None and above not in headers:
        headers.append(above)
        above = rows.get(above.parent) if above.parent is not None else None
    return headers

"""Decides what the facts are that a patient's observations state, in one place.

The Passport's projection and the FHIR destination ask it, so that nothing is decided twice. Wrong
meaning is worse than missing data: a father's diabetes must not become the patient's own.

How to call it::

    from meaning.facts import Row, Subject, codes
    from meaning.reading import read
    from meaning.rules import load

    subject = Subject(name, concept_class, datatype, codes(uuid, mappings), value="coded",
                      value_class="Diagnosis", value_mappings=codes(answer_uuid, answer_mappings),
                      said=text.casefold())
    facts = read([Row(obs_id, subject, parent=group_obs_id), ...], load())

`read` takes live rows: all of a person, or whole groups. `Subject.value` is the kind of the value
as in `passport.facts.Value` ("none" for a header), `said` its text in small letters. A `Fact` has
its kind and state, the rows that state it and are its parts, and the rule that decided, and why.

The design:

- `rules` reads config/mapping.yaml. A rule says what a question asks for, a group what its members
  say together, a list of answers what "no" is. The dictionary decides: by the codes of concepts
  (SAME-AS mappings, and uuids), their class and datatype, and by the group that a row stands in.
  No word of a name decides anything. Exact names stand for the few concepts that have no code.
- A hospital's own file comes before the project's. Files of version 1 stand alone, as they did.
- `reading` puts each row into its group, or leaves it alone. A group's kind holds for its members:
  the outermost group of somebody else closes all that is within it.
- Conditions, medications, allergies and vaccinations are claims. Only a question that is known to
  ask for one makes one, and only by an answer that can be one; the class of an answer alone never
  does. A question asks which (the answer is the name) or whether (the question is).
- No, none, never, not applicable and unknown state nothing. Only "no known allergies" is something
  to say, and a test may find none of something. A part of a group withdraws its claim: "present:
  no", "ruled out". A certainty makes it a suspicion, a relation somebody else's.
- One thing is one fact: a blood pressure has two rows, a group of two drugs is two medications.
- What no rule knows is a note: its question and its answer, and no more. `understood` is False, so
  that it is counted and listed until somebody writes a rule.
- `interpretation` is the table of OpenMRS' interpretations.
"""

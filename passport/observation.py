"""The former place of `passport.facts`, kept for one release for destinations of your own."""

import warnings

from passport.facts import (
    Author,
    Concept,
    Encounter,
    Observation,
    ObservationOrigin,
    Person,
    Place,
    Value,
    ValueKind,
)

__all__ = [
    "Author",
    "Concept",
    "Encounter",
    "Observation",
    "ObservationOrigin",
    "Person",
    "Place",
    "Value",
    "ValueKind",
]

warnings.warn("passport.observation is passport.facts now", DeprecationWarning, stacklevel=2)

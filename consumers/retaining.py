"""Tells a destination which rows the persons have who were read whole: at once, or in steps."""

from collections.abc import Sequence

from consumers.reenrich import ReenrichmentQueue, Slice
from consumers.waiting import BigPerson
from passport.facts import Person
from passport.sink import RetainsInSteps, RetainStep, Sink


class Retaining:
    """The retaining of persons at one destination. Its methods raise what the sink raises."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._in_steps = sink if isinstance(sink, RetainsInSteps) else None

    def begin(self, piece: Slice) -> None:
        """Tell the destination of a big person before the first slice is written."""
        big = piece.queue
        if self._in_steps is None or not isinstance(big, BigPerson):
            return
        if big.begun is None and big.person is not None:
            big.begun = self._in_steps.begin_person(big.person)

    def person(
        self, queue: ReenrichmentQueue, piece: Slice, person: Person, keys: Sequence[int]
    ) -> RetainStep:
        """Tell the destination which obs_ids a person of `piece` has.

        If the step is not the last one, the piece must not be finished: it comes again.
        """
        if self._in_steps is None:
            return RetainStep(self._sink.retain(person, keys, piece.version), is_last=True)
        if isinstance(piece.queue, BigPerson):
            return self._big_person(self._in_steps, piece.queue, person)
        steps = self._in_steps.retain_steps(person, frozenset(keys), piece.version, None)
        step = next(steps)
        if not step.is_last:
            # The destination has many rows of somebody who has few at the hospital, as after a
            # merge. The steps of a person who is read in slices are known over an error.
            queue.read_in_slices(person.person_id)
        return RetainStep(step.outcome, is_last=True)

    def _big_person(self, in_steps: RetainsInSteps, big: BigPerson, person: Person) -> RetainStep:
        steps = big.steps
        if steps is None:
            keys = frozenset(big.keys)
            steps = in_steps.retain_steps(person, keys, big.version, big.begun)
        big.steps = None  # if this step fails, they begin anew
        step = next(steps)
        if not step.is_last:
            big.steps = steps
        return step

"""Two writers of one hospital, wherever one of them stands still: nobody ever sees a value that was
never theirs, no edit is lost, and all ends as the hospital says.

A failing seed is printed; ``python -m tests.simulation writers 17`` runs it again.
"""

from collections import Counter
from collections.abc import Callable

import pytest

from destinations.mongo.fence import Fence
from meaning.rules import MappingRules, load
from passport.errors import Overtaken
from tests.simulation.world import BrokenPromise
from tests.simulation.writers import (
    Change,
    interleaved,
    random_history,
    small_histories,
)

SEEDS = 200
HAPPENED = (
    "overtaken",
    "killed",
    "edited",
    "rename",
    "end",
    "swap",
    "share",
    "void",
    "slice",
    "step",
)
SMALL = list(small_histories())


@pytest.fixture(scope="module")
def rules() -> MappingRules:
    return load(None)


@pytest.mark.parametrize(
    ("before", "meanwhile"), [small[1:] for small in SMALL], ids=[small[0] for small in SMALL]
)
def test_a_writer_may_stand_still_anywhere(
    rules: MappingRules, before: Change, meanwhile: Change
) -> None:
    """The first one at each of its calls; then the other one works to its end."""
    overtaken = 0
    calls = 0
    while True:
        calls += 1
        history = interleaved(rules, before, meanwhile, [calls, 100_000])
        overtaken += history.world.happened.get("overtaken", 0)
        if not history.met:
            break
    assert overtaken > 20, "most of these places are behind the taking"


@pytest.mark.parametrize(
    ("before", "meanwhile"), [small[1:] for small in SMALL[:2]], ids=[s[0] for s in SMALL[:2]]
)
def test_both_may_stand_still_anywhere(
    rules: MappingRules, before: Change, meanwhile: Change
) -> None:
    """The first one at each of its calls, and the other one at each of its calls after that."""
    first = 0
    is_met = True
    while is_met:
        first += 3
        second = 0
        is_met = False
        while True:
            second += 3
            history = interleaved(rules, before, meanwhile, [first, second])
            is_met |= history.met
            if history.is_second_at_its_end:
                break


def test_every_history_ends_well(rules: MappingRules) -> None:
    happened, broken = histories(rules, SEEDS)
    assert not broken, "\n".join(broken)
    assert not [name for name in HAPPENED if not happened[name]], "each of it really happened"


@pytest.mark.long
def test_thousands_of_histories_end_well(rules: MappingRules) -> None:
    _, broken = histories(rules, 5_000)
    assert not broken, "\n".join(broken)


def histories(rules: MappingRules, seeds: int) -> tuple[Counter[str], list[str]]:
    happened: Counter[str] = Counter()
    broken = []
    for seed in range(1, seeds + 1):
        try:
            happened.update(random_history(rules, seed).world.happened)
        except AssertionError as error:
            broken.append(f"python -m tests.simulation writers {seed}   # {error}")
    return happened, broken


# --- the same with one rule broken: each must be found out


def anybody_writes(patch: pytest.MonkeyPatch) -> None:
    def touch(*_: object) -> None:
        pass

    patch.setattr(Fence, "_touch", touch)


def the_fence_is_looked_at_before_the_transaction(patch: pytest.MonkeyPatch) -> None:
    write, touch = Fence._write_all, Fence._touch

    def changed(self: Fence, *given: object) -> object:
        session = self._own_session()
        session.start_transaction()
        try:
            touch(self, session)
        except Overtaken:
            session.abort_transaction()
            raise
        session.commit_transaction()
        return write(self, *given)  # type: ignore[arg-type]

    patch.setattr(Fence, "_write_all", changed)
    patch.setattr(Fence, "_touch", lambda *_: None)


@pytest.mark.parametrize(
    "mutation", [anybody_writes, the_fence_is_looked_at_before_the_transaction]
)
def test_a_broken_rule_is_found_out(
    rules: MappingRules, mutation: Callable[[pytest.MonkeyPatch], None]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        mutation(patch)
        for seed in range(1, 3_000):
            try:
                random_history(rules, seed)
            except BrokenPromise as error:
                print(mutation.__name__, "is found out by seed", seed, str(error)[:90])
                return
    raise AssertionError(f"{mutation.__name__} is not found out")


def test_a_seed_is_always_the_same_history(rules: MappingRules) -> None:
    def end() -> tuple[int, dict[str, int], int]:
        history = random_history(rules, 7)
        return history.world.calls, history.world.happened, len(history.server.documents)

    assert end() == end()

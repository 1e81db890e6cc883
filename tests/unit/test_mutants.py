"""The mutants follow the code: each finds its one place, and the test that must see it is there."""

from pathlib import Path

import pytest

from tests.mutants.patches import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda one: one.promise)
def test_it_has_one_place_and_a_test(mutant: Mutant) -> None:
    assert (ROOT / mutant.file).read_text(encoding="utf-8").count(mutant.old) == 1
    file, _, name = mutant.test.partition("::")
    assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8")

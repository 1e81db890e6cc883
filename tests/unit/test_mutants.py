"""The mutants follow the code: each finds its one place, and the test that must see it is there."""

import re
from pathlib import Path

import pytest

from tests.mutants.__main__ import MUTANTS
from tests.mutants.patches import Mutant
from tests.mutants.rows import ROWS

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda one: one.promise)
def test_it_has_one_place_and_a_test(mutant: Mutant) -> None:
    assert (ROOT / mutant.file).read_text(encoding="utf-8").count(mutant.old) == 1
    file, _, name = mutant.test.partition("::")
    assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8")


def test_every_row_of_the_acceptance_table_has_one_of_its_own() -> None:
    rows = [(int(one.promise.split()[1].rstrip(":")), one) for one in ROWS]
    assert {row for row, _ in rows} == {*range(8, 47)}
    for row, one in rows:
        assert re.search(rf"::test_row_0?{row}_", one.test), one.promise

"""The mutants follow the code: each finds its one place, and the test that must see it exists."""

import ast
import re
from pathlib import Path

import pytest

from tests.mutants.__main__ import MUTANTS
from tests.mutants.edit import Mutant, PlaceError, TextMutant
from tests.mutants.rows import ROWS

ROOT = Path(__file__).resolve().parents[2]

MODULE = '''
KEYS = {"person": "person_id"}


class Reader:
    wait_s: int = 10

    @retried(times=3)
    def read(self, limit=100):
        if self.open:  # a comment
            self.count()
            self.close()
        return self.rows("""SELECT obs_id
            FROM obs""", order="obs_id") if limit else []

    def stop(self):
        self.close()


def close(reader):
    reader.close()
'''


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.promise)
def test_it_has_one_place_and_a_test(mutant: Mutant | TextMutant) -> None:
    source = (ROOT / mutant.file).read_text(encoding="utf-8")
    assert mutant.apply(source) != source
    file, _, name = mutant.test.partition("::")
    assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8")


def test_every_row_of_the_acceptance_table_has_one_of_its_own() -> None:
    rows = [(int(mutant.promise.split()[1].rstrip(":")), mutant) for mutant in ROWS]
    assert {row for row, _ in rows} == {*range(8, 47)}
    for row, mutant in rows:
        assert re.search(rf"::test_row_0?{row}_", mutant.test), mutant.promise


@pytest.mark.parametrize(
    ("function", "old", "new", "before", "after"),
    [
        pytest.param(
            "Reader.read", "self.open", "not self.open",
            "if self.open:", "if not self.open:",
            id="an expression",
        ),
        pytest.param(
            "Reader.read", "limit", "limit + 1",
            "if limit else", "if limit + 1 else",
            id="a name that is read, not the parameter",
        ),
        pytest.param(
            "Reader.read", "self.count()", "pass",
            "self.count()", "pass",
            id="a statement is deleted",
        ),
        pytest.param(
            "Reader.read", "self.count()\nself.close()", "if limit:\n    self.close()",
            "self.count()\n            self.close()", "if limit:\n                self.close()",
            id="statements",
        ),
        pytest.param(
            "Reader.read", "order='obs_id'", "order='person_id'",
            'order="obs_id"', 'order="person_id"',
            id="a keyword argument",
        ),
        pytest.param("Reader.read", "100", "1", "limit=100", "limit=1", id="a default"),
        pytest.param("Reader.read", "times=3", "times=0", "times=3", "times=0", id="a decorator"),
        pytest.param(
            "Reader", "wait_s: int = 10", "wait_s: int",
            "wait_s: int = 10", "wait_s: int",
            id="a field of a class",
        ),
        pytest.param(
            "", '{"person": "person_id"}', "{}",
            '{"person": "person_id"}', "{}",
            id="outside of functions",
        ),
        pytest.param(
            "Reader.read", '"SELECT obs_id FROM obs"', '"SELECT 1"',
            '"""SELECT obs_id\n            FROM obs"""', '"SELECT 1"',
            id="SQL, however it is indented",
        ),
        pytest.param(
            "Reader.stop", "self.close()", "self.open()",
            "def stop(self):\n        self.close()", "def stop(self):\n        self.open()",
            id="only in its function",
        ),
    ],
)  # fmt: skip
def test_an_edit_changes_one_place(
    function: str, old: str, new: str, before: str, after: str
) -> None:
    assert MODULE.count(before) == 1
    mutated = _mutant(function, old, new).apply(MODULE)
    assert ast.dump(ast.parse(mutated)) == ast.dump(ast.parse(MODULE.replace(before, after)))


@pytest.mark.parametrize(
    ("function", "old", "message"),
    [
        ("Reader.read", "self.shut()", "reader.py, Reader.read: 0 places match, not one"),
        ("Reader", "self.close()", "reader.py, Reader: 2 places match, not one"),
        ("", "close", "reader.py, the module: 0 places match, not one"),
        ("Reader.open", "self.close()", "reader.py has no Reader.open"),
        ("read", "self.close()", "reader.py has no read"),
    ],
)
def test_an_edit_without_its_one_place_says_where_it_looked(
    function: str, old: str, message: str
) -> None:
    with pytest.raises(PlaceError, match=f"^{re.escape(message)}"):
        _mutant(function, old, "pass").apply(MODULE)


def test_code_that_is_not_python_is_refused() -> None:
    with pytest.raises(SyntaxError):
        _mutant("Reader.stop", "self.close()", "").apply(MODULE)
    with pytest.raises(SyntaxError):
        _mutant("Reader.stop", "self.close()", "continue").apply(MODULE)


def test_a_text_is_replaced_where_it_is_once() -> None:
    mutant = TextMutant("a promise", "mapping.yaml", old="type: test", new="type: drug", test="")
    assert mutant.apply("- type: test\n") == "- type: drug\n"
    with pytest.raises(PlaceError, match=r"^mapping\.yaml: 2 places match, not one: type: test"):
        mutant.apply("- type: test\n- type: test\n")


def _mutant(function: str, old: str, new: str) -> Mutant:
    return Mutant("a promise", "reader.py", function, old, new, test="")

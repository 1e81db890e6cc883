"""A mutant is a small edit of a product file, which the test of a promise must notice.

In Python files the place is found in the syntax tree of one function, not in the text. So a mutant
stays valid when the code around it is formatted anew, commented, or changed elsewhere in the file.
"""

import ast
import re
import textwrap
from typing import NamedTuple

DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)

Nodes = list[ast.AST]
"""An expression, a keyword argument, or statements that follow each other in one block."""


class PlaceError(Exception):
    """The code that a mutant replaces is missing, or it is there several times."""


class Mutant(NamedTuple):
    """An edit of a Python file: in one function, `new` replaces the only code that reads `old`.

    `function` is a dotted name as in "Checkpoint.acked", or the name of a class. "" is the whole
    file. `old` and `new` are both an expression, or both statements ("pass" deletes), or both a
    keyword argument as in "start=None".
    """

    promise: str
    file: str
    function: str
    old: str
    new: str
    test: str

    def apply(self, source: str) -> str:
        """Return the mutated source, without comments.

        Raises PlaceError if the function doesn't have `old` exactly once, SyntaxError if `old`,
        `new` or the mutated source isn't Python.
        """
        tree = ast.parse(source)
        definitions = _definitions(tree, self.function)
        if not definitions:
            raise PlaceError(f"{self.file} has no {self.function}")

        places: list[tuple[Nodes, Nodes]] = []
        for old, new in _readings(self.old, self.new):
            for definition in definitions:
                places.extend((place, new) for place in _places(definition, old))
        if len(places) != 1:
            scope = self.function or "the module"
            raise PlaceError(
                f"{self.file}, {scope}: {len(places)} places match, not one: {self.old}"
            )

        _Replacement(*places[0]).visit(tree)
        mutated = ast.unparse(tree)
        compile(mutated, self.file, "exec")
        return mutated


class TextMutant(NamedTuple):
    """An edit of a file that isn't Python: `new` replaces the only text that is exactly `old`."""

    promise: str
    file: str
    old: str
    new: str
    test: str

    def apply(self, source: str) -> str:
        """Return the mutated source. Raises PlaceError if it doesn't have `old` exactly once."""
        count = source.count(self.old)
        if count != 1:
            raise PlaceError(f"{self.file}: {count} places match, not one: {self.old}")
        return source.replace(self.old, self.new)


def _definitions(tree: ast.Module, dotted_name: str) -> Nodes:
    """Return the functions or classes of that name: several if it is defined again, as a setter."""
    definitions: Nodes = [tree]
    if not dotted_name:
        return definitions
    for name in dotted_name.split("."):
        inner: Nodes = []
        for definition in definitions:
            for child in ast.iter_child_nodes(definition):
                if isinstance(child, DEFINITIONS) and child.name == name:
                    inner.append(child)
        definitions = inner
    return definitions


def _readings(old: str, new: str) -> list[tuple[Nodes, Nodes]]:
    """Return `old` and `new` parsed, in each way in which both can be read.

    A call is an expression and a statement. It is read as an expression, which is found in both,
    unless the other fragment is no expression. "a=1" is a statement and a keyword argument.
    """
    old_expression = _expression(old)
    new_expression = _expression(new)
    if old_expression and new_expression:
        return [(old_expression, new_expression)]

    readings = [(_statements(old), _statements(new))]
    old_keyword = _keyword(old)
    new_keyword = _keyword(new)
    if old_keyword and new_keyword:
        readings.append((old_keyword, new_keyword))
    return readings


def _expression(fragment: str) -> Nodes:
    """Return the fragment as an expression, or nothing if it is none."""
    try:
        return [ast.parse(fragment.strip(), mode="eval").body]
    except SyntaxError:
        return []


def _keyword(fragment: str) -> Nodes:
    """Return the fragment as the keyword argument of a call, or nothing if it is none."""
    try:
        call = ast.parse(f"call({fragment})", mode="eval").body
    except SyntaxError:
        return []
    if isinstance(call, ast.Call) and not call.args and len(call.keywords) == 1:
        return [call.keywords[0]]
    return []


def _statements(fragment: str) -> Nodes:
    statements: Nodes = [*ast.parse(textwrap.dedent(fragment)).body]
    if not statements:
        raise SyntaxError("a mutant's code is empty: pass deletes a statement")
    return statements


def _places(definition: ast.AST, old: Nodes) -> list[Nodes]:
    """Return each run of neighbours in the definition that reads as `old`."""
    wanted = [_reading(node) for node in old]
    places: list[Nodes] = []
    for parent in ast.walk(definition):
        for _, value in ast.iter_fields(parent):
            children = value if isinstance(value, list) else [value]
            for start in range(len(children) - len(old) + 1):
                run = children[start : start + len(old)]
                if type(run[0]) is type(old[0]) and [_reading(node) for node in run] == wanted:
                    places.append(run)
    return places


def _reading(node: ast.AST) -> str:
    """Return what is equal for two nodes that mean the same.

    Any white space in a string is as good as one space, because SQL is indented with its code.
    """
    return re.sub(r"(\\n|\s)+", " ", ast.dump(node))


class _Replacement(ast.NodeTransformer):
    """Puts the new nodes where the run of old ones is."""

    def __init__(self, place: Nodes, new: Nodes) -> None:
        self._place = place
        self._new = new

    def visit(self, node: ast.AST) -> ast.AST | Nodes | None:
        if node is self._place[0]:
            # An expression may be its parent's only child, where a list isn't valid.
            return self._new[0] if len(self._new) == 1 else self._new
        if any(node is replaced for replaced in self._place):
            return None
        return self.generic_visit(node)

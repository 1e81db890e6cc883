"""The rules of the tree that no linter knows, checked by `make lint`: ``python -m dev.rules``."""

import ast
import re
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PRODUCT = ("passport", "cdc", "consumers", "reconcile", "portal")
OUTSIDE = "destinations"  # as anybody's own: the same rules, not counted as the product, and no import but these
MAY_IMPORT = ("consumers.sinks", "passport", OUTSIDE)
TOP_LEVEL = {*PRODUCT, OUTSIDE, "dev", "tests", "config", "docs", "benchmarks", "deploy"}
VAGUE = re.compile(r"^(utils?|helpers?|common|managers?|base|misc)$")
PURE = (
    "destinations/fhir/resources.py",
    "cdc/rows.py",
    "consumers/enrich.py",
    "consumers/sinks/mongo/records.py",
    "passport/version.py",
)
IMPURE = {"time", "socket", "os", "random", "pymysql", "pymongo", "kafka", "threading", "logging", "structlog"}
MODULE, MEDIAN, P95 = 400, 10, 40
LINES = 12_760  # of code; the aim is 7,000, and docs/decisions/0003-size.md says where the rest is
# Where a client is met: nowhere else in that stage.
CLIENTS = {
    "pymysqlreplication": {"cdc": 1},
    "kafka": {"cdc": 2, "consumers": 2},  # publishing and reading positions; consuming and dead letters
    "pymysql": {"passport": 1, "cdc": 4, "consumers": 0, "reconcile": 1},
}


def main() -> int:
    """Prints what breaks a rule, a line each, and the sizes; 1 if anything does."""
    modules = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(_modules())}
    problems = [
        *_names(modules),
        *_sentences(),
        *_purity(modules),
        *_clients(modules),
        *_outside(modules),
        *_sizes(modules),
    ]
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def _modules() -> Iterator[Path]:
    for place in (*PRODUCT, OUTSIDE):
        yield from (ROOT / place).rglob("*.py")


def _short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _names(modules: dict[Path, ast.Module]) -> Iterator[str]:
    for folder in ROOT.iterdir():
        if folder.is_dir() and not folder.name.startswith((".", "_")) and folder.name not in {*TOP_LEVEL, "dist"}:
            yield f"{folder.name}/: the tree has no such place"
    for path in modules:
        if VAGUE.match(path.stem) or VAGUE.match(path.parent.name):
            yield f"{_short(path)}: a vague name; say what it does"


def _sentences() -> Iterator[str]:
    for path in (file for file in _modules() if file.name == "__init__.py"):
        first = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n\n")[0]
        if not re.fullmatch(r"[^.]+(\.[^.\s][^.]*)*\.", " ".join(first.split())):
            yield f"{_short(path)}: its docstring doesn't begin with one sentence"


def _imports(tree: ast.Module) -> set[str]:
    return {name.partition(".")[0] for name in _modules_of(tree)}


def _purity(modules: dict[Path, ast.Module]) -> Iterator[str]:
    for name in PURE:
        if impure := _imports(modules[ROOT / name]) & IMPURE:
            yield f"{name}: is pure, yet imports {', '.join(sorted(impure))}"


def _clients(modules: dict[Path, ast.Module]) -> Iterator[str]:
    for client, stages in CLIENTS.items():
        for stage, allowed in stages.items():
            users = [_short(path) for path, tree in modules.items() if client in _imports(tree)]
            users = [user for user in users if user.startswith(f"{stage}/")]
            if len(users) > allowed:
                yield f"{stage}: {client} is met in {len(users)} files ({', '.join(users)}), {allowed} allowed"


def _outside(modules: dict[Path, ast.Module]) -> Iterator[str]:
    for path, tree in modules.items():
        if _short(path).startswith(f"{OUTSIDE}/"):
            for name in sorted(_modules_of(tree)):
                ours = name.partition(".")[0] in (*PRODUCT, "dev", "tests")
                if ours and not any(f"{name}.".startswith(f"{one}.") for one in MAY_IMPORT):
                    yield f"{_short(path)}: imports {name}, which no module from outside could rely on"


def _modules_of(tree: ast.Module) -> set[str]:
    nodes = list(ast.walk(tree))
    whole = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return whole | {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}


def _sizes(modules: dict[Path, ast.Module]) -> Iterator[str]:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in modules}
    functions = sorted(
        (node.end_lineno or 0) - node.lineno + 1
        for tree in modules.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    median, p95 = statistics.median(functions), functions[int(len(functions) * 0.95)]
    code = {path: len(_code(path.read_text(encoding="utf-8"), tree)) for path, tree in modules.items()}
    outside = sum(lines for path, lines in code.items() if _short(path).startswith(f"{OUTSIDE}/"))
    total = sum(code.values()) - outside
    print(f"{len(lengths)} modules, {total} lines of code, and {outside} of {OUTSIDE}")
    print(f"{len(functions)} functions, median {median:.0f}, p95 {p95} lines")
    yield from (f"{_short(path)}: {size} lines, {MODULE} allowed" for path, size in lengths.items() if size > MODULE)
    if total > LINES:
        yield f"product code has {total} lines, {LINES} allowed"
    if median > MEDIAN or p95 > P95:
        yield f"functions have {median} lines (median) and {p95} (95 %); {MEDIAN} and {P95} allowed"


def _code(text: str, tree: ast.Module) -> list[str]:
    """Lines that are neither blank nor comment nor docstring."""
    documented: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            documented |= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    numbered = enumerate(text.splitlines(), 1)
    return [line for number, line in numbered if line.strip()[:1] not in ("", "#") and number not in documented]


if __name__ == "__main__":
    sys.exit(main())

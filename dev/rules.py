"""The rules of the tree that no linter knows, checked by `make lint`: ``python -m dev.rules``."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
PRODUCT = (
    "cli",
    "portal",
    "reconcile",
    "legacy_import",
    "cdc",
    "consumers",
    "destinations",
    "meaning",
    "openmrs",
    "passport",
)
TOP_LEVEL = {*PRODUCT, "dev", "tests", "config", "docs", "benchmarks", "deploy", "dist"}
VAGUE = re.compile(r"^(utils?|helpers?|common|managers?|base|misc)$")

# A destination is written as anybody outside this project would write one: against the contract.
# What a fact is, is decided once for all of them. The Passport's own destination may also ask the
# hospitals, which an erasure has to do.
DESTINATIONS_MAY_IMPORT = {
    "destinations/jsonl.py": ("passport",),
    "destinations/fhir/": ("passport", "destinations.fhir", "meaning"),
    "destinations/mongo/": ("passport", "destinations.mongo", "meaning", "openmrs"),
}

# These modules do no I/O and read no clock, so that their tests need no server and no waiting.
PURE = (
    "cdc/binlog/rows_event.py",
    "consumers/enrich/obs.py",
    "destinations/fhir/resources.py",
    "destinations/mongo/projection/obs.py",
    "meaning/check.py",
    "meaning/explain.py",
    "meaning/facts.py",
    "meaning/interpretation.py",
    "meaning/reading.py",
    "openmrs/wall_time.py",
    "passport/version.py",
)
IMPURE = {
    "kafka",
    "logging",
    "os",
    "pymongo",
    "pymysql",
    "random",
    "socket",
    "structlog",
    "threading",
    "time",
}

# In how many files of a package a client library may be met.
CLIENTS = {
    "kafka": {"cdc": 1, "consumers": 1, "passport": 1},
    "pymongo": {"portal": 4, "reconcile": 0, "cdc": 0, "consumers": 0, "openmrs": 0},
    "pymysql": {"passport": 0, "openmrs": 3, "consumers": 0, "destinations": 0},
    "pymysqlreplication": {"cdc": 1},
}

# A path in prose stands in back quotes or is the target of a link, and its first folder is ours. An
# anchor of a linked page is a heading of it, in small letters and with dashes.
MENTIONED = re.compile(r"`([\w./-]+)`|\]\(([\w./-]+)(?:#([\w-]*))?\)")


def main() -> int:
    """Print each broken rule on a line of its own. Return 1 if there is one, else 0."""
    modules = {path: ast.parse(path.read_text(encoding="utf-8")) for path in _product_files()}
    problems = [
        *_vague_names(modules),
        *_packages_without_a_sentence(modules),
        *_impure_modules(modules),
        *_clients_in_too_many_files(modules),
        *_destinations_that_import_too_much(modules),
        *_imports_of_dev(modules),
        *_missing_paths(),
    ]
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def _product_files() -> list[Path]:
    return sorted(path for package in PRODUCT for path in (ROOT / package).rglob("*.py"))


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _vague_names(modules: Mapping[Path, ast.Module]) -> Iterator[str]:
    for folder in ROOT.iterdir():
        is_hidden = folder.name.startswith((".", "_"))
        if folder.is_dir() and not is_hidden and folder.name not in TOP_LEVEL:
            yield f"{folder.name}/: the tree has no such place"
    for path in modules:
        if VAGUE.match(path.stem) or VAGUE.match(path.parent.name):
            yield f"{_name(path)}: a vague name; say what it does"


def _packages_without_a_sentence(modules: Mapping[Path, ast.Module]) -> Iterator[str]:
    for path, tree in modules.items():
        if path.name != "__init__.py":
            continue
        first_paragraph = (ast.get_docstring(tree) or "").split("\n\n")[0]
        if not re.fullmatch(r"[^.]+(\.[^.\s][^.]*)*\.", " ".join(first_paragraph.split())):
            yield f"{_name(path)}: its docstring doesn't begin with one sentence"


def _impure_modules(modules: Mapping[Path, ast.Module]) -> Iterator[str]:
    for name in PURE:
        packages = {module.partition(".")[0] for module in _imported(modules[ROOT / name])}
        if impure := packages & IMPURE:
            yield f"{name}: is pure, yet imports {', '.join(sorted(impure))}"


def _clients_in_too_many_files(modules: Mapping[Path, ast.Module]) -> Iterator[str]:
    for client, packages in CLIENTS.items():
        for package, allowed in packages.items():
            users = [
                _name(path)
                for path, tree in modules.items()
                if path.is_relative_to(ROOT / package)
                and any(module.partition(".")[0] == client for module in _imported(tree))
            ]
            if len(users) > allowed:
                files = f"{len(users)} files ({', '.join(users)})"
                yield f"{package}: {client} is met in {files}, {allowed} allowed"


def _destinations_that_import_too_much(modules: Mapping[Path, ast.Module]) -> Iterator[str]:
    for path, tree in modules.items():
        for place, allowed in DESTINATIONS_MAY_IMPORT.items():
            if not _name(path).startswith(place):
                continue
            for module in sorted(_imported(tree)):
                is_ours = module.partition(".")[0] in (*PRODUCT, "dev", "tests")
                if is_ours and not any(f"{module}.".startswith(f"{name}.") for name in allowed):
                    contract = "which is no part of a destination's contract"
                    yield f"{_name(path)}: imports {module}, {contract}"


def _imports_of_dev(modules: Mapping[Path, ast.Module]) -> Iterator[str]:
    for path, tree in modules.items():
        for module in sorted(_imported(tree)):
            if module.partition(".")[0] in ("dev", "tests", "benchmarks"):
                yield f"{_name(path)}: imports {module}, which no wheel has"


def _imported(tree: ast.Module) -> set[str]:
    """Return the dotted names of all modules that a module imports, wherever in it."""
    modules: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module)
    return modules


def _missing_paths() -> Iterator[str]:
    """Yield every path that README and docs name and that the tree doesn't have."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    for page in sorted(pages):
        if page.name == "CHANGELOG.md":  # it names places of earlier releases
            continue
        for quoted, linked, anchor in MENTIONED.findall(page.read_text(encoding="utf-8")):
            target = page.parent / linked
            if linked and not target.exists():
                yield f"{_name(page)}: links to {linked}, which isn't there"
            elif anchor and anchor not in _anchors(target):
                yield f"{_name(page)}: links to {linked}#{anchor}, and there is no such heading"
            folder = quoted.partition("/")[0]
            is_a_path = "/" in quoted and folder in TOP_LEVEL - {"dist"}
            if is_a_path and not (ROOT / quoted).exists() and not _is_ignored(quoted):
                yield f"{_name(page)}: names {quoted}, which isn't there"


def _anchors(page: Path) -> set[str]:
    """Return the anchors that a Markdown page gets for its headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _is_ignored(path: str) -> bool:
    """Return whether git ignores a path, such as config/local.yaml, which each reader makes."""
    return (
        subprocess.run(["git", "check-ignore", "-q", path], cwd=ROOT, check=False).returncode == 0
    )


if __name__ == "__main__":
    sys.exit(main())

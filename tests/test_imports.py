"""The rooms of the package: each imports only those before it, in types and in functions too."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import uniroute_fast as uf

PACKAGE = Path(uf.__file__).parent
ROOT = PACKAGE.parents[1]

#: In the order in which data flows. A room imports itself and those on the lines above it.
ROOMS = (
    ("_native", "errors", "_versions"),
    ("_checks",),
    ("embedding",),
    ("clusters",),
    ("profiles",),
    ("costs",),
    ("decisions",),
    ("router",),
    ("datasets",),
    ("evaluate",),
    ("collect",),
    ("batch",),
    ("report",),
    ("integrations",),
    ("serving",),
    ("cli",),
)
LEVEL = {room: level for level, line in enumerate(ROOMS) for room in line}

#: What a function of an earlier room imports of a later one when it is called, and why.
LATER = {
    # How `fit` chooses settings is a measure of the evaluation.
    ("router.py", "uniroute_fast.evaluate.deferral"),
}


def imports(file: Path) -> Iterator[str]:
    """Yield the modules of this package that a file imports, wherever in it."""
    package = ["uniroute_fast", *file.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names if one.name.startswith("uniroute_fast"))
        if isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*start, *filter(None, [node.module])])
            if source == "uniroute_fast":
                # The public names are imported by rooms after all of these; here only modules.
                yield from (f"{source}.{one.name}" for one in node.names)
            elif source.startswith("uniroute_fast."):
                submodules = [f"{source}.{one.name}" for one in node.names]
                found = [one for one in submodules if file_of(one)]
                yield from found or [source]


def file_of(module: str) -> Path | None:
    """Return the file of a module of this package."""
    path = PACKAGE.joinpath(*module.split(".")[1:])
    for one in (path.with_suffix(".py"), path / "__init__.py"):
        if one.is_file():
            return one
    return None


def room(module: str) -> str:
    """Return the room that a module, or a public name, is in."""
    name = module.split(".")[1]
    if name in LEVEL:
        return name
    found = getattr(getattr(uf, name), "__module__", "")
    return found.split(".")[1] if found.count(".") else "_native"


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_room_imports_only_those_before_it(file: Path) -> None:
    own = str(file.relative_to(PACKAGE))
    if own == "__init__.py":
        return
    level = LEVEL[own.split("/")[0].removesuffix(".py")]
    upward = {m for m in imports(file) if LEVEL[room(m)] > level and (own, m) not in LATER}
    assert not upward


def test_what_is_imported_later_is_imported() -> None:
    for own, module in LATER:
        assert module in set(imports(PACKAGE / own))


def test_no_circle() -> None:
    graph = {}
    for file in FILES:
        names = file.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(["uniroute_fast", *names]).removesuffix(".__init__")
        wanted = {m for m in imports(file) if file_of(m)}
        graph[name] = wanted - {m for own, m in LATER if PACKAGE / own == file}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name not in done:
            for other in sorted(graph[name]):
                visit(other, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_public_names() -> None:
    lazy = {"batch", "datasets", "evaluate", "integrations", "serving"}
    assert set(uf.__all__) - lazy == {
        *("Router", "Snapshot", "Decision", "Decisions", "Prompts", "Constraints", "ModelInfo"),
        *("Outcomes", "LexicalEmbedder", "SentenceTransformerEmbedder", "OpenAIEmbedder"),
        *("BudgetPacer", "SpendingPlan", "Explorer", "Cascade", "DriftReport", "Centroids"),
        *("nearest_centroid", "chat_text", "set_num_threads", "get_num_threads"),
        *("show_versions", "errors", "__version__"),
    }
    for name in uf.__all__:
        assert getattr(uf, name) is not None


DOCUMENTS = [
    *(ROOT / "docs").glob("*.md"),
    *(ROOT / "examples").rglob("*.*"),
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *FILES,
]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_documents_name_is_there(document: Path) -> None:
    if document.suffix not in (".md", ".py", ".ipynb"):
        pytest.skip("no text that names anything")
    for name in re.findall(r"\b(?:uf|uniroute_fast)((?:\.[A-Za-z_]\w*)+)", document.read_text()):
        found = uf
        for part in name[1:].split("."):
            if hasattr(found, part):
                found = getattr(found, part)
            elif hasattr(found, "__path__"):
                found = importlib.import_module(f"{found.__name__}.{part}")
            else:
                # Of an object, such as `uf.Router.fit(...).route`: what a class has.
                raise AssertionError(f"uniroute_fast{name}")

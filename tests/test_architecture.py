"""docs/architecture.md says who may import whom; the code is held against it."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "server" / "ditochat"
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
MODULES = sorted(PACKAGE.rglob("*.py"))
ADAPTERS = {"asyncio", "redis", "aiohttp", "socketio", "engineio", "socket", "subprocess"}


def imports(path: Path) -> set[str]:
    """Return the dotted names that a module imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def part_of(path: Path) -> str:
    """Return the name by which the table knows a module."""
    inner = path.relative_to(PACKAGE)
    return f"{inner.parts[0]}/" if len(inner.parts) > 1 else inner.name


def own_modules(path: Path) -> set[str]:
    """Return the parts of ours that a module imports, other than its own."""
    parts = set()
    for name in imports(path):
        match = re.fullmatch(r"ditochat\.(\w+)(?:\..*)?", name)
        if match and match[1] != "__version__":
            folder = PACKAGE / match[1]
            parts.add(f"{match[1]}/" if folder.is_dir() else f"{match[1]}.py")
    return parts - {part_of(path)}


def table() -> dict[str, tuple[list[str], str]]:
    """Read the table: part to its files and what it may import, in words."""
    rows = re.findall(r"^\| ([\w -]+) \| (`[^|]+) \| [^|]+ \| ([^|]+) \|$", ARCHITECTURE, re.MULTILINE)
    return {name: (re.findall(r"`([^`]+)`", files), allowed) for name, files, allowed in rows}


def allowed_files(name: str) -> set[str]:
    """Turn the words of the last column into files."""
    rows = table()
    words = rows[name][1]
    if words == "nothing of ours":
        return set()
    if words == "everything":
        return {file for files, _ in rows.values() for file in files}
    if words.startswith("all of the above but "):
        above = list(rows)[: list(rows).index(name)]
        excluded = words.removeprefix("all of the above but ").split(", ")
        return {file for part in above if part not in excluded for file in rows[part][0]}
    return {file for part in words.split(", ") for file in rows[part][0]}


def test_the_table_names_every_module() -> None:
    named = {file for files, _ in table().values() for file in files}
    assert {part_of(path) for path in MODULES} - {"__init__.py"} == named


@pytest.mark.parametrize("name", list(table()))
def test_a_part_imports_only_what_the_table_allows(name: str) -> None:
    files = table()[name][0]
    for path in MODULES:
        if part_of(path) in files:
            assert own_modules(path) <= allowed_files(name) | set(files), path


def pure_files() -> list[str]:
    paragraph = re.search(r"^Pure, that is.*?\n\n", ARCHITECTURE, re.MULTILINE | re.DOTALL)
    assert paragraph is not None
    first, _, second = paragraph[0].partition("within the")
    names = re.findall(r"(\w+)(?:,| and|\.)", first.partition(": ")[2])
    in_table = [table()[name][0][0] for name in names if name in table()]
    return [*in_table, *re.findall(r"`([\w/]+\.py)`", second)]


def test_there_are_pure_parts() -> None:
    assert {"message.py", "timeline.py", "settings.py", "gateways/origins.py"} <= set(pure_files())


@pytest.mark.parametrize("name", pure_files())
def test_a_pure_part_does_no_input_or_output(name: str) -> None:
    path = PACKAGE / name
    assert not {imported.partition(".")[0] for imported in imports(path)} & ADAPTERS
    for used in own_modules(path):
        assert used in pure_files(), f"{name} uses {used}, which is not pure"
    assert "async def" not in path.read_text()


def test_no_module_imports_another_in_a_circle() -> None:
    names = {
        ".".join(("ditochat", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(
            ".__init__"
        ): path
        for path in MODULES
    }
    graph = {name: (imports(path) & names.keys()) - {name} for name, path in names.items()}
    settled: set[str] = set()
    while ready := {name for name, used in graph.items() if name not in settled and used <= settled}:
        settled |= ready
    assert settled == names.keys(), f"in a circle: {sorted(names.keys() - settled)}"

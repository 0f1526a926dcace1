"""The package's layout: rooms whose imports point one way, and files short enough to read."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "vidlankd_hf"
# A room imports only from the rooms before it, and from itself.
ROOMS = ("utils", "data", "models", "extraction", "inspection", "reliability", "hub", "training", "evaluation",
         "experiments")  # fmt: skip
MOST_LINES = 350
FILES = sorted(PACKAGE.rglob("*.py"))


def imported_rooms(path: Path) -> set[str]:
    """The rooms that a file imports from, wherever in it the import stands."""
    package, found = ("vidlankd_hf", *path.relative_to(PACKAGE).parent.parts), set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = (*base, *(node.module.split(".") if node.module else ()))
            targets = [(*module, alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            targets = [tuple(alias.name.split(".")) for alias in node.names]
        else:
            continue
        found |= {target[1] for target in targets if target[0] == "vidlankd_hf" and len(target) > 1}
    return found


def test_the_package_root_holds_rooms_and_the_command_line_alone():
    assert {path.name for path in PACKAGE.glob("*") if path.is_file()} == {"__init__.py", "cli.py", "py.typed"}
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_from_the_rooms_before_it(room):
    allowed = {*ROOMS[: ROOMS.index(room) + 1], *(["cli"] if room == "experiments" else [])}
    for path in FILES:
        if path.relative_to(PACKAGE).parts[0] == room:
            assert imported_rooms(path) <= allowed, f"{path} imports {imported_rooms(path) - allowed}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_file_is_longer_than_a_reader_can_hold(path):
    assert len(path.read_text().splitlines()) <= MOST_LINES


def test_tests_mirror_the_rooms():
    folders = {path.parent.name for path in Path(__file__).parent.glob("*/test_*.py")}
    assert folders <= {*ROOMS} and {*ROOMS} - folders <= {"utils"}

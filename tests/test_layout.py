"""The package's layout: rooms whose imports point one way, and files short enough to read."""

import ast
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "vidlankd_hf"
# A room imports only from the rooms before it, and from itself.
ROOMS = ("utils", "data", "models", "extraction", "inspection", "reliability", "hub", "training", "evaluation",
         "experiments")  # fmt: skip
MOST_LINES = 350
FILES = sorted(PACKAGE.rglob("*.py"))
# What training needs. transformers requires the last three, and accelerate psutil.
FOR_TRAINING = {"torch", "transformers", "accelerate", "safetensors", "numpy", "psutil", "huggingface_hub", "tqdm",
                "fsspec"}  # fmt: skip
TRAINERS = ("distillation_config", "distillation_trainer", "teacher_trainer")


def imported(path: Path, nodes: Iterable[ast.AST]) -> Iterator[tuple[str, ...]]:
    """The parts of the name of everything that import statements among `nodes` import."""
    package = ("vidlankd_hf", *path.relative_to(PACKAGE).parent.parts)
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = (*base, *(node.module.split(".") if node.module else ()))
            yield from ((*module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)


def imported_rooms(path: Path) -> set[str]:
    """The rooms that a file imports from, wherever in it the import stands."""
    names = imported(path, ast.walk(ast.parse(path.read_text())))
    return {name[1] for name in names if name[0] == "vidlankd_hf" and len(name) > 1}


def files_of(name: tuple[str, ...]) -> set[Path]:
    """The files that run when `name` is imported from the package."""
    folders = [PACKAGE.joinpath(*name[1:end]) for end in range(1, len(name) + 1)]
    candidates = [file for folder in folders for file in (folder / "__init__.py", folder.with_suffix(".py"))]
    return {file for file in candidates if file.is_file() and file != PACKAGE.with_suffix(".py")}


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


def test_the_trainers_import_only_what_training_needs():
    """`datasets`, pyarrow, evaluate, av, Pillow and DeepSpeed are imported by the functions that use them."""
    read, unread = set(), set().union(*(files_of(("vidlankd_hf", "training", name)) for name in TRAINERS))
    while unread:
        path = unread.pop()
        read.add(path)
        for name in imported(path, ast.parse(path.read_text()).body):
            if name[0] == "vidlankd_hf":
                unread |= files_of(name) - read
            else:
                assert name[0] in FOR_TRAINING | sys.stdlib_module_names, f"{path} imports {'.'.join(name)}"
    assert {"checks.py", "text_blocks.py", "collators.py", "student.py"} <= {path.name for path in read}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_file_is_longer_than_a_reader_can_hold(path):
    assert len(path.read_text().splitlines()) <= MOST_LINES


def test_tests_mirror_the_rooms():
    folders = {path.parent.name for path in Path(__file__).parent.glob("*/test_*.py")}
    assert folders <= {*ROOMS} and {*ROOMS} - folders <= {"utils"}

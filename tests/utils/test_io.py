"""Files and folders appear complete or not at all, and only `utils/io.py` renames them."""

import ast
import errno
import os
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from launching import LIGHT

import vidlankd_hf
from vidlankd_hf.utils import io
from vidlankd_hf.utils.io import atomic_dir, atomic_file, atomic_write, resumable_dir, sha256_of

PACKAGE = Path(vidlankd_hf.__file__).parent
ROOT = Path(__file__).parents[2]


@pytest.fixture
def calls(monkeypatch):
    """Names of the files that are synced and renamed, in order."""
    made = []
    fsync, replace = os.fsync, os.replace

    def record_fsync(descriptor):
        made.append(("fsync", Path(os.readlink(f"/proc/self/fd/{descriptor}")).name))
        fsync(descriptor)

    def record_replace(source, target):
        made.append(("rename", Path(source).name, Path(target).name))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "replace", record_replace)
    return made


# ---- files ----


@pytest.mark.parametrize("content, expected", [("é\n", "é\n".encode()), (b"\x00\xff", b"\x00\xff"), ("", b"")])
def test_file_has_the_written_content_and_nothing_else_is_left(tmp_path, content, expected):
    atomic_write(tmp_path / "a", content)
    assert (tmp_path / "a").read_bytes() == expected
    atomic_write(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("before", [None, b"old"])
def test_file_is_as_before_if_writing_fails(tmp_path, before, error):
    path = tmp_path / "a"
    if before is not None:
        path.write_bytes(before)
    with pytest.raises(error), atomic_file(path) as file:
        file.write(b"half")
        file.flush()
        raise error
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == ([] if before is None else [("a", before)])


def test_file_is_as_before_if_it_cannot_be_renamed(tmp_path, monkeypatch):
    def full(source, target):
        raise OSError("no space left")

    (tmp_path / "a").write_bytes(b"old")
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space left"):
        atomic_write(tmp_path / "a", b"new")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a", b"old")]


def test_file_is_incomplete_only_under_another_name(tmp_path):
    with atomic_file(tmp_path / "a") as file:
        file.write(b"half")
        file.flush()
        assert not (tmp_path / "a").exists()
    assert (tmp_path / "a").read_bytes() == b"half"


def test_file_is_on_the_disk_before_its_rename_and_the_rename_after(tmp_path, calls):
    atomic_write(tmp_path / "a", b"content")
    temporary = calls[0][1]
    assert temporary != "a"
    assert calls == [("fsync", temporary), ("rename", temporary, "a"), ("fsync", tmp_path.name)]


def test_two_writers_of_a_file_do_not_disturb_each_other(tmp_path):
    with atomic_file(tmp_path / "a") as first:
        first.write(b"fir")
        first.flush()
        atomic_write(tmp_path / "a", b"second")
        assert (tmp_path / "a").read_bytes() == b"second"
        first.write(b"st")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a", b"first")]


def test_folder_that_cannot_be_flushed_is_no_error_but_a_file_is(tmp_path, monkeypatch):
    fsync, what = os.fsync, stat.S_ISDIR

    def refuse(descriptor):
        if what(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    atomic_write(tmp_path / "a", b"content")
    with atomic_dir(tmp_path / "folder") as part:
        (part / "inner").mkdir()
    assert (tmp_path / "a").read_bytes() == b"content" and (tmp_path / "folder" / "inner").is_dir()
    what = stat.S_ISREG
    with pytest.raises(OSError, match="Invalid argument"):
        atomic_write(tmp_path / "b", b"content")
    with pytest.raises(OSError, match="Invalid argument"), atomic_dir(tmp_path / "other") as part:
        (part / "c").write_bytes(b"content")
    assert not (tmp_path / "b").exists() and not (tmp_path / "other").exists()


def test_unfinished_file_is_hidden(tmp_path):
    with atomic_file(tmp_path / "a"):
        assert [path.name[0] for path in tmp_path.iterdir()] == ["."]


# ---- folders ----


def test_folder_has_the_written_files_and_nothing_else_is_left(tmp_path):
    with atomic_dir(tmp_path / "made" / "folder") as part:
        (part / "inner").mkdir()
        (part / "inner" / "a").write_text("x")
        assert not (tmp_path / "made" / "folder").exists()
    assert (tmp_path / "made" / "folder" / "inner" / "a").read_text() == "x"
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["folder"]


def test_folder_has_the_permissions_that_the_umask_allows(tmp_path):
    with atomic_dir(tmp_path / "folder"):
        pass
    (tmp_path / "usual").mkdir()
    assert (tmp_path / "folder").stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_folder_is_absent_if_making_it_fails(tmp_path, error):
    with pytest.raises(error), atomic_dir(tmp_path / "folder") as part:
        (part / "a").write_text("half")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be_renamed_is_an_error_and_leaves_nothing(tmp_path):
    (tmp_path / "folder").write_text("a file")
    with pytest.raises(OSError), atomic_dir(tmp_path / "folder") as part:
        (part / "a").write_text("x")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("folder", "a file")]


def test_files_of_a_folder_are_on_the_disk_before_its_rename_and_the_rename_after(tmp_path, calls):
    with atomic_dir(tmp_path / "folder") as part:
        (part / "inner").mkdir()
        (part / "inner" / "a").write_text("x")
        (part / "b").write_text("x")
    rename = calls.index(("rename", part.name, "folder"))
    assert {name for _, name in calls[:rename]} == {"inner", "a", "b", ".lock", part.name}
    assert calls[rename + 1 :] == [("fsync", tmp_path.name)]


def test_folder_made_by_another_process_in_the_meantime_is_kept(tmp_path):
    with atomic_dir(tmp_path / "folder") as part:
        (part / "a").write_text("second")
        with atomic_dir(tmp_path / "folder") as first:
            (first / "a").write_text("first")
    assert (tmp_path / "folder" / "a").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


CONCURRENT = """
import sys, types
from pathlib import Path
package = sys.modules["vidlankd_hf"] = types.ModuleType("vidlankd_hf")  # the real one imports torch, for seconds
package.__path__ = [sys.argv[3] + "/vidlankd_hf"]
from vidlankd_hf.utils.io import atomic_dir, atomic_write
folder, name = Path(sys.argv[1]), sys.argv[2]
for number in range(30):
    with atomic_dir(folder / f"made-{number}") as part:
        for file in range(3):
            (part / str(file)).write_text(name)
    atomic_write(folder / "file", name * 10_000)
"""


def test_concurrent_processes_leave_complete_files_and_folders_of_one_of_them(tmp_path):
    arguments = [sys.executable, "-c", textwrap.dedent(CONCURRENT), str(tmp_path)]
    makers = [subprocess.Popen([*arguments, name, str(ROOT)]) for name in "abc"]
    assert [maker.wait(timeout=300) for maker in makers] == [0, 0, 0]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["file", *(f"made-{n}" for n in range(30))])
    assert (tmp_path / "file").read_text() in [name * 10_000 for name in "abc"]
    for number in range(30):
        content = [path.read_text() for path in (tmp_path / f"made-{number}").iterdir()]
        assert content in [[name] * 3 for name in "abc"]


def test_sha256_is_that_of_the_content(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_of(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


WORKS = """
import fcntl, os, stat, sys, time
from pathlib import Path
from vidlankd_hf.utils import io, locks
flock = fcntl.flock

def on_another_machine(descriptor, operation):  # as on NFS, where the lock of a folder is not passed on
    if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
        flock(descriptor, operation)

locks.fcntl.flock = on_another_machine
with {block} as part:
    if part is not None:
        inside = part / "inside"
        assert not inside.exists(), "two processes work in one folder"
        inside.touch()
        time.sleep(1)
        inside.unlink()
        (part / "a").write_text("x")
    print("made" if part else "found", flush=True)
"""


def test_folder_on_a_network_file_system_is_made_by_one_machine_at_a_time(tmp_path):
    code = LIGHT + WORKS.format(block='io.resumable_dir(Path(sys.argv[1]) / "blocks-1", "x")')
    makers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) for _ in range(3)]
    said = [maker.communicate(timeout=60)[0].decode().split()[-1] for maker in makers]
    assert sorted(said) == ["found", "found", "made"]
    assert [str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")] == ["blocks-1", "blocks-1/a"]


def test_folder_that_another_machine_makes_is_not_taken_for_an_abandoned_one(tmp_path):
    code = LIGHT + WORKS.format(block='io.atomic_dir(Path(sys.argv[1]) / f"made-{os.getpid()}")')
    makers = []
    for _ in range(2):
        makers.append(subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]))
        time.sleep(0.5)
    assert [maker.wait(timeout=60) for maker in makers] == [0, 0]
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["a", "a"]


# ---- a full disk ----


@pytest.mark.parametrize("block", [atomic_file, atomic_dir, lambda folder: resumable_dir(folder, "x")])
def test_full_disk_is_named_with_what_to_do(tmp_path, block):
    with pytest.raises(OSError, match=f"No space left on device; free space and start .* again: '{tmp_path}") as error:
        with block(tmp_path / "made-1"):
            raise OSError(errno.ENOSPC, "No space left on device")
    assert error.value.errno == errno.ENOSPC


# ---- nothing else renames ----


def renames(source: str) -> list[int]:
    """Lines that rename files: `os.replace`, `os.rename(s)`, `shutil.move`, and `.rename` or one-argument `.replace`.

    `str.replace` takes two arguments, `Path.replace` one.
    """
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            names = {alias.name for alias in node.names}
            if node.module == "os" and names & {"replace", "rename", "renames"}:
                found.append(node.lineno)
            if node.module == "shutil" and "move" in names:
                found.append(node.lineno)
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        module, name = ast.unparse(node.func.value), node.func.attr
        one_argument = len(node.args) == 1 and not node.keywords
        if (
            (module, name) in {("os", "replace"), ("os", "renames"), ("shutil", "move")}
            or name == "rename"
            or (name == "replace" and one_argument)
        ):
            found.append(node.lineno)
    return found


@pytest.mark.parametrize(
    "line",
    ["os.replace(a, b)", "os.rename(a, b)", "path.rename(b)", "path.replace(b)", "shutil.move(a, b)",
     "from os import replace", "from shutil import move", "os.renames(a, b)"],
)  # fmt: skip
def test_renames_are_found(line):
    assert renames(f"import os\n{line}\n") == [2]
    assert renames("text.replace('a', 'b')\ndataclasses.replace(value, name=1)\nfrom os import path\n") == []


def test_no_other_module_renames_files():
    sources = {path: path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}
    assert renames(sources.pop(Path(io.__file__))) != []
    assert {str(path.relative_to(PACKAGE)): lines for path, text in sources.items() if (lines := renames(text))} == {}

"""What killed processes leave is removed or continued by the next one."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from launching import LIGHT

from vidlankd_hf.utils.io import atomic_dir, atomic_write, resumable_dir, temporary_dir
from vidlankd_hf.utils.locks import lock_file

ROOT = Path(__file__).parents[2]
KILLED = """
import os, signal, sys
from pathlib import Path
from vidlankd_hf.utils.io import atomic_dir, atomic_file, resumable_dir, temporary_dir
folder = Path(sys.argv[1])
with {block} as part:
    part = Path(part.name if hasattr(part, "write") else part)
    if part.is_dir():
        (part / "half").write_text("x")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def killed_in(block, folder):
    code = LIGHT + KILLED.format(block=block)
    assert subprocess.run([sys.executable, "-c", code, str(folder)], timeout=60).returncode == -9
    left = list(folder.iterdir())
    assert left, "a killed process cannot clean up"
    return left


@pytest.mark.parametrize("other", ["folder", "another"])
def test_folder_that_a_killed_process_left_is_removed_by_the_next_one(tmp_path, other):
    killed_in('atomic_dir(folder / "folder")', tmp_path)
    with atomic_dir(tmp_path / other) as part:
        (part / "a").write_text("x")
    assert [path.name for path in tmp_path.iterdir()] == [other]


def test_temporary_folder_that_a_killed_process_left_is_removed_by_the_next_one(tmp_path):
    killed_in("temporary_dir(folder)", tmp_path)
    with temporary_dir(tmp_path) as mine:
        assert list(tmp_path.iterdir()) == [mine]
    assert list(tmp_path.iterdir()) == []


def test_folder_of_a_running_process_is_left_alone(tmp_path):
    with temporary_dir(tmp_path) as mine, temporary_dir(tmp_path) as other:
        assert mine.is_dir() and other.is_dir() and mine != other


def test_file_that_a_killed_process_left_is_removed_by_the_next_one(tmp_path):
    killed_in('atomic_file(folder / "a")', tmp_path)
    atomic_write(tmp_path / "a", b"new")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a", b"new")]


def test_interrupted_folder_is_continued_and_complete_or_absent(tmp_path):
    killed_in('resumable_dir(folder / "made-1", of="a")', tmp_path)
    assert not (tmp_path / "made-1").exists()
    with resumable_dir(tmp_path / "made-1", of="a") as part:
        assert (part / "half").read_text() == "x"
    assert {path.name for path in (tmp_path / "made-1").iterdir()} == {"half"}
    with resumable_dir(tmp_path / "made-1", of="a") as part:
        assert part is None
    assert [path.name for path in tmp_path.iterdir()] == ["made-1"]


@pytest.mark.parametrize("of, left", [("a", ["made-2"]), ("b", [".made-1.part", "made-2"])])
def test_interrupted_folder_is_removed_once_its_source_has_changed(tmp_path, of, left):
    killed_in('resumable_dir(folder / "made-1", of="a")', tmp_path)
    with resumable_dir(tmp_path / "made-2", of=of):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == left


@pytest.mark.parametrize(
    "error, left", [(ValueError, []), (OSError, [".made-1.part"]), (KeyboardInterrupt, [".made-1.part"])]
)
def test_wrong_input_leaves_nothing_and_a_full_disk_leaves_what_can_be_continued(tmp_path, error, left):
    with pytest.raises(error), resumable_dir(tmp_path / "made-1", of="a"):
        raise error
    assert [path.name for path in tmp_path.iterdir()] == left


def test_two_processes_make_a_folder_one_after_the_other(tmp_path):
    code = f"""{LIGHT}
import sys, time
from pathlib import Path
from vidlankd_hf.utils.io import resumable_dir
with resumable_dir(Path(sys.argv[1]) / "made-1", of="a") as part:
    if part is not None:
        assert not (part / "mine").exists()
        (part / "mine").write_text("x")
        time.sleep(0.5)
    print(part is not None)
"""
    makers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
              for _ in range(3)]  # fmt: skip
    made = [maker.communicate(timeout=60)[0].split()[-1] for maker in makers]
    assert sorted(made) == ["False", "False", "True"] and [maker.returncode for maker in makers] == [0, 0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["made-1"]


def test_lock_file_is_held_by_a_child_that_outlives_its_parent(tmp_path):
    code = f"""{LIGHT}
import os, subprocess, sys
from pathlib import Path
from vidlankd_hf.utils.locks import lock_file
with lock_file(Path(sys.argv[1])) as held:
    subprocess.Popen(["sleep", "2"], pass_fds=(held,))
    os._exit(0)
"""
    path, began = tmp_path / "lock", time.monotonic()
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, timeout=60)
    ended = time.monotonic()
    with lock_file(path):
        waited = time.monotonic() - ended
    assert waited > 1.0, f"{waited} s after {ended - began} s"
    assert not path.exists()

"""The output folder of a run is locked against a second run, and is the same for all its processes."""

import errno
import fcntl
import os
import platform
import signal
import time
from types import SimpleNamespace

import pytest
from helpers import train

from vidlankd_hf.reliability import folder_lock
from vidlankd_hf.reliability.folder_lock import lock_folder
from vidlankd_hf.reliability.run_dir import open_run_dir


def arguments(folder, rank=0, local_rank=0, processes=1, each_node=False):
    saves = local_rank == 0 if each_node else rank == 0
    return SimpleNamespace(output_dir=str(folder), process_index=rank, local_process_index=local_rank,
                           world_size=processes, save_on_each_node=each_node, should_save=saves)  # fmt: skip


class Holder:
    """A process that locks a folder, and may have a child."""

    def __init__(self, folder, with_child: bool = False):
        ready, tell = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                lock_folder(arguments(folder))
                if with_child and os.fork() == 0:
                    os.write(tell, str(os.getpid()).encode().ljust(20))
                    time.sleep(60)
                    os._exit(0)
                os.write(tell, b"locked".ljust(20))
                time.sleep(60)
            finally:
                os._exit(1)
        os.close(tell)
        self.told = {os.read(ready, 20).strip() for _ in range(1 + with_child)}
        os.close(ready)

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


@pytest.fixture
def holder(tmp_path):
    holder = Holder(tmp_path / "run")
    yield holder
    holder.kill()


def test_second_run_in_the_same_folder_is_refused_and_the_first_is_named(tmp_path, holder):
    said = f"another run uses .*/run .process {holder.pid} on {platform.node()}.*: wait until it ends"
    with pytest.raises(ValueError, match=said):
        lock_folder(arguments(tmp_path / "run"))
    with pytest.raises(ValueError, match=said):
        train("student", tmp_path / "run", {}, max_steps=1)
    args = train("student", tmp_path / "other", {}, max_steps=1).args
    args.output_dir = str(tmp_path / "run")
    with pytest.raises(ValueError, match=said):
        open_run_dir(args, {})


def test_lock_ends_with_its_process_even_if_children_are_still_running(tmp_path):
    holder = Holder(tmp_path / "run", with_child=True)
    (child,) = holder.told - {b"locked"}
    holder.kill()
    try:
        lock_folder(arguments(tmp_path / "run"))
    finally:
        os.kill(int(child), signal.SIGKILL)


def test_own_folder_may_be_locked_again_even_by_another_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / "run", "run", tmp_path / "x" / ".." / "run"):
        lock_folder(arguments(path))
    assert (tmp_path / "run" / ".lock").read_text() == f"process {os.getpid()} on {platform.node()}\n"


def test_file_system_without_locks_is_reported(tmp_path, monkeypatch, capsys):
    def refuse(*args):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    lock_folder(arguments(tmp_path))
    assert "has no locks: do not start a second run in this folder" in capsys.readouterr().out


def test_lock_that_is_a_link_overwrites_nothing(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "file")
    with pytest.raises(ValueError, match="run cannot be written to"):
        lock_folder(arguments(tmp_path / "run"))
    assert (tmp_path / "file").read_text() == "mine"


def test_folder_that_cannot_be_made_is_an_error_that_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="file/run cannot be written to"):
        lock_folder(arguments(tmp_path / "file" / "run"))


def test_process_that_does_not_see_the_saving_process_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_lock, "SECONDS_UNTIL_SEEN", 0.2)
    seen = folder_lock._check_seen(tmp_path, "token", 0, arguments(tmp_path, rank=1, processes=2))
    assert "process 1 on" in seen and "give an --output_dir that all machines share, or --save_on_each_node" in seen
    (tmp_path / ".seen-token-0").touch()
    assert folder_lock._check_seen(tmp_path, "token", 0, arguments(tmp_path, rank=1, processes=2)) == ""


def test_save_on_each_node_in_a_common_folder_is_refused(tmp_path):
    second = arguments(tmp_path, rank=2, processes=4, each_node=True)
    (tmp_path / ".seen-token-2").touch()
    assert folder_lock._check_seen(tmp_path, "token", 2, second) == ""
    (tmp_path / ".seen-token-0").touch()
    assert "leave it out, since the machines share" in folder_lock._check_seen(tmp_path, "token", 2, second)


def test_saving_on_each_node_is_refused_if_each_node_has_only_a_part(tmp_path, monkeypatch):
    from vidlankd_hf import DistillationConfig
    from vidlankd_hf.reliability import arguments as arguments_module

    options = {"output_dir": str(tmp_path), "use_cpu": True, "report_to": "none", "save_on_each_node": True}
    DistillationConfig(**options)
    monkeypatch.setattr(arguments_module, "fsdp_requested", lambda: True)
    with pytest.raises(ValueError, match="save_on_each_node is True, but with DeepSpeed or FSDP"):
        DistillationConfig(**options)

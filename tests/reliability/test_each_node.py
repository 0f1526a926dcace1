"""Machines without a common folder: each checkpoint is complete on every machine, and all resume from the same one."""

import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from helpers import make_checkpoint, write_checkpoint_files

from vidlankd_hf.reliability import checkpointing
from vidlankd_hf.reliability.checkpointing import agree_on_checkpoint, checkpoint_to_resume, verify_checkpoint
from vidlankd_hf.reliability.manifest import Layout, seal

TESTS = Path(__file__).parents[1]


class Machines:
    """Threads that stand for the processes of a run."""

    def __init__(self, monkeypatch, count: int):
        self.count, self.messages = count, {}
        self.barrier, self.here = threading.Barrier(count, timeout=20), threading.local()
        monkeypatch.setattr(checkpointing, "gather_messages", self.gather)
        monkeypatch.setattr(checkpointing, "own_rank", lambda: self.here.rank)

    def gather(self, message=""):
        self.messages[self.here.rank] = message
        self.barrier.wait()
        gathered = [self.messages[rank] for rank in range(self.count)]
        self.barrier.wait()
        return gathered

    def run(self, body) -> list:
        """What `body(rank)` returns, or the error that it raises, on each."""
        results = [None] * self.count

        def one(rank):
            self.here.rank = rank
            try:
                results[rank] = body(rank)
            except Exception as error:
                results[rank] = error

        threads = [threading.Thread(target=one, args=(rank,)) for rank in range(self.count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results


def saved_on_both(folders, step, save_id=None):
    for folder in folders:
        checkpoint = folder / f"checkpoint-{step}"
        checkpoint.mkdir(parents=True)
        write_checkpoint_files(checkpoint)
        seal(checkpoint, Layout(), save_id or f"save-{step}")


@pytest.fixture
def folders(tmp_path):
    return [tmp_path / "node0", tmp_path / "node1"]


def test_all_machines_resume_from_the_newest_step_that_is_complete_on_each(monkeypatch, folders, capsys):
    for step in (1, 2, 3, 4, 5):
        saved_on_both(folders, step)
    (folders[1] / "checkpoint-5" / "optimizer.pt").write_bytes(b"")  # damaged on one
    (folders[0] / "checkpoint-4" / "manifest.json").unlink()  # damaged on the other
    for path in (folders[1] / "checkpoint-3").iterdir():  # missing on one
        path.unlink()
    (folders[1] / "checkpoint-3").rmdir()
    found = Machines(monkeypatch, 2).run(lambda rank: agree_on_checkpoint(folders[rank], saves=True))
    assert found == [str(folder / "checkpoint-2") for folder in folders]
    out = capsys.readouterr().out
    assert "checkpoint-5: on the machine of process 1, optimizer.pt has 0 bytes" in out
    assert "checkpoint-4: on the machine of process 0, it has no manifest.json" in out
    assert "checkpoint-3: on the machine of process 1, it has no manifest.json" in out


def test_checkpoints_of_the_same_step_but_of_different_runs_are_not_mixed(monkeypatch, folders, capsys):
    saved_on_both(folders, 1)
    saved_on_both(folders[:1], 2, "one run")
    saved_on_both(folders[1:], 2, "another run")
    found = Machines(monkeypatch, 2).run(lambda rank: agree_on_checkpoint(folders[rank], saves=True))
    assert found == [str(folder / "checkpoint-1") for folder in folders]
    assert "hold checkpoints of different runs" in capsys.readouterr().out


def test_only_processes_that_save_verify_and_the_others_follow(monkeypatch, tmp_path):
    make_checkpoint(tmp_path, 1)
    make_checkpoint(tmp_path, 2)
    verified = []
    monkeypatch.setattr(
        checkpointing, "verify_checkpoint", lambda path: verified.append(path) or verify_checkpoint(path)
    )
    found = Machines(monkeypatch, 3).run(lambda rank: agree_on_checkpoint(tmp_path, saves=rank == 0))
    assert found == [str(tmp_path / "checkpoint-2")] * 3 and len(verified) == 1


def test_given_checkpoint_that_is_damaged_on_one_machine_is_refused_on_all(monkeypatch, tmp_path):
    good, bad = make_checkpoint(tmp_path, 1), make_checkpoint(tmp_path, 2)
    (bad / "optimizer.pt").write_bytes(b"")
    paths = [good, bad]
    errors = Machines(monkeypatch, 2).run(lambda rank: checkpoint_to_resume(str(paths[rank]), tmp_path, saves=True))
    assert all(isinstance(error, ValueError) and "on the machine of process 1" in str(error) for error in errors)


def test_checkpoint_that_one_machine_lacks_is_not_resumed(monkeypatch, folders):
    saved_on_both(folders[:1], 1)
    assert Machines(monkeypatch, 2).run(lambda rank: agree_on_checkpoint(folders[rank], saves=True)) == [None, None]


def start(folders, **options) -> list[subprocess.Popen]:
    """Starts one process per machine, each in its own working directory."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank, folder in enumerate(folders):
        folder.mkdir(exist_ok=True)
        environment = {**os.environ, "RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1",
                       "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}  # fmt: skip
        code = f"import sys; sys.path.insert(0, {str(TESTS)!r}); from helpers import train; train(**{options!r})"
        code = f"from vidlankd_hf.reliability import folder_lock; folder_lock.SECONDS_UNTIL_SEEN = 2\n{code}"
        with open(folder / "log.txt", "a") as log:
            command = [sys.executable, "-c", code]
            processes.append(subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log))
    return processes


RUN = {"kind": "student", "output_dir": "run", "objectives": {"nst": 30.0, "crd": 1.0}, "dropout": 0.1,
       "save_strategy": "steps", "save_steps": 1, "gradient_accumulation_steps": 2}  # fmt: skip


@pytest.mark.slow
def test_two_machines_write_complete_equal_checkpoints_and_resume_from_the_same(folders):
    codes = [one.wait(200) for one in start(folders, **RUN, max_steps=4, save_on_each_node=True)]
    assert codes == [0, 0], [(folder / "log.txt").read_text()[-2000:] for folder in folders]
    newest = [folder / "run" / "checkpoint-4" for folder in folders]
    manifests = [json.loads((checkpoint / "manifest.json").read_text()) for checkpoint in newest]
    assert all(verify_checkpoint(checkpoint) is None for checkpoint in newest)
    for name in ("model.safetensors", "optimizer.pt", "rng_state_0.pth", "rng_state_1.pth", "log_state_1_of_2.json"):
        assert manifests[0]["files"][name] == manifests[1]["files"][name]
    os.truncate(newest[1] / "optimizer.pt", 10)
    codes = [one.wait(200) for one in start(folders, **RUN, max_steps=4, save_on_each_node=True, resume=True)]
    assert codes == [0, 0]
    said = "checkpoint-4: on the machine of process 1, optimizer.pt has 10 bytes"
    assert said in (folders[0] / "log.txt").read_text()
    again = [json.loads((checkpoint / "manifest.json").read_text())["files"] for checkpoint in newest]
    assert [files["model.safetensors"] for files in again] == [manifests[0]["files"]["model.safetensors"]] * 2


@pytest.mark.slow
def test_machines_without_a_common_folder_are_refused_at_the_start(folders):
    codes = [one.wait(200) for one in start(folders, **RUN, max_steps=4)]
    assert codes == [1, 1]
    for folder in folders:
        assert "does not see" in (folder / "log.txt").read_text() and not list(folder.glob("run/checkpoint-*"))

"""The folder of a run is started, resumed or refused, and never overwritten."""

import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import make_checkpoint

from vidlankd_hf import DistillationConfig
from vidlankd_hf.reliability.checkpointing import agree_on_checkpoint
from vidlankd_hf.reliability.run_dir import is_finished, mark_finished, open_run_dir


def arguments(folder, **changes):
    return DistillationConfig(output_dir=str(folder), use_cpu=True, report_to="none", **changes)


def test_new_folder_is_opened_and_records_command_and_settings(tmp_path):
    assert open_run_dir(arguments(tmp_path / "run", seed=7), {"text": "a"}) is None
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["settings"]["seed"] == 7 and run["settings"]["text"] == "a" and not run["finished"] and run["command"]
    assert run["settings"]["objectives"]["crd"]["weight"] == 1.0
    assert {"python", "torch", "transformers", "numpy"} <= set(run["versions"])


def test_folder_whose_name_cannot_be_printed_is_refused_at_once(tmp_path):
    with pytest.raises(ValueError, match=r"output_dir is 'run.udce9', whose bytes are not UTF-8"):
        arguments(os.fsdecode(b"run\xe9"))


def test_interrupted_run_resumes_from_the_newest_complete_checkpoint(tmp_path, capsys):
    open_run_dir(arguments(tmp_path), {})
    for step in (5, 10):
        make_checkpoint(tmp_path, step)
    (tmp_path / "checkpoint-15").mkdir()
    (tmp_path / "checkpoint-15" / "trainer_state.json").write_text("{}")
    assert open_run_dir(arguments(tmp_path, logging_steps=3, save_total_limit=2), {}) == str(
        tmp_path / "checkpoint-10"
    )
    assert "Skipping" in capsys.readouterr().out
    assert agree_on_checkpoint(tmp_path / "nothing", saves=True) is None


def test_run_without_a_trained_step_may_be_restarted_with_corrected_settings_and_says_so(tmp_path, capsys):
    open_run_dir(arguments(tmp_path), {"text": "typo.txt"})
    assert "beginning" not in capsys.readouterr().out
    assert open_run_dir(arguments(tmp_path), {"text": "right.txt"}) is None
    assert "holds a run without a checkpoint: training starts from the beginning" in capsys.readouterr().out
    assert json.loads((tmp_path / "run.json").read_text())["settings"]["text"] == "right.txt"


def test_run_whose_checkpoints_are_all_damaged_is_not_restarted(tmp_path):
    open_run_dir(arguments(tmp_path), {})
    make_checkpoint(tmp_path, 5)
    (tmp_path / "checkpoint-5" / "trainer_state.json").write_text("[]")
    with pytest.raises(ValueError, match="none is complete"):
        open_run_dir(arguments(tmp_path), {})


@pytest.mark.parametrize("change", [{"seed": 1}, {"learning_rate": 1e-3}, {"objectives": {}}, {"max_steps": 9}])
def test_other_settings_are_refused_and_named(tmp_path, change):
    open_run_dir(arguments(tmp_path), {})
    make_checkpoint(tmp_path, 5)
    with pytest.raises(ValueError, match=f"other settings.*{next(iter(change))}"):
        open_run_dir(arguments(tmp_path, **change), {})
    allowed = [next(iter(change))]
    assert open_run_dir(arguments(tmp_path, **change, allow_changed=allowed), {}).endswith("checkpoint-5")
    assert open_run_dir(arguments(tmp_path, **change), {}).endswith("checkpoint-5"), "run.json holds what runs now"
    with pytest.raises(ValueError, match=f"other settings.*{next(iter(change))}"):
        open_run_dir(arguments(tmp_path), {})
    open_run_dir(arguments(tmp_path, allow_changed=allowed), {})
    with pytest.raises(ValueError, match="text was None and is now 'b'"):
        open_run_dir(arguments(tmp_path), {"text": "b"})


def test_finished_run_and_foreign_files_are_refused(tmp_path):
    args = arguments(tmp_path / "run")
    open_run_dir(args, {})
    assert not is_finished(tmp_path / "run")
    mark_finished(args)
    assert is_finished(tmp_path / "run")
    with pytest.raises(ValueError, match="finished run"):
        open_run_dir(args, {})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match="belong to no run .thesis.tex"):
        open_run_dir(arguments(tmp_path / "other"), {})


@pytest.mark.parametrize("name", ["checkpoint-0005", "CHECKPOINT-5"])
def test_run_whose_checkpoints_were_renamed_is_not_restarted(tmp_path, capsys, name):
    open_run_dir(arguments(tmp_path), {})
    make_checkpoint(tmp_path, 5)
    (tmp_path / "checkpoint-5").rename(tmp_path / name)
    with pytest.raises(ValueError, match="none is complete"):
        open_run_dir(arguments(tmp_path), {})
    assert f"Skipping {tmp_path / name}: rename it to checkpoint-<step>" in capsys.readouterr().out


def in_child(body) -> int:
    """Runs `body` in a forked process, and returns how it ended: its result, or the number of a signal, negative."""
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            code = body()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize("moment", ["before the rename", "full disk"])
def test_first_start_that_ends_while_it_writes_run_json_may_be_repeated(tmp_path, moment):
    def first() -> int:
        if moment == "full disk":
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        else:
            os.replace = lambda source, target: os.kill(os.getpid(), signal.SIGKILL)
        with pytest.raises(OSError, match="run.json.*free space|free space.*run.json"):
            open_run_dir(arguments(tmp_path), {})
        return 0

    assert in_child(first) == (0 if moment == "full disk" else -signal.SIGKILL)
    assert not [path for path in tmp_path.iterdir() if not path.name.startswith(".")]
    assert open_run_dir(arguments(tmp_path), {}) is None
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "run.json"]


def test_full_disk_when_the_end_is_noted_leaves_a_run_that_the_same_command_finishes(tmp_path):
    open_run_dir(arguments(tmp_path), {})
    make_checkpoint(tmp_path, 5)

    def end() -> int:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        with pytest.raises(OSError, match="free space"):
            mark_finished(arguments(tmp_path))
        return 0

    assert in_child(end) == 0
    assert not is_finished(tmp_path)
    assert open_run_dir(arguments(tmp_path), {}) == str(tmp_path / "checkpoint-5")


def test_one_of_several_runs_that_start_at_the_same_moment_gets_the_folder(tmp_path):
    count, context = 4, multiprocessing.get_context("fork")
    for number in range(5):
        begin, end, folder, told = context.Barrier(count), context.Barrier(count), tmp_path / str(number), []

        def start(write, begin=begin, end=end, folder=folder):
            args, said = arguments(folder), "opened"
            begin.wait(30)
            try:
                open_run_dir(args, {})
            except ValueError as error:
                said = str(error)
            write.send(said)
            end.wait(30)
            os._exit(0)

        for _ in range(count):
            read, write = context.Pipe(duplex=False)
            context.Process(target=start, args=(write,), daemon=True).start()
            told.append(read)
        said = [read.recv() for read in told if read.poll(30)]
        assert said.count("opened") == 1 and sum(f"another run uses {folder}" in one for one in said) == count - 1
        assert json.loads((folder / "run.json").read_text())["finished"] is False


STARTS = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from vidlankd_hf.reliability.run_dir import run_script
from vidlankd_hf.utils.locks import lock_file
with lock_file(Path({lock!r})) as held:
    run_script(Path({script!r}), lock=held)
"""
WORKS = """
import os, signal, sys, time
def stop(*_):
    while not os.path.exists({release!r}):
        time.sleep(0.05)
    open({log!r}, "a").write(f"stopped {{os.getpid()}}\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
open({log!r}, "a").write(f"began {{os.getpid()}}\\n")
time.sleep(30)
"""


@pytest.mark.slow
@pytest.mark.parametrize("stop", ["terminate", "kill"])
def test_example_that_a_run_started_stops_with_it_and_the_next_one_waits_for_that(tmp_path, stop):
    script, log, release, said = (tmp_path / name for name in ("works.py", "log", "release", "said"))
    script.write_text(WORKS.format(log=str(log), release=str(release)))
    root = Path(__file__).parents[2]
    code = STARTS.format(root=str(root), lock=str(tmp_path / "lock"), script=str(script))
    runs = []
    for _ in range(2):
        runs.append(subprocess.Popen([sys.executable, "-c", code], stdout=open(said, "w"), stderr=subprocess.DEVNULL))
        if len(runs) == 2:
            wait_until(lambda: "waiting for it" in said.read_text())
            release.touch()
        wait_until(lambda: log.exists() and log.read_text().count("began") == len(runs))
        getattr(runs[-1], stop)()
        runs[-1].wait(timeout=20)
    wait_until(lambda: log.read_text().count("stopped") == 2)
    assert [line.split()[0] for line in log.read_text().splitlines()] == ["began", "stopped"] * 2


def wait_until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)

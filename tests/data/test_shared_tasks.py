"""Processes share tasks through files: each runs once, in order, and those of a killed process are repeated."""

import os
import signal
import subprocess
import sys
import time
from contextlib import closing

import pytest
from launching import LIGHT

from vidlankd_hf.data import shared_tasks
from vidlankd_hf.data.shared_tasks import SharedTasks, TasksRemoved

NAMES = [f"task-{number}" for number in range(12)]
RUNS = """
import os, sys, time
from pathlib import Path
from vidlankd_hf.data.shared_tasks import SharedTasks
folder, seconds, num_proc = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])

def work(tasks, name, argument):
    with open(folder / "log", "a") as log:
        log.write(f"{name} {os.getpid()}\\n")
    time.sleep(seconds)
    return {"square": argument ** 2}

done = SharedTasks(folder, num_proc).run(((f"task-{i}", i) for i in range(12)), work)
print([(name, result["square"]) for name, _, result in done], flush=True)
"""


def start(folder, seconds=0.1, num_proc=1):
    (folder / "tasks").mkdir(exist_ok=True)
    command = [sys.executable, "-c", LIGHT + RUNS, str(folder), str(seconds), str(num_proc)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def log_of(folder) -> list[tuple[str, str]]:
    path = folder / "log"
    return [tuple(line.split()) for line in path.read_text().splitlines()] if path.exists() else []


def until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    assert condition()


EXPECTED = str([(name, number**2) for number, name in enumerate(NAMES)])


@pytest.mark.parametrize("num_proc", [1, 2])
def test_processes_run_each_task_once_and_all_get_all_results_in_order(tmp_path, num_proc):
    processes = [start(tmp_path, num_proc=num_proc) for _ in range(2)]
    said = [process.communicate(timeout=60)[0].strip() for process in processes]
    assert [text.splitlines()[-1] for text in said] == [EXPECTED] * 2  # a slow machine also says who waits
    assert sorted(name for name, _ in log_of(tmp_path)) == sorted(NAMES)
    assert len({pid for _, pid in log_of(tmp_path)}) > 1, "both work"


def test_tasks_of_a_killed_process_are_repeated_by_the_one_that_waits_for_them(tmp_path):
    killed = start(tmp_path, seconds=100)
    until(lambda: log_of(tmp_path))
    other = start(tmp_path, seconds=0)
    until(lambda: len(log_of(tmp_path)) > 8)
    assert other.poll() is None, "it waits for the first task"
    killed.send_signal(signal.SIGKILL)
    assert other.communicate(timeout=60)[0].strip() == EXPECTED
    names = [name for name, _ in log_of(tmp_path)]
    assert [name for name in names if names.count(name) > 1] == ["task-0", "task-0"]
    killed.wait(timeout=20)


def test_who_makes_what_is_said_while_waiting(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("vidlankd_hf.utils.locks.FIRST_SECONDS", 0.0)
    other = start(tmp_path, seconds=1)
    until(lambda: log_of(tmp_path))
    for _ in SharedTasks(tmp_path).run([("task-0", 0)], None):
        pass
    assert f"process {other.pid} on {os.uname().nodename} makes task-0 of {tmp_path}" in capsys.readouterr().out
    other.kill()
    other.communicate()


def test_damaged_result_is_made_again_and_an_error_leaves_the_task_open(tmp_path):
    tasks, ran = SharedTasks(tmp_path), []
    tasks.folder.mkdir()

    def work(folder, name, argument):
        ran.append(name)
        if argument is None:
            raise ValueError("wrong input")
        return {}

    list(tasks.run([("a", 1), ("b", 2)], work))
    (tasks.folder / "a.done.json").write_text('{"checksum": "x"}')
    list(tasks.run([("a", 1), ("b", 2)], work))
    assert ran == ["a", "b", "a"]
    for _ in range(2):
        with pytest.raises(ValueError, match="wrong input"):
            list(tasks.run([("c", None)], work))


def test_process_that_works_ahead_reads_only_a_few_arguments(tmp_path):
    tasks, read = SharedTasks(tmp_path), []
    tasks.folder.mkdir()
    source = ((f"t{number:03d}", read.append(number)) for number in range(100))
    with closing(tasks.run(source, lambda *given: {})) as done:
        next(done)
    assert len(read) <= shared_tasks.AHEAD + 1


def test_finished_tasks_end_those_who_help(tmp_path):
    tasks = SharedTasks(tmp_path)
    tasks.folder.mkdir()
    list(tasks.run([("a", 1)], lambda *given: {}))
    tasks.remove()
    assert not list(tmp_path.iterdir())
    with pytest.raises(TasksRemoved):
        list(SharedTasks(tmp_path).run([("a", 1)], lambda *given: {}))


def test_without_locks_only_the_first_process_of_a_launch_works(tmp_path, monkeypatch):
    monkeypatch.setattr(shared_tasks, "take_lock", lambda *given, **options: None)
    tasks = SharedTasks(tmp_path)
    tasks.folder.mkdir()
    monkeypatch.setenv("RANK", "1")
    assert tasks._claim_one_of([("a", 1)]) is None
    monkeypatch.setenv("RANK", "0")
    list(tasks.run([("a", 1)], lambda *given: {}))
    assert tasks.result("a") == {}

"""Steps of an experiment start when what they need is finished, on this machine or as Slurm jobs."""

import io
import sys
import threading
import time
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace

import pytest
from tqdm.auto import tqdm

from vidlankd_hf.experiments.grid import ExperimentRun, Step, run_steps
from vidlankd_hf.experiments.jobs import on_slurm, on_this_machine
from vidlankd_hf.reliability.run_dir import run_script


class Record:
    """Works that write down when they begin and end."""

    def __init__(self):
        self.events, self.lock = [], threading.Lock()

    def work(self, name, seconds=0.0, error=None, **given):
        with self.lock:
            self.events.append(("begin", name, given))
        time.sleep(seconds)
        if error:
            raise error
        with self.lock:
            self.events.append(("end", name, given))
        return name

    def step(self, name, *needs, alone=False, **options):
        return Step(name, partial(self.work, name, **options), needs, alone)

    def place(self, what, name):
        return next(i for i, event in enumerate(self.events) if event[:2] == (what, name))


def run(steps, jobs):
    with on_this_machine(jobs) as submit, tqdm(total=len(steps), file=io.StringIO()) as progress:
        failed = run_steps(steps, submit, progress)
        assert progress.n == len(steps)
    return failed


def test_a_step_starts_when_those_that_it_needs_are_finished_whatever_else_runs(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    record = Record()
    steps = [
        record.step("slow", seconds=0.5),
        record.step("teacher"),
        record.step("student", "teacher", "made before"),
    ]
    assert run(steps, jobs=2) == {}
    assert record.place("end", "teacher") < record.place("begin", "student") < record.place("end", "slow")


def test_what_needs_a_failed_step_is_not_started_and_the_others_go_on(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    record = Record()
    steps = [
        record.step("vokens", error=ValueError("too few clips")), record.step("student", "vokens"),
        record.step("scores", "student"), record.step("other"),
    ]  # fmt: skip
    failed = run(steps, jobs=1)
    assert failed == {
        "vokens": "too few clips",
        "student": "it needs vokens, which failed",
        "scores": "it needs student, which failed",
    }
    assert [event[1] for event in record.events] == ["vokens", "other", "other"]


def test_jobs_have_a_gpu_each_and_a_launched_run_has_the_machine_to_itself(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    record = Record()
    steps = [record.step(name, seconds=0.1) for name in "abcd"]
    run([*steps[:2], record.step("launched", alone=True, seconds=0.1), *steps[2:]], jobs=2)
    given = {name: options for what, name, options in record.events if what == "begin"}
    assert given["launched"] == {"quiet": False, "gpu": None}
    assert all(given[name]["quiet"] for name in "abcd")
    assert {given["a"]["gpu"], given["b"]["gpu"]} == {"4", "5"} == {given["c"]["gpu"], given["d"]["gpu"]}
    begin, end = record.place("begin", "launched"), record.place("end", "launched")
    assert end == begin + 1, "nothing begins or ends meanwhile"


def test_one_job_shows_its_output(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    record = Record()
    run([record.step("a")], jobs=1)
    assert record.events[0][2] == {"quiet": False, "gpu": None}


def test_steps_that_are_not_started_yet_are_not_after_an_interruption(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    record = Record()
    with pytest.raises(KeyboardInterrupt), on_this_machine(1) as submit:
        submit([record.step("a", seconds=0.2), record.step("b")])
        raise KeyboardInterrupt
    assert {event[1] for event in record.events} <= {"a"}


def test_a_run_sees_the_gpu_that_its_job_was_given(tmp_path):
    script, log = tmp_path / "show.py", tmp_path / "log"
    script.write_text("import os; print(os.environ['CUDA_VISIBLE_DEVICES'])")
    run_script(script, log=log, gpu="3")
    assert log.read_text() == "3\n"


def test_command_of_a_run_is_that_of_its_launcher():
    run = ExperimentRun(None, "distill", ["--objectives", "{}"], None)
    assert run.command() == "python -m vidlankd_hf.examples.distill --objectives '{}'"
    assert run.command(["accelerate", "launch"]).startswith("accelerate launch -m vidlankd_hf.examples.distill")


class StubExecutor:
    """`submitit.AutoExecutor` without Slurm: jobs of a batch run when it is left."""

    made = []

    def __init__(self, folder, cluster):
        self.folder, self.cluster, self.arrays = folder, cluster, []
        self.made.append(self)

    def update_parameters(self, **parameters):
        self.parameters = parameters

    @contextmanager
    def batch(self):
        self.arrays.append([])
        yield
        for work, given, job in self.arrays[-1]:
            try:
                job.set_result(work(**given))
            except ValueError as error:
                job.set_exception(error)

    def submit(self, work, **given):
        self.arrays[-1].append((work, given, Future()))
        return self.arrays[-1][-1][2]


def test_steps_that_start_together_are_one_slurm_array(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "submitit", SimpleNamespace(AutoExecutor=StubExecutor))
    record = Record()
    steps = [
        record.step("world"), record.step("teacher", "world"),
        record.step("control", "world", error=ValueError("full disk")), record.step("student", "teacher"),
        record.step("shuffled", "control"),
    ]  # fmt: skip
    parameters = {"slurm_partition": "gpu", "timeout_min": 60}
    with on_slurm(tmp_path, parameters) as submit, tqdm(total=5, file=io.StringIO()) as progress:
        failed = run_steps(steps, submit, progress)
    executor = StubExecutor.made[-1]
    assert (executor.folder, executor.cluster, executor.parameters) == (tmp_path, "slurm", parameters)
    assert [[work.args[0] for work, _, _ in array] for array in executor.arrays] == [
        ["world"], ["teacher", "control"], ["student"]
    ]  # fmt: skip
    assert failed == {"control": "full disk", "shuffled": "it needs control, which failed"}
    assert all(event[2] == {"quiet": True, "gpu": None} for event in record.events)


def test_a_missing_launcher_library_names_its_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ImportError, match=r"vidlankd_hf\[slurm\]"), on_slurm(tmp_path, {}):
        pass

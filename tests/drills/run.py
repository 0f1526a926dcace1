"""Drills: injects the failures of long runs into small ones, and prints how many survived and what was lost.

    make drills                                        all drills (within an hour on 2 cores)
    python tests/drills/run.py --only kill damage      some drills
    python tests/drills/run.py --share 0.1             a tenth of the repetitions

Each run must end with bit-identical weights and logged losses to those of an undisturbed run.
"""

import argparse
import json
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import fuzz
import group_signals
import long_run
import psutil
import torch
import two_machines
from small_runs import TrainerCallback, finished_steps, forked, newest_step, same_end, start_or_resume, wait

from vidlankd_hf import TextCollator, VidLanKDStudent
from vidlankd_hf.reliability import checkpointing
from vidlankd_hf.reliability.checkpointing import checkpoints_of, verify_checkpoint

STEPS = 12  # 6 per epoch (3 with two processes)
RUN = {"max_steps": STEPS, "save_steps": 1, "logging_steps": 1}
Outcome = Iterator[tuple[bool, int]]  # for each repetition: whether it survived, and how many steps were lost


def reference(work: Path) -> Path:
    """Makes the undisturbed run."""
    folder = work / "reference"
    if not folder.exists():
        assert wait(forked(lambda: start_or_resume(folder, **RUN, save_total_limit=None), work / "reference.txt")) == 0
    return folder


def resumes(folder: Path, work: Path, **options) -> bool:
    """Runs the same command again, and returns whether it finishes with the same result as the reference."""
    code = wait(forked(lambda: start_or_resume(folder, **{**RUN, **options}), folder.with_suffix(".txt")))
    return code == 0 and same_end(folder, reference(work), STEPS)


def kill(work: Path, times: int) -> Outcome:
    """Kills (SIGKILL) runs that save after every step at random times."""
    expected, runs, folder = reference(work), 0, None
    begun = time.monotonic()
    assert wait(forked(lambda: start_or_resume(work / "timed", **RUN), work / "timed.txt")) == 0
    duration = time.monotonic() - begun
    for _ in range(times):
        if folder is None or newest_step(folder) == STEPS:
            runs, folder = runs + 1, work / f"killed-{runs}"
        pid = forked(lambda folder=folder: start_or_resume(folder, **RUN), folder.with_suffix(".txt"))
        time.sleep(random.uniform(0, duration))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        finished, saved = finished_steps(folder), newest_step(folder)
        all_complete = all(verify_checkpoint(checkpoint) is None for checkpoint in checkpoints_of(folder))
        same = saved == 0 or same_end(folder, expected, saved)
        yield all_complete and same and finished - saved <= 1, max(0, finished - saved)
    yield resumes(folder, work), 0


def full_disk(work: Path, times: int) -> Outcome:
    """The disk is full before or during a save. Once there is space, the run must continue."""
    for number in range(times):
        before, mount = number % 2 == 0, work / f"disk-{number}"
        mount.mkdir()
        on_tmpfs = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", mount]).returncode == 0
        folder = mount / "run"

        def fill(args, state, control, before=before, mount=mount, on_tmpfs=on_tmpfs, **kwargs):
            if state.global_step == 5:
                if on_tmpfs:
                    room = 0 if before else random.randrange(0, 400_000)
                    with open(mount / "other", "wb") as file:
                        file.write(bytes(max(0, shutil.disk_usage(mount).free - room)))
                else:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (random.randrange(1, 400_000),) * 2)
                if not before:
                    checkpointing.check_space = lambda *_: None  # as if the disk fills up after the check

        callback = TrainerCallback()
        callback.on_step_end = fill
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        log = work / f"disk-{number}.txt"
        code = wait(forked(lambda folder=folder, c=callback: start_or_resume(folder, **RUN, callbacks=[c]), log))
        said = "older checkpoints are untouched" in log.read_text()
        finished = finished_steps(folder)
        untouched = newest_step(folder) == 4 and not list(folder.glob(".*.part"))
        (mount / "other").unlink(missing_ok=True)
        yield code == 1 and said and untouched and resumes(folder, work), finished - 4
        if on_tmpfs:
            subprocess.run(["umount", mount], check=True)


def damage(work: Path, times: int) -> Outcome:
    """The newest checkpoint is truncated, or has a flipped bit."""
    for number in range(times):
        folder = work / f"damaged-{number}"
        for step in range(6, 9):
            shutil.copytree(reference(work) / f"checkpoint-{step}", folder / f"checkpoint-{step}")
        path = random.choice(sorted(p for p in (folder / "checkpoint-8").rglob("*") if p.stat().st_size))
        if number % 2:
            os.truncate(path, random.randrange(path.stat().st_size))
        else:
            content = bytearray(path.read_bytes())
            content[random.randrange(len(content))] ^= 1 << random.randrange(8)
            path.write_bytes(content)
        skipped = newest_step(folder) == 7
        # A flipped bit in the white space of the manifest does no harm.
        harmless = path.name == "manifest.json" and verify_checkpoint(folder / "checkpoint-8") is None
        yield (skipped or harmless) and resumes(folder, work), 8 - newest_step(folder) if not skipped else 0


def two_processes(folder: Path, log: Path, seconds: float = 0.0, callbacks=(), **options) -> list[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    body = {**RUN, "use_cpu": True, **options}
    return [
        forked(lambda: start_or_resume(folder, seconds, callbacks, **body), log, rank, 2, port) for rank in range(2)
    ]


def preempt(work: Path, times: int) -> Outcome:
    """One or both of two processes get SIGTERM or SIGUSR1 at random times during steps, evaluation or saving."""
    options = {"eval_strategy": "steps", "eval_steps": 2, "save_steps": 3}
    expected = work / "two-reference"
    assert [wait(pid) for pid in two_processes(expected, work / "two.txt", save_total_limit=None, **options)] == [0, 0]
    for number in range(times):
        folder, log = work / f"two-{number}", work / f"two-{number}.txt"
        pids = two_processes(folder, log, seconds=0.15, **options)
        while not (folder / ".step-0").exists():  # before the first step, nothing can be lost
            time.sleep(0.02)
        targets = random.choice([[0], [1], [0, 1]])
        for rank in targets:
            time.sleep(random.uniform(0, 1.5 / len(targets)))
            os.kill(pids[rank], random.choice([signal.SIGTERM, signal.SIGUSR1]))
        codes = [wait(pid) for pid in pids]
        finished = max(finished_steps(folder, rank) for rank in range(2))
        lost = finished - newest_step(folder)
        again = [wait(pid) for pid in two_processes(folder, log, **options)]
        yield codes == [143, 143] and lost == 0 and again == [0, 0] and same_end(folder, expected, STEPS), lost


def not_a_number(work: Path, times: int) -> Outcome:
    """The loss of one sample is NaN. The report must name it, no checkpoint hold it, and a replay repeat it."""
    for number in range(times):
        sample, folder, log = random.randrange(50), work / f"nan-{number}", work / f"nan-{number}.txt"

        def body(folder=folder, sample=sample, **options):
            collate, forward, held = TextCollator.__call__, VidLanKDStudent.forward, []

            def watch(self, samples):
                held.append(sample in [s["sample_id"] for s in samples])
                return collate(self, samples)

            def poison(self, *args, **kwargs):
                outputs = forward(self, *args, **kwargs)
                if self.training and held[poison.calls]:
                    outputs.losses["nst"] = outputs.losses["nst"] * float("nan")
                poison.calls += self.training
                return outputs

            poison.calls = 0
            TextCollator.__call__, VidLanKDStudent.forward = watch, poison
            start_or_resume(folder, **{**RUN, "save_steps": 4, "logging_steps": 5, **options})

        if wait(forked(body, log)) == 0:
            yield same_end(folder, reference(work), STEPS), 0  # the sample was in no batch
            continue
        (report,) = folder.glob("nonfinite-step-*.json")
        first = json.loads(report.read_text())
        named = sample in first["sample_ids_of_processes"]["0"] and first["components"] == ["nst"]
        clean = (
            all(verify_checkpoint(c) is None for c in checkpoints_of(folder)) and newest_step(folder) < first["step"]
        )
        report.unlink()
        replayed = wait(forked(lambda body=body: body(logging_steps=1), log)) == 1
        (report,) = folder.glob("nonfinite-step-*.json")
        again = json.loads(report.read_text())
        same = all(first[name] == again[name] for name in ("step", "components", "sample_ids_of_processes"))
        yield named and clean and replayed and same, 0


def out_of_memory(work: Path, times: int) -> Outcome:
    """A batch does not fit into memory."""
    for number in range(times):
        log = work / f"memory-{number}.txt"

        def body(number=number):
            used = psutil.Process().memory_info().vms
            resource.setrlimit(resource.RLIMIT_AS, (used + 400 * 2**20,) * 2)
            shape = {"num_hidden_layers": 2, "hidden_size": 512, "num_attention_heads": 8, "intermediate_size": 8192}
            start_or_resume(work / f"memory-{number}", **{**RUN, "per_device_train_batch_size": 24, "shape": shape})

        code = wait(forked(body, log))
        said = "Out of memory in training: give --per_device_train_batch_size 12 (it is 24)" in log.read_text()
        yield code == 1 and said, 0


def dead_worker(work: Path, times: int) -> Outcome:
    """A data loader worker is killed, as happens if a machine runs out of memory."""
    for number in range(times):
        folder, log = work / f"worker-{number}", work / f"worker-{number}.txt"
        pid = forked(lambda folder=folder: start_or_resume(folder, 0.1, **RUN, dataloader_num_workers=2), log)
        while finished_steps(folder) < 2:
            time.sleep(0.02)
        time.sleep(random.uniform(0, 0.5))
        workers = psutil.Process(pid).children()
        random.choice(workers).kill()
        code = wait(pid, 60)
        said = "data loader worker died" in log.read_text()
        lost = finished_steps(folder) - newest_step(folder)
        yield code == 1 and said and resumes(folder, work), lost


def hang(work: Path, times: int) -> Outcome:
    """One of two processes hangs in the middle of a step, and the other waits for it."""
    for number in range(times):
        folder, log, at = work / f"hung-{number}", work / f"hung-{number}.txt", random.randrange(2, STEPS - 1)

        def sleep(args, state, control, at=at, **kwargs):
            if state.global_step == at and args.process_index == 1:
                time.sleep(600)

        callback = TrainerCallback()
        callback.on_step_begin = sleep
        begun = time.monotonic()
        codes = [wait(pid, 60) for pid in two_processes(folder, log, callbacks=[callback], hang_timeout=4.0)]
        in_time = time.monotonic() - begun < 30
        yield in_time and None not in codes and 0 not in codes and "Timeout (0:00:04" in log.read_text(), 0


DRILLS = {  # name: (function, repetitions)
    "kill": (kill, 50),
    "disk": (full_disk, 6),
    "damage": (damage, 30),
    "preempt": (preempt, 20),
    "group": (group_signals.drill, 100),
    "machines": (two_machines.drill, 6),
    "nan": (not_a_number, 10),
    "memory": (out_of_memory, 2),
    "worker": (dead_worker, 5),
    "hang": (hang, 3),
    "fuzz": (fuzz.drill, 600),
    "long": (long_run.drill, 10_000),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(DRILLS), default=list(DRILLS), help="drills to run")
    parser.add_argument("--share", type=float, default=1.0, help="factor for the number of repetitions")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random times")
    parser.add_argument(
        "--output_dir", default="outputs/drills", help="folder of the results and the plot of the long run"
    )
    args = parser.parse_args()
    random.seed(args.seed)
    torch.set_num_threads(1)
    output, rows = Path(args.output_dir), []
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="drills-") as work:
        for name in args.only:
            drill, times = DRILLS[name]
            begun, outcomes = time.monotonic(), []
            further = (output,) if name == "long" else ()
            for outcome in drill(Path(work), max(1, round(times * args.share)), *further):
                outcomes.append(outcome)
            row = {
                "drill": name,
                "times": len(outcomes),
                "survived": sum(survived for survived, _ in outcomes),
                "most steps lost": max(lost for _, lost in outcomes),
                "seconds": round(time.monotonic() - begun),
            }
            rows.append(row)
            print(f"{name}: {row}", flush=True)
        if any(row["survived"] < row["times"] for row in rows):
            shutil.copytree(work, output / "failed", dirs_exist_ok=True)
    (output / "drills.json").write_text(json.dumps(rows, indent=2) + "\n")
    columns = list(rows[0])
    print("\n| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(str(row[column]) for column in columns) + " |")
    raise SystemExit(any(row["survived"] < row["times"] for row in rows))


if __name__ == "__main__":
    main()

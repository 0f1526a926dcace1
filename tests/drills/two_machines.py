"""Two machines without a common folder: two network namespaces, each with its own folder at the same path.

They train with `accelerate launch` and `--save_on_each_node`, are killed, damaged or stopped, and resume from the
newest step that is complete on both. They must end with the weights and losses of an undisturbed run, bit for bit.
This needs the right to make namespaces.

Started by itself, this file is the script that the machines launch.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
from small_runs import OPTIONS, ROOT, Progress, finished_steps, newest_step, same_end

STEPS = 12
RUN = {"max_steps": STEPS, "save_steps": 2, "logging_steps": 1, "save_total_limit": 2, "hang_timeout": 60.0}
CASES = ["kill both", "kill one", "terminate one", "damage", "missing", "terminate group"]


class Machines:
    """Two connected network namespaces, each with its own folder `run`."""

    def __init__(self, work: Path):
        self.work, self.names = work, [f"vidlankd-{os.getpid()}-{rank}" for rank in range(2)]
        self.ports = iter(range(29600, 29700))

    def __enter__(self) -> "Machines":
        for name in self.names:
            _run("ip", "netns", "add", name)
        ends = [f"vd{os.getpid()}{side}" for side in "ab"]
        _run("ip", "link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        for rank, (name, end) in enumerate(zip(self.names, ends)):
            _run("ip", "link", "set", end, "netns", name)
            _run("ip", "-n", name, "link", "set", end, "name", "cable")
            _run("ip", "-n", name, "address", "add", f"10.77.0.{rank + 1}/24", "dev", "cable")
            for device in ("lo", "cable"):
                _run("ip", "-n", name, "link", "set", device, "up")
        return self

    def __exit__(self, *exception) -> None:
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name])

    def folder(self, case: str, rank: int) -> Path:
        return self.work / f"machine-{rank}" / case

    def start(self, case: str, seconds: float = 0.0, **options) -> list[subprocess.Popen]:
        """Launches the same command on both machines."""
        mount, port = self.work / "run", next(self.ports)
        mount.mkdir(exist_ok=True)
        launches = []
        for rank, name in enumerate(self.names):
            folder = self.folder(case, rank)
            folder.mkdir(parents=True, exist_ok=True)
            command = [sys.executable, "-m", "accelerate.commands.launch"]
            command += ["--config_file", str(ROOT / "accelerate_configs" / "cpu.yaml"), "--num_machines", "2"]
            command += ["--num_processes", "2", "--machine_rank", str(rank), "--main_process_ip", "10.77.0.1"]
            command += ["--main_process_port", str(port), __file__, str(mount), str(seconds), json.dumps(options)]
            # The mount is seen by this machine alone: `ip netns exec` gives it a mount namespace of its own.
            script = 'mount --bind "$0" "$1" && shift && exec "$@"'
            inside = ["sh", "-c", script, str(folder), str(mount), *command]
            with open(self.work / f"{case}-{rank}.txt", "a") as log:
                launches.append(
                    subprocess.Popen(
                        ["ip", "netns", "exec", name, *inside],
                        stdout=log,
                        stderr=log,
                        start_new_session=True,
                        env={**os.environ, "GLOO_SOCKET_IFNAME": "cable"},
                    )  # fmt: skip
                )
        return launches

    def log(self, case: str, rank: int) -> str:
        return (self.work / f"{case}-{rank}.txt").read_text(errors="replace")


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


def processes_of(launch: subprocess.Popen) -> list[psutil.Process]:
    return [*psutil.Process(launch.pid).children(recursive=True), psutil.Process(launch.pid)]


def kill(launch: subprocess.Popen) -> None:
    for process in processes_of(launch):
        with suppress(psutil.NoSuchProcess):
            process.kill()


def ended(launches: list[subprocess.Popen], seconds: float = 150.0) -> list[int | None]:
    """Exit codes of the launches; those that do not end are killed, and their code is `None`."""
    end, codes = time.monotonic() + seconds, []
    for launch in launches:
        try:
            codes.append(launch.wait(max(1.0, end - time.monotonic())))
        except subprocess.TimeoutExpired:
            kill(launch)
            launch.wait()
            codes.append(None)
    return codes


def interrupt(machines: Machines, case: str) -> tuple[bool, int]:
    """Starts a run and interrupts it after some steps; returns whether it ended as promised, and the steps lost."""
    launches = machines.start(case, seconds=0.3, **RUN)
    folders = [machines.folder(case, rank) for rank in range(2)]
    end = time.monotonic() + 120
    while finished_steps(folders[0]) < 5 and time.monotonic() < end and launches[0].poll() is None:
        time.sleep(0.05)
    time.sleep(random.uniform(0, 1.0))
    if case.startswith("terminate"):
        target = launches[1]
        if case == "terminate group":
            os.killpg(target.pid, signal.SIGTERM)
        else:
            target.send_signal(signal.SIGTERM)
    elif case == "kill one":
        kill(launches[1])
    else:
        for launch in launches:
            kill(launch)
    codes = ended(launches)
    reached = max(finished_steps(folder, rank) for rank, folder in enumerate(folders))
    lost = reached - min(newest_step(folder) for folder in folders)
    return None not in codes and lost <= (0 if case.startswith("terminate") else 3), lost


def damage(machines: Machines, case: str) -> str:
    """Damages or removes the newest checkpoint of one machine; returns what the next start must say."""
    folder, newest = machines.folder(case, 1), newest_step(machines.folder(case, 1))
    checkpoint = folder / f"checkpoint-{newest}"
    if case == "missing":
        shutil.rmtree(checkpoint)
        return f"checkpoint-{newest}: on the machine of process 1, it has no manifest.json"
    path = checkpoint / "optimizer.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 64
    path.write_bytes(content)
    return f"checkpoint-{newest}: on the machine of process 1, optimizer.pt is damaged"


def drill(work: Path, times: int) -> Iterator[tuple[bool, int]]:
    with Machines(work) as machines:
        codes = ended(machines.start("reference", **{**RUN, "save_total_limit": None}))
        expected = machines.folder("reference", 0)
        yield codes == [0, 0] and same_end(machines.folder("reference", 1), expected, STEPS), 0
        codes = ended(machines.start("not shared", **RUN, save_on_each_node=False))
        said = all("does not see" in machines.log("not shared", rank) for rank in range(2))
        yield 0 not in codes and None not in codes and said, 0
        for case in CASES[:times]:
            survived, lost = interrupt(machines, case)
            said = damage(machines, case) if case in ("damage", "missing") else ""
            codes = ended(machines.start(case, **RUN))
            same = codes == [0, 0] and all(same_end(machines.folder(case, rank), expected, STEPS) for rank in range(2))
            yield survived and same and said in machines.log(case, 0), lost


def main() -> None:
    from helpers import train

    from vidlankd_hf import DistillationConfig
    from vidlankd_hf.reliability import folder_lock
    from vidlankd_hf.reliability.run_dir import open_run_dir

    folder, seconds, options = Path(sys.argv[1]), float(sys.argv[2]), json.loads(sys.argv[3])
    folder_lock.SECONDS_UNTIL_SEEN = 3.0
    # The launcher's process group determines the device.
    options = {"save_on_each_node": True, **OPTIONS, **options, "use_cpu": False}
    plain = {name: value for name, value in options.items() if name not in ("objectives", "dropout")}
    args = DistillationConfig(
        output_dir=str(folder), per_device_train_batch_size=4, seed=5, learning_rate=1e-3, report_to="none", **plain
    )
    checkpoint = open_run_dir(args, {})
    train("student", folder, **options, resume=checkpoint, callbacks=[Progress(folder, seconds)])


if __name__ == "__main__":
    main()

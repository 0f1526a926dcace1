"""Helpers of the benchmarks: time and memory of a piece of work, and a description of the machine."""

import ctypes
import os
import platform
import time
from pathlib import Path

import torch
import transformers


def seconds(work, device: str) -> float:
    """Wall-clock time of `work()`, with a device sync before and after."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peak_memory(work, device: str) -> int | None:
    """Peak of bytes that `work()` allocates; `None` if this machine cannot measure it."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return torch.cuda.max_memory_allocated() - before
    try:
        ctypes.CDLL(None).malloc_trim(0)  # otherwise freed memory would be reused unnoticed
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak of the resident set
    except (OSError, AttributeError):
        work()
        return None
    before = _status("VmRSS")
    work()
    return max(0, _status("VmHWM") - before)


def _status(field: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def describe_machine(device: str) -> dict:
    machine = {
        "processor": torch.cuda.get_device_name() if device == "cuda" else _processor(),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
    }
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    machine["cpu_features"] = [f for f in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f in flags]
    return machine


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    names = [li.partition(":")[2].strip() for li in path.read_text().splitlines() if li.startswith("model name")] \
        if path.exists() else []  # fmt: skip
    return f"{len(names)} x {names[0]}" if names else platform.processor()

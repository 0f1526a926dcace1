"""The measurements for a GPU go on after a failure, keep what they have, fit into their time and into 64 MiB."""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks" / "gpu"


@pytest.fixture
def load(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])

    def module(name: str):
        spec = importlib.util.spec_from_file_location(f"gpu_{name}", FOLDER / f"{name}.py")
        loaded = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
        return loaded

    return module


def test_bundle_that_is_too_large_is_refused_and_its_largest_files_are_named(load, tmp_path, monkeypatch):
    bundle = load("make_bundle")
    (tmp_path / "wheels").mkdir()
    for name, size in (("small.whl", 10), ("large.whl", 3000)):
        (tmp_path / "wheels" / name).write_bytes(bytes(size))
    assert bundle.check_size(tmp_path) == 3010
    monkeypatch.setattr(bundle, "LIMIT", 3000)
    with pytest.raises(SystemExit, match="at most 0 MiB are allowed: large.whl 0.0, small.whl"):
        bundle.check_size(tmp_path)


def test_bundle_holds_versions_that_the_tests_run_on(load):
    bundle = load("make_bundle")
    assert bundle.pinned("transformers", bundle.WHEELS["transformers"]) == "transformers==5.20.0"
    for name, where in {**bundle.WHEELS, **bundle.BUILT}.items():
        assert bundle.pinned(name, where).startswith(f"{name}==")


@pytest.mark.slow
def test_bundle_is_made_and_fits(tmp_path):
    """Needs the package index."""
    made = subprocess.run(
        [sys.executable, str(FOLDER / "make_bundle.py"), "--output_dir", str(tmp_path / "bundle")],
        capture_output=True,
        text=True,
    )
    if "No matching distribution" in made.stderr or "Connection" in made.stderr:
        pytest.skip("the package index is not reachable")
    assert made.returncode == 0, made.stderr[-2000:]
    size = sum(path.stat().st_size for path in (tmp_path / "bundle").rglob("*") if path.is_file())
    assert 20 * 2**20 < size <= 64 * 2**20
    assert list((tmp_path / "bundle" / "wheels").glob("vidlankd_hf-*.whl"))


def test_failed_check_stops_no_other_and_is_repeated(load, tmp_path):
    results = load("results")
    args = argparse.Namespace(output_dir=tmp_path, device="cpu", seconds=60)

    def fail():
        raise RuntimeError("out of luck")

    def skip():
        raise results.SkippedError("needs a GPU")

    first = results.Results("part", args)
    for name, check in (("bad", fail), ("skipped", skip), ("good", lambda: {"value": 3})):
        first.run(name, check)
    held = json.loads((tmp_path / "part.json").read_text())["checks"]
    assert first.failed == ["bad"] and "out of luck" in held["bad"]["failed"]
    assert held["skipped"]["skipped"] == "needs a GPU" and held["good"]["value"] == 3

    second = results.Results("part", args)
    second.run("good", fail)
    second.run("bad", lambda: {"value": 4})
    assert json.loads((tmp_path / "part.json").read_text())["checks"]["bad"]["value"] == 4 and not second.failed

    args.seconds = 0
    late = results.Results("part", args)
    late.run("new", lambda: {"value": 5})
    assert late.failed == ["new"] and "new" not in late.checks


def run_all(tmp_path, python: str, **environment) -> subprocess.CompletedProcess:
    stub = tmp_path / "python"
    stub.write_text(f"#!/usr/bin/env bash\n{python}\n")
    stub.chmod(0o755)
    environment = {**os.environ, "PYTHON": str(stub), "WORK": str(tmp_path / "work"), **environment}
    command = [str(FOLDER / "run.sh"), "--rehearse", str(tmp_path / "results")]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)


def test_part_that_fails_does_not_stop_the_next_one(tmp_path):
    run = run_all(tmp_path, f'echo "$@" >> {tmp_path}/called; exit 3')
    called = (tmp_path / "called").read_text().splitlines()
    assert run.returncode == 1 and run.stdout.count("not complete") == 4
    assert [Path(line.split()[0]).name for line in called] == ["correctness.py", "speed.py", "jobs.py", "jobs.py"]
    assert all(line.endswith("--rehearse") or "--rehearse --part" in line for line in called)


def test_no_part_begins_without_time(tmp_path):
    run = run_all(tmp_path, f"touch {tmp_path}/called", LIMIT="5")
    assert run.returncode == 1 and run.stdout.count("no time left") == 4 and not (tmp_path / "called").exists()


@pytest.mark.slow
def test_part_that_takes_too_long_is_stopped(tmp_path):
    run = run_all(tmp_path, "exec sleep 50", LIMIT="16")
    assert run.returncode == 1 and "correctness: not complete" in run.stdout and run.stdout.count("no time left") == 3


@pytest.mark.slow
@pytest.mark.parametrize("script, options, checks", [
    ("correctness.py", ["--only", "student_fp32", "teacher_bf16", "resume", "gather_negatives", "no_waiting_student"],
     5),
    ("speed.py", ["--only", "base", "modernbert"], 4),
])  # fmt: skip
def test_parts_are_rehearsed_on_a_cpu(tmp_path, script, options, checks):
    command = [sys.executable, str(FOLDER / script), "--rehearse", "--output_dir", str(tmp_path), *options]
    run = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    held = json.loads((tmp_path / script.replace(".py", ".json")).read_text())["checks"]
    assert len(held) == checks and not any("failed" in check for check in held.values())


def test_without_a_gpu_a_measurement_is_refused(load, tmp_path, monkeypatch):
    results = load("results")
    monkeypatch.setattr(results.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["speed.py", "--output_dir", str(tmp_path)])
    with pytest.raises(SystemExit, match="there is no GPU: give --rehearse"):
        results.arguments(results.parser_of("about"))

"""Launches are what they claim to be, and shard without changing a loss."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import logged, train
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM

ROOT = Path(__file__).parent.parent
OBJECTIVES = {"nst": 30.0, "regression": 1.0}
NAMES = ("loss", "mlm_loss", "nst_loss", "regression_loss")


def launch(config: str, tmp_path, **options) -> dict:
    result = tmp_path / "result.json"
    options = {**options, "output_dir": str(tmp_path / "run"), "result": str(result)}
    command = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--config_file",
        str(ROOT / "accelerate_configs" / config),
    ]
    script = [str(ROOT / "tests" / "distributed_run.py"), json.dumps(options)]
    run = subprocess.run([*command, "--main_process_port", "0", *script], capture_output=True, text=True, timeout=400)
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(result.read_text())


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return train("student", tmp_path_factory.mktemp("alone"), OBJECTIVES, per_device_train_batch_size=8, max_steps=6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "config, kind", [("cpu.yaml", "MULTI_CPU"), ("zero2.yaml", "DEEPSPEED"), ("zero3.yaml", "DEEPSPEED")]
)
def test_launch_is_what_it_claims_and_changes_no_loss(tmp_path, alone, config, kind):
    seen = launch(
        config,
        tmp_path,
        kind="student",
        objectives=OBJECTIVES,
        per_device_train_batch_size=4,
        max_steps=6,
    )
    assert (seen["world_size"], seen["distributed_type"]) == (2, kind)
    steps = [{name: entry[name] for name in NAMES} for entry in seen["log_history"] if "loss" in entry]
    assert len(steps) == 6
    for ours, one in zip(steps, logged(alone, *NAMES)):
        assert ours == pytest.approx(one, rel=2e-4)
    _, info = AutoModelForMaskedLM.from_pretrained(tmp_path / "run", output_loading_info=True)
    assert not any(info.values())
    assert load_file(tmp_path / "run" / "distillation" / "heads.safetensors")
    whole = sum(p.numel() * p.element_size() for p in alone.teacher.parameters())
    share = seen["teacher_bytes_of_a_rank"] / whole
    assert 0.5 <= share < 0.55 if config == "zero3.yaml" else share == 1, "ZeRO-3 shards the frozen teacher too"

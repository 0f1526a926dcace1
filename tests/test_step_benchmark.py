"""The step benchmark only compares equal computations, and fails if ours is too slow."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "step.py"


@pytest.fixture
def step(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPT.parent)
    spec = importlib.util.spec_from_file_location("step", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(*arguments):
        options = ["--sizes", "tiny", "--batch", "2", "--rounds", "1", "--precisions", "fp32", *arguments]
        monkeypatch.setattr(sys, "argv", ["step.py", *map(str, options)])
        module.main()

    module.run = run
    return module


@pytest.mark.slow
def test_every_variant_and_its_parts_are_timed_and_slow_ratios_fail(step, tmp_path, capsys):
    floors = tmp_path / "floors.json"
    floors.write_text(json.dumps({"tiny both: original fp32 / ours fp32": 0.01}))
    step.run("--output_dir", tmp_path, "--floors", floors)
    assert "loss and gradient norm agree" in capsys.readouterr().out
    rows = {row["way"]: row for row in json.loads((tmp_path / "step.json").read_text())["rows"]}
    assert set(rows) == {"original", "stock", "ours", "alone"}
    assert all(row["seconds"] > 0 and row["parts"]["encoder"] > 0 for row in rows.values())
    assert rows["alone"]["parts"]["teacher"] == rows["alone"]["parts"]["objectives"] == 0
    assert rows["ours"]["parts"]["teacher"] > 0 < rows["ours"]["parts"]["objectives"]
    assert rows["ours"]["model_flops"] > rows["alone"]["model_flops"]
    assert (tmp_path / "step.png").stat().st_size > 0

    floors.write_text(json.dumps({"tiny both: original fp32 / ours fp32": 1e6}))
    with pytest.raises(SystemExit, match="too slow.* tiny both: original fp32 / ours fp32 is"):
        step.run("--floors", floors)


def test_variants_with_different_losses_are_not_timed(step, monkeypatch, capsys):
    original = step.WAYS["original"].crd
    monkeypatch.setattr(step.WAYS["stock"], "crd", lambda self, s, t: 1.01 * original(self, s, t))
    with pytest.raises(SystemExit, match="nothing is timed: .* for original and .* for stock"):
        step.run()
    assert "ms per step" not in capsys.readouterr().out

"""A teacher's folder holds its code: it loads where this package is not installed."""

import os
import subprocess
import sys

import pytest
import torch
from helpers import FEATURE_SIZE, make_teacher, make_tokenizer, train
from transformers import AutoConfig, AutoModel

from vidlankd_hf import VidLanKDTeacher

CODE = ["attention.py", "configuration.py", "heads.py", "losses.py", "teacher.py", "video_encoder.py"]
# What a process sees where the package is not installed, nor anything that only training needs.
WITHOUT_PACKAGE = """
import sys
for name in ("vidlankd_hf", "deepspeed", "datasets", "evaluate", "av", "sklearn"):
    sys.modules[name] = None
try:
    import vidlankd_hf
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("the package is there")
"""


def outputs(teacher) -> dict[str, torch.Tensor]:
    ids, mask = torch.arange(5, 17).view(2, 6), torch.tensor([[1] * 6, [1, 1, 1, 1, 0, 0]])
    features = torch.linspace(-1, 1, 2 * 3 * FEATURE_SIZE).view(2, 3, FEATURE_SIZE)
    places = torch.tensor([[1, 2], [0, 3]])
    with torch.no_grad():
        output = teacher.eval()(ids, mask, features, masked_positions=places, masked_labels=ids.gather(1, places))
    return {"logits": output.logits, "states": output.last_hidden_state, "video": output.video_embeds,
            "loss": output.loss}  # fmt: skip


def run_without_package(code: str, tmp_path, **environment) -> subprocess.CompletedProcess:
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), **environment}
    environment.pop("PYTHONPATH", None)
    command = [sys.executable, "-c", WITHOUT_PACKAGE + code]
    return subprocess.run(command, capture_output=True, text=True, timeout=500, env=environment, cwd=tmp_path)


@pytest.mark.parametrize("design", [{}, {"joint_size": 8, "contrast": "hinge"}])
def test_teacher_loads_without_this_package_and_computes_the_same(tmp_path, design):
    teacher = make_teacher(make_tokenizer(), **design)
    teacher.save_pretrained(tmp_path / "my-teacher")
    torch.save(outputs(teacher), tmp_path / "expected.pt")
    code = f"""
import torch
from transformers import AutoConfig, AutoModel
try:
    AutoModel.from_pretrained("my-teacher", trust_remote_code=False)
except ValueError as error:
    assert "trust_remote_code" in str(error), error
else:
    raise SystemExit("loaded code that nobody trusted")
teacher, info = AutoModel.from_pretrained("my-teacher", trust_remote_code=True, output_loading_info=True)
assert not any(info.values()), info
assert type(teacher).__module__.startswith("transformers_modules."), type(teacher)
ids, mask = torch.arange(5, 17).view(2, 6), torch.tensor([[1] * 6, [1, 1, 1, 1, 0, 0]])
features = torch.linspace(-1, 1, 2 * 3 * {FEATURE_SIZE}).view(2, 3, {FEATURE_SIZE})
places = torch.tensor([[1, 2], [0, 3]])
with torch.no_grad():
    output = teacher.eval()(ids, mask, features, masked_positions=places, masked_labels=ids.gather(1, places))
found = {{"logits": output.logits, "states": output.last_hidden_state, "video": output.video_embeds,
         "loss": output.loss}}
expected = torch.load("expected.pt", weights_only=True)
assert all(torch.equal(expected[name], found[name]) for name in expected)
teacher.save_pretrained("again")
AutoModel.from_pretrained("again", trust_remote_code=True)
"""
    run = run_without_package(code, tmp_path)
    assert run.returncode == 0, run.stderr[-3000:]


def test_where_the_package_is_installed_its_own_code_is_used(tmp_path):
    teacher = make_teacher(make_tokenizer())
    teacher.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*.py")) == CODE
    (tmp_path / "teacher.py").write_text("raise SystemExit('ran the code of a folder')")
    loaded = AutoModel.from_pretrained(tmp_path)
    assert type(loaded) is VidLanKDTeacher and AutoConfig.from_pretrained(tmp_path).auto_map
    expected, found = outputs(teacher), outputs(loaded)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_run_and_its_checkpoints_hold_the_code_too(tmp_path):
    trainer = train("teacher", tmp_path, save_strategy="steps", save_steps=3)
    trainer.save_model()
    for folder in (tmp_path, tmp_path / "checkpoint-3"):
        assert sorted(path.name for path in folder.glob("*.py")) == CODE

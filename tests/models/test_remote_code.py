"""Saved models load where they should: teachers without this package, and models saved by older versions of it."""

import ast
from pathlib import Path

import pytest
import torch
from helpers import FEATURE_SIZE, make_teacher, make_tokenizer, train
from launching import run_without_package
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM

import vidlankd_hf
from vidlankd_hf import VidLanKDStudent, VidLanKDTeacher, load_teacher
from vidlankd_hf.models import teacher as teacher_module

CODE = [
    "attention.py", "configuration.py", "contrast.py", "heads.py", "loading.py", "losses.py", "teacher.py",
    "video_encoder.py",
]  # fmt: skip
SAVED = Path(__file__).parent / "saved_at_1376657"  # a tiny teacher and student as the package saved them then


def imports_of(path: Path) -> list[tuple[int, str]]:
    """(level, module) of each import in a file: level 1 for `from .x`, 2 for `from ..x`, 0 for absolute imports."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            names = [node.module] if node.module else [alias.name for alias in node.names]
            found += [(node.level, name) for name in names]
        elif isinstance(node, ast.Import):
            found += [(0, alias.name) for alias in node.names]
    return found


def test_everything_a_teacher_imports_from_the_package_is_in_its_own_folder():
    """transformers copies files that are imported as `from .x`, and fails to save a teacher that imports others."""
    folder = Path(teacher_module.__file__).parent
    reached, unread = set(), {"teacher.py"}
    while unread:
        name = unread.pop()
        reached.add(name)
        for level, module in imports_of(folder / name):
            assert level < 2 and module.split(".")[0] != vidlankd_hf.__name__, f"{name} imports {module}"
            if level == 1:
                assert (folder / f"{module}.py").is_file(), f"{name} imports {module}"
                unread |= {f"{module}.py"} - reached
    assert sorted(reached) == CODE


def inputs() -> dict[str, torch.Tensor]:
    ids, mask = torch.arange(5, 17).view(2, 6), torch.tensor([[1] * 6, [1, 1, 1, 1, 0, 0]])
    slots = torch.tensor([[1, 2], [0, 3]])
    return {"input_ids": ids, "attention_mask": mask, "masked_positions": slots, "masked_labels": ids.gather(1, slots)}


def outputs(teacher) -> dict[str, torch.Tensor]:
    features = torch.linspace(-1, 1, 2 * 3 * FEATURE_SIZE).view(2, 3, FEATURE_SIZE)
    with torch.no_grad():
        output = teacher.eval()(**inputs(), video_features=features)
    return {"logits": output.logits, "states": output.last_hidden_state, "video": output.video_embeds,
            "text": output.text_embeds, "loss": output.loss, **output.losses}  # fmt: skip


@pytest.mark.parametrize("design", [{}, {"joint_size": 8, "contrast": "hinge"}])
def test_teacher_loads_without_this_package_and_computes_the_same(tmp_path, design):
    teacher = make_teacher(make_tokenizer(), **design)
    teacher.save_pretrained(tmp_path / "my-teacher")
    features = torch.linspace(-1, 1, 2 * 3 * FEATURE_SIZE).view(2, 3, FEATURE_SIZE)
    torch.save({**inputs(), "video_features": features}, tmp_path / "inputs.pt")
    torch.save(outputs(teacher), tmp_path / "expected.pt")
    code = """
import torch
from transformers import AutoConfig, AutoModel
try:
    AutoModel.from_pretrained("my-teacher", trust_remote_code=False)
except ValueError as error:
    assert "trust_remote_code" in str(error), error
else:
    raise SystemExit("loaded remote code without trust_remote_code")
teacher, info = AutoModel.from_pretrained("my-teacher", trust_remote_code=True, output_loading_info=True)
assert not any(info.values()), info
assert type(teacher).__module__.startswith("transformers_modules."), type(teacher)
with torch.no_grad():
    output = teacher.eval()(**torch.load("inputs.pt", weights_only=True))
found = {"logits": output.logits, "states": output.last_hidden_state, "video": output.video_embeds,
         "text": output.text_embeds, "loss": output.loss, **output.losses}
expected = torch.load("expected.pt", weights_only=True)
assert expected.keys() == found.keys() and all(torch.equal(expected[name], found[name]) for name in expected)
teacher.save_pretrained("again")
AutoModel.from_pretrained("again", trust_remote_code=True)
"""
    run = run_without_package(code, tmp_path)
    assert run.returncode == 0, run.stderr[-3000:]


def test_installed_package_takes_precedence_over_the_code_in_a_folder(tmp_path):
    teacher = make_teacher(make_tokenizer())
    teacher.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*.py")) == CODE
    (tmp_path / "teacher.py").write_text("raise SystemExit('ran the code of a folder')")
    loaded = AutoModel.from_pretrained(tmp_path)
    assert type(loaded) is VidLanKDTeacher and AutoConfig.from_pretrained(tmp_path).auto_map
    expected, found = outputs(teacher), outputs(loaded)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_training_saves_the_code_with_the_teacher_and_each_checkpoint(tmp_path):
    trainer = train("teacher", tmp_path, save_strategy="steps", save_steps=3)
    trainer.save_model()
    for folder in (tmp_path, tmp_path / "checkpoint-3"):
        assert sorted(path.name for path in folder.glob("*.py")) == CODE


def test_teacher_of_an_older_version_loads_and_computes_the_same():
    teacher, info = AutoModel.from_pretrained(SAVED / "teacher", output_loading_info=True)
    assert type(teacher) is VidLanKDTeacher is type(load_teacher(SAVED / "teacher")) and not any(info.values())
    assert (teacher.config.contrast, teacher.config.joint_size, teacher.config.margin) == ("hinge", 4, 0.5)
    expected, found = load_file(SAVED / "outputs.safetensors"), outputs(teacher)
    names = {"logits": "teacher_logits", "states": "teacher_states", "video": "video_embeds", "text": "text_embeds",
             "contrast": "teacher_contrast", "mlm": "teacher_mlm"}  # fmt: skip
    for name, then in names.items():
        torch.testing.assert_close(found[name], expected[then], rtol=1e-5, atol=1e-6)


def test_student_of_an_older_version_loads_with_its_heads_and_as_a_plain_model():
    student, info = VidLanKDStudent.from_pretrained(SAVED / "student", output_loading_info=True)
    assert not any(info.values())
    assert student.loss_terms == {"mlm": (1.0, "masked_tokens"), "crd": (1.0, "tokens"), "nst": (100.0, "sequences")}
    expected = load_file(SAVED / "outputs.safetensors")
    with torch.no_grad():
        output = student.eval()(**inputs(), teacher_states=expected["teacher_states"])
    found = {"states": output.last_hidden_state, **output.losses}
    for name, value in found.items():
        torch.testing.assert_close(value, expected[f"student_{name}"], rtol=1e-5, atol=1e-6)
    plain, info = AutoModelForMaskedLM.from_pretrained(SAVED / "student", output_loading_info=True)
    assert type(plain) is student.plain_class and not any(info.values())

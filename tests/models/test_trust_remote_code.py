"""No code of a model folder runs, and nothing asks at a terminal whether it may."""

import ast
import builtins
import json
from pathlib import Path

import pytest
from helpers import make_config, make_tokenizer
from transformers import BertForMaskedLM

from vidlankd_hf import VidLanKDStudent, VidLanKDTeacher, load_teacher
from vidlankd_hf.evaluation.checkpoints import load_for_scoring
from vidlankd_hf.evaluation.finetune import _load, find_task
from vidlankd_hf.extraction.backbones import Backbone
from vidlankd_hf.extraction.streams import Stream
from vidlankd_hf.training.build import build_student

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path for folder in ("vidlankd_hf", "examples", "benchmarks") for path in (ROOT / folder).rglob("*.py")
)


def untrusting(source: str) -> list[int]:
    """Lines that load something without `trust_remote_code=False`; `super()` passes on what its caller gave."""
    wrong = []
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        if node.func.attr not in ("from_pretrained", "from_config") or ast.unparse(node.func.value) == "super()":
            continue
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if given.get("trust_remote_code") != "False":
            wrong.append(node.lineno)
    return wrong


@pytest.mark.parametrize("line, found", [
    ("AutoModel.from_pretrained(path)", [1]), ("a.b(c).from_pretrained(path, **options)", [1]),
    ("AutoModel.from_pretrained(path, trust_remote_code=True)", [1]),
    ("AutoModel.from_pretrained(path, trust_remote_code=False)", []),
    ("super().from_pretrained(path, **kwargs)", []),
])  # fmt: skip
def test_calls_that_may_run_code_are_found(line, found):
    assert untrusting(line) == found


def test_every_call_that_loads_a_model_refuses_its_code():
    found = {str(path.relative_to(ROOT)): untrusting(path.read_text(encoding="utf-8")) for path in SOURCES}
    assert {path: lines for path, lines in found.items() if lines} == {}
    assert sum("from_pretrained(" in path.read_text(encoding="utf-8") for path in SOURCES) > 10


def test_nothing_asks_at_a_terminal():
    for path in SOURCES:
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        assert "input" not in [ast.unparse(call.func) for call in calls], path


@pytest.fixture(params=["unknown", "bert"])
def hostile(request, tmp_path, monkeypatch):
    """A model folder that contains code, and someone who answers every question with yes."""
    folder = tmp_path / "model"
    BertForMaskedLM(make_config(make_tokenizer())).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    sign = tmp_path / "it-ran"
    (folder / "evil.py").write_text(
        f"import os\nos.mkdir({str(sign)!r})\nfrom transformers import PretrainedConfig\n"
        "class EvilConfig(PretrainedConfig):\n    model_type = 'unknown'\n"
    )
    parts = {"AutoConfig": "evil.EvilConfig", "AutoTokenizer": ["evil.T", None], "AutoImageProcessor": "evil.P"}
    parts |= {name: "evil.X" for name in ("AutoModel", "AutoModelForMaskedLM", "AutoModelForSequenceClassification")}
    for name in ("config.json", "tokenizer_config.json", "preprocessor_config.json"):
        path = folder / name
        content = json.loads(path.read_text()) if path.exists() else {"image_processor_type": "Unknown"}
        if name == "config.json" and request.param == "unknown":
            content["model_type"] = "unknown"
        path.write_text(json.dumps({**content, "auto_map": parts}))
    asked = []
    monkeypatch.setattr(builtins, "input", lambda prompt="": asked.append(prompt) or "y")
    yield str(folder)
    assert not sign.exists() and asked == []


def attempt(load, *given):
    try:
        load(*given)
    except Exception as error:  # it may fail, but not run the code
        assert "it-ran" not in str(error)


LOADS = {
    "teacher": load_teacher,
    "student": lambda path: build_student(path, path),
    "student's class": VidLanKDStudent.from_pretrained,
    "teacher's class": VidLanKDTeacher.from_pretrained,
    "text of a new teacher": lambda path: VidLanKDTeacher.from_text_pretrained(path, 6),
    "scoring": load_for_scoring,
    "fine-tuning": lambda path: _load(path, find_task("sst2")),
    "backbone": lambda path: Backbone(Stream("frame", path, 1.0), "cpu"),
}


@pytest.mark.parametrize("load", LOADS)
def test_code_of_a_model_folder_does_not_run_and_nobody_is_asked(hostile, load):
    attempt(LOADS[load], hostile)

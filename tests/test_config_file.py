"""Settings from a YAML file: sections, precedence, and the recipes that ship."""

import sys
from pathlib import Path

import pytest
import yaml
from transformers import HfArgumentParser

from vidlankd_hf import DistillationConfig, TeacherConfig
from vidlankd_hf.runs import parse_arguments, read_config

ROOT = Path(__file__).parent.parent
RECIPES = sorted((ROOT / "examples" / "recipes").glob("*.yaml"))


def parse(monkeypatch, script, *arguments):
    monkeypatch.syspath_prepend(ROOT / "examples")
    monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
    module = __import__(Path(script).stem)
    config, source = {"distill": (DistillationConfig, "text"), "pretrain_teacher": (TeacherConfig, "features")}[
        Path(script).stem
    ]
    parser = HfArgumentParser((config, module.DataArguments))
    return parse_arguments(parser, {"learning_rate": 0.5, "max_steps": 7}, source)


def test_command_line_goes_over_file_and_file_over_the_recipe_of_the_world(monkeypatch, tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(
        "learning_rate: 2e-4\nweight_decay: 0.5\nobjectives: {nst: 3, crd: {weight: 1, temperature: 0.2}}\n"
    )
    args, _ = parse(monkeypatch, "distill.py", "--config", path, "--weight_decay", "0.25")
    assert (args.learning_rate, args.weight_decay, args.max_steps) == (2e-4, 0.25, 7)
    assert args.objectives == {"nst": 3, "crd": {"weight": 1, "temperature": 0.2}}
    path.write_text("max_steps: 9\n")
    args, _ = parse(monkeypatch, "distill.py", "--config", path, "--num_train_epochs", "2")
    assert (args.max_steps, args.num_train_epochs) == (-1, 2.0), "epochs on the command line go over a file's steps"
    path.write_text("num_train_epochs: 2\n")
    args, _ = parse(monkeypatch, "distill.py", "--config", path)
    assert (args.max_steps, args.num_train_epochs) == (-1, 2.0), "and a file's over the steps of the world's recipe"
    path.write_text("streams: frame\nseed: '7'\n")
    args, data = parse(monkeypatch, "pretrain_teacher.py", "--config", path)
    assert (data.streams, args.seed) == (["frame"], 7)
    path.write_text("text: my.txt\nteacher: my_teacher\n")
    args, data = parse(monkeypatch, "distill.py", "--config", path)
    assert (data.text, args.max_steps) == ("my.txt", -1), "own data never take the world's recipe"


def test_section_of_the_script_is_taken(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("distill: {learning_rate: 0.01}\npretrain_teacher: {learning_rate: 0.02}\n")
    assert read_config(path, "distill", ["learning_rate"]) == {"learning_rate": 0.01}
    path.write_text("distill: {learning_rate: 0.01}\n")
    with pytest.raises(ValueError, match="no section 'pretrain_teacher'.*distill"):
        read_config(path, "pretrain_teacher", ["learning_rate"])


@pytest.mark.parametrize(
    "content, message",
    [
        ("learning_rat: 1", "'learning_rat'.*--help"),
        ("- 1", "holds no settings"),
        ("!!python/object/apply:os.system ['true']", "could not determine a constructor"),
    ],
)
def test_bad_file_is_an_error(tmp_path, content, message):
    path = tmp_path / "a.yaml"
    path.write_text(content)
    with pytest.raises((ValueError, yaml.YAMLError), match=message):
        read_config(path, "distill", ["learning_rate"])
    with pytest.raises(ValueError, match="is no file"):
        read_config(tmp_path / "b.yaml", "distill", [])


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_are_the_papers(monkeypatch, path):
    base = path.stem == "base"
    args, data = parse(monkeypatch, "pretrain_teacher.py", "--config", path)
    assert (args.learning_rate, args.warmup_steps, args.max_grad_norm) == (5e-5, 0, 1.0)
    assert (args.weight_decay, args.adam_epsilon, args.max_length, args.max_video_length) == (0.01, 1e-6, 128, 384)
    assert args.per_device_train_batch_size * 4 == (64 if base else 128)  # on the paper's four GPUs
    assert (data.text_model, data.contrast, data.margin) == (path.stem, "hinge", 1.0)
    args, data = parse(monkeypatch, "distill.py", "--config", path)
    assert (args.learning_rate, args.warmup_steps) == (2e-4, 5000 if base else 10_000)
    assert args.per_device_train_batch_size * 4 == 256 and data.student == path.stem
    assert (args.max_steps, args.num_train_epochs) == ((500_000, 3.0) if base else (-1, 40))


def test_there_are_two_recipes():
    assert [path.stem for path in RECIPES] == ["base", "small"]

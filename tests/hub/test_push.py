"""Pushing to a local Hub: what arrives, what loads by its id, and what the message says if it fails."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from downstream_data import make_data, make_pair_tokenizer
from helpers import WORDS, make_config, make_teacher, make_tokenizer, train
from hub_server import TOKEN, Hub
from huggingface_hub import ModelCard, constants
from launching import run_without_package
from transformers import AutoModelForMaskedLM, BertForMaskedLM

from vidlankd_hf import DistillationConfig
from vidlankd_hf.hub.push import push
from vidlankd_hf.reliability.run_dir import command, open_run_dir

ROOT = Path(__file__).parents[2]
STUDENT = {"README.md", "config.json", "distillation/heads.safetensors", "distillation/recipe.json", "losses.png",
           "model.safetensors", "tokenizer.json", "tokenizer_config.json"}  # fmt: skip
CODE = {"attention.py", "configuration.py", "contrast.py", "heads.py", "loading.py", "losses.py", "teacher.py",
        "video_encoder.py"}  # fmt: skip
TEACHER = {"README.md", "config.json", "losses.png", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}


@pytest.fixture
def hub():
    with Hub() as hub:
        yield hub


@pytest.fixture
def connected(hub, monkeypatch):
    """This process's client talks to the Hub of the test."""
    connect(monkeypatch, hub.url)
    return hub


def connect(monkeypatch, url: str) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)


def environment(hub: Hub, folder: Path) -> dict[str, str]:
    """Environment of a process that talks to the Hub of the test; the client reads the address when it is imported."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    own = {
        "HF_ENDPOINT": hub.url,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": TOKEN,
        "HF_HOME": str(folder / "hf"),
    }
    return {**inherited, **own, "OMP_NUM_THREADS": "1"}


def run_student(folder, **arguments):
    return train("student", folder, {"nst": 1.0}, max_steps=2, push_to_hub=True, **arguments)


def is_whole(folder) -> bool:
    _, info = AutoModelForMaskedLM.from_pretrained(folder, output_loading_info=True)
    return not any(info.values()) and {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} >= (
        STUDENT
    )


def test_pushed_models_load_by_their_ids(connected, hub, tmp_path):
    student = run_student(tmp_path / "student", hub_model_id="me/student", hub_private_repo=True,
                          save_strategy="steps", save_steps=1)  # fmt: skip
    (tmp_path / "student" / "run.json").write_text(json.dumps({"settings": {"text": str(tmp_path)}}))
    student.save_model()
    teacher = train("teacher", tmp_path / "teacher", push_to_hub=True, save_strategy="steps", save_steps=3)
    teacher.save_model()
    assert student.push_error is None and teacher.push_error is None
    assert set(hub.files("me/student")) == STUDENT and hub.repositories["me/student"]["private"]
    assert set(hub.files("me/teacher")) == TEACHER | CODE, "named like its folder, in the user's own space"
    for repo in ("me/student", "me/teacher"):
        assert ModelCard(hub.files(repo)["README.md"].decode()).data.library_name == "transformers"
        assert not [path for path, content in hub.files(repo).items() if str(tmp_path).encode() in content]
    for path, content in hub.files("me/student").items():
        assert content == (tmp_path / "student" / path).read_bytes()

    code = f"""
import torch
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer
from safetensors.torch import load_file
model, info = AutoModelForMaskedLM.from_pretrained("me/student", output_loading_info=True)
assert type(model).__name__ == "BertForMaskedLM" and not any(info.values()), info
assert AutoTokenizer.from_pretrained("me/student").mask_token == "[MASK]"
teacher, info = AutoModel.from_pretrained("me/teacher", trust_remote_code=True, output_loading_info=True)
assert type(teacher).__module__.startswith("transformers_modules.me.teacher.") and not any(info.values()), info
expected = load_file({str(tmp_path / "teacher" / "model.safetensors")!r})
assert all(torch.equal(expected[name], tensor) for name, tensor in teacher.state_dict().items() if name in expected)
"""
    run = run_without_package(code, tmp_path, **environment(hub, tmp_path))
    assert run.returncode == 0, run.stderr[-3000:]


def test_heads_and_objectives_come_with_the_student_from_the_hub(connected, hub, tmp_path):
    run_student(tmp_path / "student", hub_revision="with-heads").save_model()
    assert set(hub.files("me/student", "with-heads")) == STUDENT and not hub.files("me/student"), "the branch is made"
    code = """
from vidlankd_hf import VidLanKDStudent
student = VidLanKDStudent.from_pretrained("me/student", revision="with-heads")
assert list(student.objectives) == ["nst"] and list(student.distillation_heads) == ["nst"]
"""
    own = {**environment(hub, tmp_path), "PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-c", code], env=own, capture_output=True, text=True, timeout=500)
    assert run.returncode == 0, run.stderr[-3000:]


def test_pushing_saves_first_and_again_pushes_what_has_changed(connected, hub, tmp_path):
    trainer = run_student(tmp_path / "student")
    trainer.push_to_hub("the first")
    scores = [{"attribute": "colour", "accuracy": 0.75, "chance": 0.25, "low": 0.6, "high": 0.9, "num_nouns": 48}]
    (tmp_path / "student" / "probe.json").write_text(json.dumps(scores))
    commit = trainer.push_to_hub("the probe's results")
    assert hub.repositories["me/student"]["commits"] == ["the first", "the probe's results"]
    assert commit.repo_url.repo_id == "me/student"
    (result,) = ModelCard(hub.files("me/student")["README.md"].decode()).data.eval_results
    assert result.metric_value == 0.75 and result.metric_args["num_nouns"] == 48
    trainer.save_model(str(tmp_path / "elsewhere"))
    assert len(hub.repositories["me/student"]["commits"]) == 2, "what is saved elsewhere is not what the run publishes"


def test_only_the_model_is_pushed_whatever_else_is_in_its_folder(connected, hub, tmp_path):
    trainer = run_student(tmp_path / "student", save_strategy="steps", save_steps=1)
    private = ["run.json", "config.yaml", "result.json", "trainer_state.json", "training_args.bin", "notes.txt",
               "id_rsa", "train.log", "model.safetensors.bak", "pytorch_model.bin", "evil.py", "wandb/run.json",
               "runs/events", "data/train.txt", "distillation/notes.json", "checkpoint-1/model.safetensors",
               "nonfinite-step-3.json", "my_config.json", "probe.json", ".verified-host", ".env"]  # fmt: skip
    for name in private:
        (tmp_path / "student" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "student" / name).write_text(
            "[]" if name == "probe.json" else "SECRET"
        )  # run.json is damaged, too
    trainer.save_model()
    assert trainer.push_error is None and set(hub.files("me/student")) == STUDENT
    assert not [path for path, content in hub.files("me/student").items() if b"SECRET" in content]


def test_large_models_and_all_kinds_of_tokenizers_are_pushed(connected, hub, tmp_path):
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json",
             "config.json", "generation_config.json", "vocab.txt", "vocab.json", "merges.txt",
             "special_tokens_map.json", "added_tokens.json", "tokenizer.json", "tokenizer_config.json",
             "README.md"]  # fmt: skip
    for name in names:
        (tmp_path / name).write_text("{}" if name.endswith("json") else "x")
    push(tmp_path, "me/large", "all of it")
    assert set(hub.files("me/large")) == set(names)


def test_addresses_of_data_are_in_run_card_and_command_without_their_secrets(connected, hub, tmp_path, monkeypatch):
    address = "https://me:SECRET@host.org/corpus.txt?sig=SECRET"
    monkeypatch.setattr(sys, "argv", ["examples/distill.py", "--text", address, f"--vokens={address}"])
    folder = tmp_path / "student"
    args = DistillationConfig(output_dir=str(folder), use_cpu=True, report_to="none", objectives={"nst": 1.0})
    open_run_dir(args, {"text": address, "teacher": address, "student": "small"})
    trainer = run_student(folder)
    trainer.save_model()
    found = [path for path in folder.rglob("*") if path.is_file() and b"SECRET" in path.read_bytes()]
    assert found == [] and b"SECRET" not in b"".join(hub.files("me/student").values())
    assert "host.org/corpus.txt" in (folder / "run.json").read_text()


def fails_always(status):
    return lambda method, path: status


def fails_to_write(status):
    """As if the repository belongs to someone else and can only be read."""
    return lambda method, path: status if path.endswith(("/repos/create", "/auth-check/write")) else None


def fails_at_commit(status):
    return lambda method, path: status if "/commit/" in path else None


@pytest.mark.parametrize("fails, said", [
    (fails_always(401), "401.*hf auth login"), (fails_always(403), "403.*hf auth login"), (fails_always(400), "400"),
    (fails_to_write(403), "403.*hf auth login"),
])  # fmt: skip
def test_push_that_cannot_succeed_later_is_an_error_before_training(connected, hub, tmp_path, fails, said):
    hub.repositories["me/student"] = {"private": False, "branches": {"main": {}}, "commits": []}
    hub.failing = fails
    with pytest.raises(RuntimeError, match=f"--push_to_hub cannot work for me/student: .*{said}"):
        run_student(tmp_path / "student", hub_model_id="me/student")
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize(
    "fails, at_start, said",
    [
        (fails_always(500), True, "500"),
        (fails_at_commit(500), False, "500"),
        (fails_at_commit(401), False, "401.*hf auth login"),
        (None, True, "refused"),
    ],
    ids=["server", "server at the end", "token at the end", "no network"],
)
def test_failed_push_loses_nothing_and_says_what_to_run(
    connected, hub, tmp_path, monkeypatch, capsys, fails, at_start, said
):
    if fails is None:
        connect(monkeypatch, "http://127.0.0.1:9")
    else:
        hub.failing = fails
    trainer = run_student(tmp_path / "student", hub_model_id="me/student", hub_private_repo=True)
    assert ("the push will be tried again after training" in capsys.readouterr().out) == at_start
    trainer.save_model()
    assert is_whole(tmp_path / "student") and trainer.state.global_step == 2
    assert not hub.repositories.get("me/student", {}).get("commits")
    before, _, printed = trainer.push_error.partition("run:")
    assert "Nothing is lost" in before and re.search(f"student was not pushed to me/student: .*{said}", before)
    words = shlex.split(printed.strip())
    assert words[:5] == ["hf", "upload", "me/student", str(tmp_path / "student"), "."] and "--private" in words


def test_printed_command_pushes_the_same_files(connected, hub, tmp_path):
    hub.failing = fails_at_commit(500)
    trainer = run_student(tmp_path / "student", hub_model_id="me/student", save_strategy="steps", save_steps=1)
    (tmp_path / "student" / "run.json").write_text(json.dumps({"settings": {}}))
    trainer.save_model()
    hub.failing = lambda method, path: None
    words = shlex.split(trainer.push_error.partition("run:")[2].strip())
    script = Path(sys.executable).with_name(words[0])
    done = subprocess.run([str(script), *words[1:]], env=environment(hub, tmp_path), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert set(hub.files("me/student")) == STUDENT


@pytest.mark.parametrize("strategy", ["every_save", "checkpoint", "all_checkpoints"])
def test_pushing_checkpoints_is_refused(tmp_path, strategy):
    arguments = {"output_dir": str(tmp_path), "use_cpu": True, "report_to": "none", "hub_strategy": strategy}
    with pytest.raises(ValueError, match=f"hub_strategy is '{strategy}'.*only 'end'"):
        DistillationConfig(**arguments, push_to_hub=True)
    with pytest.raises(ValueError, match="hub_strategy"):
        DistillationConfig(**arguments)


def test_token_is_in_no_recorded_command(monkeypatch):
    for words in (["--hub_token", "hf_secret"], ["--hub_token=hf_secret"], ["--hub-token", "hf_secret"],
                  ["--hub-token=hf_secret"]):  # fmt: skip
        monkeypatch.setattr(sys, "argv", ["examples/distill.py", *words, "--seed", "3"])
        assert "hf_secret" not in command() and command().endswith("--seed 3")


def run_command(hub, folder, script, *arguments, expect=0):
    words = [sys.executable, str(ROOT / "examples" / script), *map(str, arguments), "--push_to_hub", "--use_cpu",
             "true", "--report_to", "none"]  # fmt: skip
    own = {**environment(hub, folder), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=folder, env=own, capture_output=True, text=True, timeout=500)
    assert done.returncode == expect, done.stderr[-3000:]
    return done


@pytest.mark.slow
def test_distill_command_pushes_and_a_failed_push_leaves_a_finished_run_and_exit_code_1(hub, tmp_path):
    tokenizer = make_tokenizer()
    make_teacher(tokenizer).save_pretrained(tmp_path / "teacher")
    tokenizer.save_pretrained(tmp_path / "teacher")
    lines = [" ".join(WORDS[(i * k) % 60] for k in range(1, 41)) for i in range(1, 201)]
    (tmp_path / "text.txt").write_text("\n".join(lines) + "\n")
    options = ["--teacher", "teacher", "--text", tmp_path / "text.txt", "--student", "tiny", "--block_tokens", 30,
               "--per_device_train_batch_size", 8, "--max_steps", 2, "--warmup_steps", 0, "--cache_dir", "cache",
               "--hub_token", TOKEN]  # fmt: skip
    done = run_command(hub, tmp_path, "distill.py", *options, "--output_dir", "student")
    assert "Pushed to" in done.stdout and set(hub.files("me/student")) == STUDENT
    assert not [path for path, content in hub.files("me/student").items() if str(tmp_path).encode() in content]
    assert TOKEN not in "".join(path.read_text() for path in (tmp_path / "student").rglob("*.json"))
    assert "--text text.txt" in hub.files("me/student")["README.md"].decode()

    hub.failing = fails_at_commit(500)
    done = run_command(hub, tmp_path, "distill.py", *options, "--output_dir", "other", expect=1)
    assert "hf upload me/other other ." in done.stderr.strip().splitlines()[-1]
    assert json.loads((tmp_path / "other" / "run.json").read_text())["finished"] and is_whole(tmp_path / "other")


@pytest.mark.slow
def test_finetune_command_pushes_the_median_seed(hub, tmp_path):
    data, tokenizer = make_data(tmp_path / "data"), make_pair_tokenizer()
    BertForMaskedLM(make_config(tokenizer)).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    options = ["--model", "model", "--task", "rte", "--data", data, "--seeds", 3, "--output_dir", "rte",
               "--num_train_epochs", 1, "--per_device_train_batch_size", 4, "--hub_private_repo", "true"]  # fmt: skip
    run_command(hub, tmp_path, "finetune.py", *options)
    results = [json.loads(path.read_text()) for path in (tmp_path / "rte").rglob("result.json")]
    (message,) = hub.repositories["me/rte"]["commits"]
    seed = int(re.fullmatch(r"RTE, seed (\d), the median of 3", message)[1])
    median = sorted(result["score"] for result in results)[1]
    assert [r["score"] for r in results if r["seed"] == seed] == [median] and hub.repositories["me/rte"]["private"]
    files = hub.files("me/rte")
    assert files["model.safetensors"] == (tmp_path / f"rte/lr-0.0001/seed-{seed}/model.safetensors").read_bytes()
    assert '"me/rte"' in files["README.md"].decode() and "result.json" not in files and "run.json" not in files

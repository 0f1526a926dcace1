"""Runs the commands as processes on a tiny world: what they write, resume and refuse."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import MINI, WORDS, make_student, make_tokenizer, make_vision_language_model, refusal
from tokenizer_families import TEXTS, make_family
from transformers import AutoModelForMaskedLM, AutoTokenizer, CLIPTextConfig, CLIPTextModel

ROOT = Path(__file__).parent.parent
QUICK = ["--max_steps", "4", "--save_steps", "2", "--report_to", "none", "--use_cpu", "true", "--warmup_steps", "0"]


def run(script, *arguments):
    command = [sys.executable, str(ROOT / "examples" / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def teacher(tiny_world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "teacher"
    output = run("pretrain_teacher.py", "--world", tiny_world, "--output_dir", folder, *QUICK)
    assert f"vidlankd distill --teacher {folder} --world " in output
    return folder


def test_distill_writes_a_plain_bert_probes_it_and_refuses_to_overwrite_it(tiny_world, teacher, tmp_path, monkeypatch):
    student = tmp_path / "student"
    options = ["--world", tiny_world, "--teacher", teacher, "--output_dir", student, "--cache_dir", tmp_path, *QUICK]
    output = run("distill.py", *options, "--objectives", '{"nst": 5}')
    assert "1 process" in output and f'from_pretrained("{student}")' in output and "colour" in output
    _, info = AutoModelForMaskedLM.from_pretrained(student, output_loading_info=True)
    assert not any(info.values())
    assert AutoTokenizer.from_pretrained(student).mask_token == "[MASK]"
    assert json.loads((student / "run.json").read_text())["settings"]["objectives"] == {"nst": {"weight": 5.0}}
    assert {row["attribute"] for row in json.loads((student / "probe.json").read_text())} == {
        "colour",
        "shape",
        "motion",
    }
    assert "holds a finished run" in refusal(monkeypatch, "distill", *options, "--objectives", '{"nst": 5}')


def test_interrupted_run_continues_with_the_same_command(tiny_world, teacher, tmp_path):
    common = ["--world", tiny_world, "--teacher", teacher, "--cache_dir", tmp_path]
    options = [*common, "--no_probe", "--save_total_limit", 2, *QUICK]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run("distill.py", *options, "--output_dir", whole)
    run("distill.py", *options, "--output_dir", parts)
    record = json.loads((parts / "run.json").read_text())
    (parts / "run.json").write_text(json.dumps({**record, "finished": False}))  # as if stopped after step 2
    for name in ("model.safetensors", "checkpoint-4/trainer_state.json"):
        (parts / name).unlink()
    output = run("distill.py", *options, "--output_dir", parts)
    assert "Resuming from" in output and "Skipping" in output
    assert (parts / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_saved_settings_repeat_a_run(tiny_world, teacher, tmp_path):
    first, again = tmp_path / "first", tmp_path / "again"
    common = ["--world", tiny_world, "--teacher", teacher, "--cache_dir", tmp_path, "--no_probe", "--logging_steps", 1]
    run("distill.py", *common, "--objectives", '{"crd": 2}', *QUICK, "--output_dir", first)
    run("distill.py", "--config", first / "config.yaml", "--output_dir", again)
    kept = []
    for folder in (first, again):
        settings = json.loads((folder / "run.json").read_text())["settings"]
        log = json.loads((folder / "trainer_state.json").read_text())["log_history"]
        losses = [(entry["loss"], entry["crd_loss"], entry["grad_norm"]) for entry in log if "loss" in entry]
        saved = (folder / "config.yaml").read_text().replace(str(folder), "")
        kept.append(({**settings, "output_dir": ""}, losses, saved))
    assert kept[0] == kept[1] and len(kept[0][1]) == 4
    assert kept[0][0]["objectives"] == {"crd": {"weight": 2.0}} and kept[0][0]["max_steps"] == 4


def test_own_data_never_falls_back_to_the_world(tiny_world, teacher, tmp_path, monkeypatch):
    options = ["--use_cpu", "true", "--output_dir", tmp_path / "run"]
    assert "--text needs --teacher" in refusal(monkeypatch, "distill", "--text=x.txt", *options)
    features = f"--features={tiny_world}/features"
    assert "--features needs --captions" in refusal(monkeypatch, "pretrain_teacher", features, *options)
    message = refusal(monkeypatch, "distill", "--text=x.txt", "--teacher", teacher, *options)
    assert "x.txt does not exist" in message
    missing = [f"--world={tmp_path / 'none'}", *options]
    message = refusal(monkeypatch, "pretrain_teacher", "--captions=x.srt", *missing)
    assert "--captions needs --features" in message
    message = refusal(monkeypatch, "distill", "--teacher", teacher, *missing)
    assert "holds no world" in message and "or give --text" in message
    assert not (tmp_path / "none").exists()


@pytest.mark.slow  # 15 s and more
def test_text_tower_of_flava_teaches_a_new_roberta_which_another_run_starts_from(tmp_path, monkeypatch):
    tokenizer = make_tokenizer()
    make_vision_language_model("flava", tokenizer).save_pretrained(tmp_path / "flava")
    tokenizer.save_pretrained(tmp_path / "flava")
    text = tmp_path / "text.txt"
    text.write_text("\n".join(" ".join(WORDS[(i * k) % 60] for k in range(1, 41)) for i in range(1, 201)) + "\n")
    common = ["--teacher", tmp_path / "flava", "--text", text, "--cache_dir", tmp_path / "cache", *QUICK]
    common += ["--block_tokens", 30, "--per_device_train_batch_size", 8]
    first, second = tmp_path / "first", tmp_path / "second"
    output = run("distill.py", *common, "--student", "tiny", "--student_model_type", "roberta", "--output_dir", first)
    assert "an ordinary RobertaForMaskedLM" in output
    run("distill.py", *common, "--student", first, "--output_dir", second, "--objectives", '{"infonce": 1}')
    for folder in (first, second):
        model, info = AutoModelForMaskedLM.from_pretrained(folder, output_loading_info=True)
        assert not any(info.values()) and type(model).__name__ == "RobertaForMaskedLM"
        assert len(AutoTokenizer.from_pretrained(folder)) == model.config.vocab_size == len(tokenizer)
    assert "infonce" in (second / "distillation" / "recipe.json").read_text()
    wrong = ["--student", first, "--student_model_type", "bert", "--output_dir", tmp_path / "x"]
    message = refusal(monkeypatch, "distill", *common, *wrong)
    assert "--student_model_type is bert, but" in message and "is a roberta checkpoint" in message


@pytest.mark.slow
def test_text_tower_of_clip_teaches_a_checkpoint_with_another_tokenizer(tmp_path, monkeypatch):
    theirs, ours = make_family("clip"), make_family("roberta")
    special = {"bos_token_id": theirs.bos_token_id, "eos_token_id": theirs.eos_token_id}
    CLIPTextModel(CLIPTextConfig(**MINI, vocab_size=len(theirs), **special)).save_pretrained(tmp_path / "clip")
    theirs.save_pretrained(tmp_path / "clip")
    make_student(ours, model_type="roberta").export().save_pretrained(tmp_path / "roberta")
    ours.save_pretrained(tmp_path / "roberta")
    text = tmp_path / "text.txt"
    text.write_text("\n".join(" ".join(TEXTS[i % len(TEXTS)].split()[i % 5 :]) for i in range(400)) + "\n")
    common = ["--teacher", tmp_path / "clip", "--text", text, "--cache_dir", tmp_path / "cache", *QUICK]
    common += ["--per_device_train_batch_size", 4, "--per_device_eval_batch_size", 4]

    first, second, roberta = tmp_path / "first", tmp_path / "second", tmp_path / "roberta"
    run("distill.py", *common, "--student", roberta, "--teacher_layer", -2, -1, "--output_dir", first)
    run("distill.py", *common, "--student", "tiny", "--tokenizer", roberta, "--output_dir", second)
    for folder in (first, second):
        model, info = AutoModelForMaskedLM.from_pretrained(folder, output_loading_info=True)
        assert not any(info.values())
        assert len(AutoTokenizer.from_pretrained(folder)) == model.config.vocab_size == len(ours)
        assert "last token of a segment" in (folder / "README.md").read_text()
    assert json.loads((first / "run.json").read_text())["settings"]["teacher_layer"] == [-2, -1]

    output = ["--output_dir", tmp_path / "c"]
    for words, message in (
        (["--student", "tiny"], "has no cls, sep, mask, pad token, which a student needs: give --tokenizer"),
        (["--student", roberta, "--objectives", '{"soft_label": 1}'], "soft_label compares predictions"),
        (["--student", roberta, "--teacher_input", "masked"], "leave teacher_input out"),
        (["--student", roberta, "--teacher_layer", 5], "this teacher has 1 layers: give -2 to 1"),
    ):
        assert message in refusal(monkeypatch, "distill", *common, *words, *output)

"""A resumed run is compared with the original one in everything that determines it; each difference is named."""

import json
import random
import re
import shutil

import helpers
import pytest
import torch
from helpers import WORDS, logged, make_config, make_student, make_teacher, make_tokenizer, train
from transformers import BertForMaskedLM

from vidlankd_hf import DistillationConfig
from vidlankd_hf.evaluation.checkpoints import fingerprint
from vidlankd_hf.reliability.manifest import MANIFEST, Layout, seal
from vidlankd_hf.reliability.same_run import (
    affects_results,
    changed_settings,
    model_fingerprint,
    settings_of_run,
    weights_fingerprint,
)

OPTIONS = {"save_strategy": "steps", "save_steps": 2, "max_steps": 8, "dropout": 0.1}


def begin(folder, kind="student", **options):
    return train(kind, folder, **{**OPTIONS, **options}, stop_after=4)


def resume(folder, kind="student", **options):
    return train(kind, folder, **{**OPTIONS, **options}, resume=True)


@pytest.mark.parametrize("kind", ["student", "teacher"])
def test_tokenizer_of_the_same_size_with_other_ids_is_refused(tmp_path, monkeypatch, kind):
    begin(tmp_path, kind)
    words = list(WORDS)
    random.Random(0).shuffle(words)
    monkeypatch.setattr(helpers, "make_tokenizer", lambda: make_tokenizer(words))
    with pytest.raises(
        ValueError, match="tokenizer was [0-9a-f]{12} and is now [0-9a-f]{12}.*--allow_changed.*tokenizer"
    ):
        resume(tmp_path, kind)


def test_another_teacher_is_refused_and_the_same_one_is_not(tmp_path):
    options = {"objectives": {"nst": 30.0}}
    begin(tmp_path, **options, teacher=make_teacher(make_tokenizer(), seed=0))
    with pytest.raises(ValueError, match="teacher was [0-9a-f]{12} and is now"):
        resume(tmp_path, **options, teacher=make_teacher(make_tokenizer(), seed=99))
    assert resume(tmp_path, **options, teacher=make_teacher(make_tokenizer(), seed=0)).state.global_step == 8


def test_teacher_with_the_same_weights_but_another_configuration_is_refused(tmp_path):
    options, teacher = {"objectives": {"nst": 30.0}}, make_teacher(make_tokenizer(), seed=0)
    begin(tmp_path, **options, teacher=teacher)
    teacher.config.text_config.layer_norm_eps = 0.1
    with pytest.raises(
        ValueError, match="text_config.layer_norm_eps of teacher_config was 1e-12 and is now 0.1.*--allow_changed"
    ):
        resume(tmp_path, **options, teacher=teacher)


def test_student_with_another_dropout_is_refused_from_python_too(tmp_path, begun):
    with pytest.raises(ValueError, match="hidden_dropout_prob of model_config was 0.1 and is now 0.3.*model_config"):
        resume(begun(tmp_path), dropout=0.3)
    assert resume(tmp_path / "run", dropout=0.3, allow_changed=["model_config"]).state.global_step == 8


@pytest.mark.parametrize(
    "change",
    [{"seed": 77}, {"learning_rate": 0.1}, {"max_steps": 12}, {"weight_decay": 0.5}, {"mlm_probability": 0.3},
     {"gradient_accumulation_steps": 2}, {"per_device_train_batch_size": 2}, {"warmup_steps": 3}, {"data_seed": 3},
     {"lr_scheduler_type": "cosine"}, {"max_grad_norm": 0.5}, {"bf16": True}],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_settings_that_affect_results_are_refused_from_python_too_and_named(tmp_path, begun, change):
    name = next(iter(change))
    with pytest.raises(ValueError, match=rf"other settings or data: .*{name} was .* and is now {change[name]!r}"):
        resume(begun(tmp_path), **change)


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """Copies a run that stopped after 4 of 8 steps."""
    folder = tmp_path_factory.mktemp("begun")
    begin(folder)

    def copy(target):
        shutil.copytree(folder, target / "run")
        return target / "run"

    return copy


@pytest.mark.parametrize(
    "change",
    [{"logging_steps": 2}, {"eval_strategy": "steps", "eval_steps": 3}, {"save_steps": 4},
     {"dataloader_num_workers": 1}, {"disable_tqdm": False}, {"hang_timeout": 99.0}, {"run_name": "x"}],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_settings_that_change_no_number_may_differ(tmp_path, begun, change):
    assert resume(begun(tmp_path), **change).state.global_step == 8


@pytest.mark.parametrize("data", ["train", "eval"])
def test_other_data_are_refused_even_if_only_one_sample_differs(tmp_path, begun, monkeypatch, data):
    make_texts = helpers.make_texts

    def changed(count, seed=0):
        texts = make_texts(count, seed)
        if (seed == 1) == (data == "eval"):
            texts[count // 2]["input_ids"][0] ^= 1
        return texts

    monkeypatch.setattr(helpers, "make_texts", changed)
    with pytest.raises(ValueError, match=f"{data}_data was [0-9a-f]{{12}} and is now"):
        resume(begun(tmp_path))


def test_all_differences_are_named_at_once_and_the_message_gives_the_option_that_allows_them(tmp_path, begun):
    folder = begun(tmp_path)
    changes = {"seed": 6, "max_steps": 10, "weight_decay": 0.2, "mlm_probability": 0.2, "max_grad_norm": 2.0}
    with pytest.raises(ValueError) as caught:
        resume(folder, **changes)
    assert all(f"{name} was" in str(caught.value) for name in changes)
    allowed = re.search(r"--allow_changed (.*)", str(caught.value))[1].split()
    assert sorted(allowed) == sorted(changes)
    assert resume(folder, **changes, allow_changed=allowed).state.global_step == 10


def test_change_that_is_allowed_says_so_and_one_that_is_not_is_still_refused(tmp_path, begun, capsys):
    folder = begun(tmp_path)
    with pytest.raises(ValueError, match="weight_decay was 0.01") as caught:
        resume(folder, seed=6, weight_decay=0.3, allow_changed=["seed"])
    assert "seed was" not in str(caught.value)
    resume(folder, seed=6, allow_changed=["seed"])
    assert "Resuming although seed was 5 and is now 6" in capsys.readouterr().out


def test_allowed_learning_rate_takes_effect_although_the_checkpoint_holds_the_optimizer(tmp_path, begun):
    rates = {}
    for name, rate in (("same", 1e-3), ("half", 5e-4)):
        folder = begun(tmp_path / name)
        options = {"learning_rate": rate, "allow_changed": ["learning_rate", "weight_decay", "adam_beta1"]}
        trainer = resume(folder, **options, weight_decay=0.2, adam_beta1=0.8)
        rates[name] = [entry["learning_rate"] for entry in logged(trainer, "learning_rate")][4:]
        groups = trainer.optimizer.param_groups
        assert {group["weight_decay"] for group in groups} == {0.2, 0.0} and groups[0]["betas"][0] == 0.8
    assert len(rates["same"]) == 4
    assert rates["half"] == pytest.approx([rate / 2 for rate in rates["same"]])


@pytest.mark.parametrize("name", ["optim", "optim_args"])
def test_change_that_would_have_no_effect_cannot_be_allowed(tmp_path, begun, name):
    with pytest.raises(ValueError, match=f"--allow_changed {name}: a checkpoint holds the optimizer"):
        resume(begun(tmp_path), allow_changed=[name])


def test_checkpoint_of_an_older_version_resumes_and_says_what_is_not_compared(tmp_path, begun, capsys):
    folder = begun(tmp_path)
    path = folder / "checkpoint-4" / "run_record.json"
    record = json.loads(path.read_text())
    old = {name: record[name] for name in ("command", "seed", "versions", "data", "processes", "device")}
    path.write_text(json.dumps({**old, "data": {"train": "of another kind"}}))
    (path.parent / MANIFEST).unlink()
    seal(path.parent, Layout())
    assert resume(folder).state.global_step == 8
    assert "its settings and data are not compared" in capsys.readouterr().out


# ---- settings ----


def arguments(folder, **changes):
    return DistillationConfig(output_dir=str(folder), use_cpu=True, report_to="none", **changes)


def test_only_exact_names_are_free_to_change():
    assert not affects_results("eval_steps") and not affects_results("logging_steps")
    for name in ("eval_rows", "save_anything", "log_it", "dataloader_drop_last", "load_best_model_at_end", "seed"):
        assert affects_results(name), name


def test_another_number_of_processes_may_divide_the_same_step_differently():
    was = {
        "processes": 1,
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 4,
        "sequences_per_step": 32,
    }
    two = {**was, "processes": 2, "gradient_accumulation_steps": 2}
    assert changed_settings(was, two) == {}
    assert list(changed_settings(was, {**two, "sequences_per_step": 16})) == ["sequences_per_step"]
    same = {**was, "per_device_train_batch_size": 16, "gradient_accumulation_steps": 2}
    assert len(changed_settings(was, same)) == 2, "contrastive losses see other negatives"


def test_removed_or_new_setting_is_named_but_not_an_option_of_another_transformers():
    was, now = {"processes": 1, "text": "a", "seed": 1}, {"processes": 1, "vokens": "b"}
    assert list(changed_settings(was, now)) == ["vokens", "text"]


def test_settings_hold_no_credentials_and_no_addresses_in_memory(tmp_path):
    class Thing:
        pass

    own = {"text": "https://me:SECRET@host.org/corpus.txt?sig=SECRET two", "set": {"b", "a"}, "thing": Thing(),
           "dtype": torch.float32, "nested": [{"x": "s3://KEY:SECRET@b/x"}]}  # fmt: skip
    settings = settings_of_run(arguments(tmp_path), own)
    assert "SECRET" not in json.dumps(settings) and settings["text"] == "https://host.org/corpus.txt"
    assert (
        settings["set"] == ["a", "b"] and " at 0x" not in json.dumps(settings) and settings["dtype"] == "torch.float32"
    )
    assert settings["thing"] == settings_of_run(arguments(tmp_path), {**own, "thing": Thing()})["thing"]


# ---- weights ----


def test_weights_of_one_file_of_shards_and_of_old_files_are_told_apart(tmp_path):
    tokenizer = make_tokenizer()
    found = set()
    for seed in (0, 1):
        teacher = make_teacher(tokenizer, seed=seed)
        teacher.save_pretrained(tmp_path / f"one-{seed}")
        teacher.save_pretrained(tmp_path / f"sharded-{seed}", max_shard_size="20KB")
        assert len(list((tmp_path / f"sharded-{seed}").glob("*.safetensors"))) > 1
        (tmp_path / f"old-{seed}").mkdir()
        torch.save(teacher.state_dict(), tmp_path / f"old-{seed}" / "pytorch_model.bin")
        found |= {weights_fingerprint(tmp_path / f"{kind}-{seed}") for kind in ("one", "sharded", "old")}
        found.add(model_fingerprint(teacher))
    assert len(found) == 8 and None not in found
    assert model_fingerprint(make_teacher(tokenizer, seed=1)) in found
    assert weights_fingerprint(tmp_path) is None


def test_weights_of_the_hub_are_identified_by_their_commit(tmp_path, monkeypatch):
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = tmp_path / "models--me--model" / "snapshots" / commit
    snapshot.mkdir(parents=True)
    BertForMaskedLM(make_config(make_tokenizer())).save_pretrained(snapshot)
    refs = tmp_path / "models--me--model" / "refs"
    refs.mkdir()
    (refs / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert weights_fingerprint("me/model") == fingerprint("me/model") == commit
    assert weights_fingerprint("me/none") is None


def test_students_of_other_kinds_do_not_change_the_teachers_hash():
    assert model_fingerprint(make_student(make_tokenizer())) != model_fingerprint(make_teacher(make_tokenizer()))

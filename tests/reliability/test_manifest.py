"""A checkpoint is sealed and resumed only if everything that it must contain is there and can be read."""

import errno
import json
import os

import pytest
import torch
from helpers import make_checkpoint, train, write_checkpoint_files
from safetensors.torch import save_file
from transformers import TrainerCallback

from vidlankd_hf.reliability import manifest
from vidlankd_hf.reliability.checkpointing import agree_on_checkpoint
from vidlankd_hf.reliability.manifest import Layout, seal, verify_checkpoint

REQUIRED = sorted(
    "config.json log_state_0_of_1.json model.safetensors optimizer.pt rng_state.pth run_record.json scheduler.pt "
    "trainer_state.json".split()
)


def test_checkpoint_of_a_run_has_every_required_file(tmp_path):
    train("student", tmp_path, {}, max_steps=1, save_strategy="steps", save_steps=1)
    files = {path.name for path in (tmp_path / "checkpoint-1").iterdir()}
    assert set(REQUIRED) <= files and set(Layout().required()) >= set(REQUIRED) - {"model.safetensors"}


@pytest.mark.parametrize("name", REQUIRED)
def test_checkpoint_without_a_required_file_is_neither_sealed_nor_resumed(tmp_path, name):
    (tmp_path / "part").mkdir()
    write_checkpoint_files(tmp_path / "part")
    (tmp_path / "part" / name).unlink()
    with pytest.raises(OSError, match=f"lacks {name}"):
        seal(tmp_path / "part", Layout())
    assert not (tmp_path / "part" / "manifest.json").exists()
    make_checkpoint(tmp_path, 1)
    newest = make_checkpoint(tmp_path, 2)
    listed = json.loads((newest / "manifest.json").read_text())
    del listed["files"][name]
    (newest / "manifest.json").write_text(json.dumps(listed))
    assert f"lacks {name}" in verify_checkpoint(newest)
    assert agree_on_checkpoint(tmp_path, saves=True) == str(tmp_path / "checkpoint-1")


def test_manifest_with_more_processes_than_files_is_damaged_and_takes_no_memory(tmp_path):
    checkpoint = make_checkpoint(tmp_path, 1)
    content = json.loads((checkpoint / "manifest.json").read_text())
    content["layout"]["processes"] = 10**12
    (checkpoint / "manifest.json").write_text(json.dumps(content))
    assert "its run had 1000000000000 processes" in verify_checkpoint(checkpoint)


@pytest.mark.parametrize(
    "layout, files",
    [
        (Layout(2), ["rng_state_0.pth", "rng_state_1.pth", "log_state_0_of_2.json", "log_state_1_of_2.json"]),
        (Layout(scaler=True), ["scaler.pt"]),
        (Layout(2, "zero0"), ["global_step4/mp_rank_00_model_states.pt"]),
        (Layout(2, "zero2"), ["latest", "global_step4/bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt"]),
        (Layout(2, "zero3"), ["global_step4/zero_pp_rank_0_mp_rank_00_model_states.pt",
                              "global_step4/zero_pp_rank_1_mp_rank_00_model_states.pt"]),
        (Layout(1, "fsdp"), ["pytorch_model_fsdp_0/__0_0.distcp", "optimizer.bin"]),
    ],
)  # fmt: skip
def test_each_layout_demands_the_files_of_each_process(layout, files):
    complete = [pattern.replace("*", "x") for pattern in layout.required()]
    assert layout.missing(complete) == []
    for file in files:
        others = [
            name for pattern, name in zip(layout.required(), complete) if not manifest.fnmatchcase(file, pattern)
        ]
        assert len(layout.missing(others)) == 1, file
        assert layout.missing([*others, file]) == []


def test_every_file_that_the_index_of_the_weights_names_must_be_there(tmp_path):
    write_checkpoint_files(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    names = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": dict(zip("ab", names))}))
    save_file({"a": torch.zeros(1)}, tmp_path / names[0])
    with pytest.raises(OSError, match=f"lacks {names[1]}"):
        seal(tmp_path, Layout())
    save_file({"b": torch.zeros(1)}, tmp_path / names[1])
    seal(tmp_path, Layout())
    assert verify_checkpoint(tmp_path) is None


def test_model_alone_is_not_saved_as_a_checkpoint(tmp_path):
    """`save_only_model` is refused as an option; this test sets it after the check."""

    class SaveOnlyModel(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            args.save_only_model = True

    options = {"objectives": {}, "max_steps": 2, "save_strategy": "steps", "save_steps": 1}
    with pytest.raises(RuntimeError, match=r"older checkpoints are untouched.*lacks rng_state.pth.*optimizer.pt"):
        train("student", tmp_path, **options, callbacks=[SaveOnlyModel()])
    with pytest.raises(ValueError, match="save_only_model"):
        train("student", tmp_path, **options, save_only_model=True)


def odd_manifest(text: str):
    return lambda checkpoint, patch: (checkpoint / "manifest.json").write_text(text)


def as_folder(checkpoint, patch):
    (checkpoint / "manifest.json").unlink()
    (checkpoint / "manifest.json").mkdir()


def as_pipe(checkpoint, patch):
    (checkpoint / "manifest.json").unlink()
    os.mkfifo(checkpoint / "manifest.json")  # nobody writes into it


def not_utf8(checkpoint, patch):
    (checkpoint / "manifest.json").write_bytes(b"\xff\xfe{")


def without_save_id(checkpoint, patch):
    text = (checkpoint / "manifest.json").read_text()
    (checkpoint / "manifest.json").write_text(text.replace('"save_id"', '"rave_id"'))  # one flipped bit


def names(*added):
    def damage(checkpoint, patch):
        listed = json.loads((checkpoint / "manifest.json").read_text())
        listed["files"].update({name: {"bytes": 1, "sha256": "0"} for name in added})
        (checkpoint / "manifest.json").write_text(json.dumps(listed))

    return damage


def unreadable(number: int, name: str):
    def damage(checkpoint, patch):
        def fail(path, original=manifest.sha256_of):
            if checkpoint.name in str(path) and path.name == name:
                raise OSError(number, "from the disk", str(path))
            return original(path)

        patch.setattr(manifest, "sha256_of", fail)

    return damage


DAMAGES = {
    "empty": odd_manifest(""),
    "deep": odd_manifest("[" * 100_000),
    "list": odd_manifest("[1]"),
    "null": odd_manifest("null"),
    "flipped key": without_save_id,
    "no layout": odd_manifest('{"format_version": 2, "files": {}}'),
    "odd layout": odd_manifest('{"format_version": 2, "layout": {"processes": "x"}, "files": {}}'),
    "huge number": odd_manifest('{"format_version": ' + "9" * 5000 + "}"),
    "folder": as_folder,
    "pipe": as_pipe,
    "not UTF-8": not_utf8,
    "NUL": names("a\0b"),
    "long name": names("x" * 5000),
    "EIO": unreadable(errno.EIO, "model.safetensors"),
    "EACCES": unreadable(errno.EACCES, "optimizer.pt"),
    "ESTALE": unreadable(errno.ESTALE, "rng_state.pth"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_unreadable_checkpoint_is_skipped_with_a_message_for_the_next_older_one(tmp_path, monkeypatch, capsys, damage):
    make_checkpoint(tmp_path, 2)
    DAMAGES[damage](make_checkpoint(tmp_path, 4), monkeypatch)
    assert agree_on_checkpoint(tmp_path, saves=True) == str(tmp_path / "checkpoint-2")
    assert f"Skipping {tmp_path / 'checkpoint-4'}: " in capsys.readouterr().out


def test_folder_that_the_disk_cannot_check_is_skipped_with_a_message(tmp_path, monkeypatch, capsys):
    make_checkpoint(tmp_path, 2)
    newest = make_checkpoint(tmp_path, 4)
    is_dir = type(newest).is_dir

    def fail(path):
        if path == newest:
            raise OSError(errno.EIO, "Input/output error")
        return is_dir(path)

    monkeypatch.setattr(type(newest), "is_dir", fail)
    (newest / "manifest.json").unlink()
    assert (
        agree_on_checkpoint(tmp_path, saves=True) == str(tmp_path / "checkpoint-2")
        and "Skipping" in capsys.readouterr().out
    )

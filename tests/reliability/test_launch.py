"""Launches run what was requested, shard without changing a loss, and save a model that loads anywhere."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.commands.config import load_config_from_file
from helpers import WORDS, logged, make_texts, make_tokenizer, make_video_text, make_vision_language_model, train
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM

from vidlankd_hf import DistillationConfig, VidLanKDStudent, VidLanKDTeacher, bert_config
from vidlankd_hf.reliability import arguments, launch
from vidlankd_hf.reliability.launch import describe_launch

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "accelerate_configs"
OBJECTIVES = {"nst": 30.0, "regression": 1.0}
LOSSES = {
    "student": ("loss", "mlm_loss", "nst_loss", "regression_loss"),
    "teacher": ("loss", "mlm_loss", "contrast_loss"),
}
# ZeRO stage of each configuration that two CPU processes can run; None is DDP.
STAGES = {"cpu.yaml": None, "cpu_zero1.yaml": 1, "cpu_zero2.yaml": 2, "cpu_zero3.yaml": 3, "cpu_zero3_offload.yaml": 3}
ON_GPUS = {"gpu.yaml": "NO", "ddp.yaml": "MULTI_GPU", "fsdp2.yaml": "FSDP", "multi_node.yaml": "MULTI_GPU",
           "zero1.yaml": "DEEPSPEED", "zero2.yaml": "DEEPSPEED", "zero3.yaml": "DEEPSPEED",
           "zero3_offload.yaml": "DEEPSPEED"}  # fmt: skip
TOLERANCE = 2e-4


def run_launched(config: str, script: Path, *arguments: str, processes: int = 2) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(CONFIGS / config)]
    command += ["--num_processes", str(processes), "--main_process_port", "0", str(script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=400)


def train_launched(config: str, folder: Path, **options) -> dict:
    folder.mkdir()
    options = {"per_device_train_batch_size": 4, "max_steps": 6, "use_cpu": False, **options}
    options = {**options, "output_dir": str(folder / "run"), "result": str(folder / "result.json")}
    run = run_launched(config, ROOT / "tests" / "distributed_run.py", json.dumps(options))
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads((folder / "result.json").read_text())


def steps_of(seen: dict, names) -> list[dict]:
    return [{name: entry[name] for name in names} for entry in seen["log_history"] if "loss" in entry]


def contrast_alike(kind: str) -> dict:
    """Contrastive losses take negatives from a micro-batch, so one process must split its batch as two do."""
    if kind == "teacher":
        return {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    return {"per_device_train_batch_size": 8}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    runs = {}

    def run(kind: str):
        if kind not in runs:
            objectives = OBJECTIVES if kind == "student" else None
            runs[kind] = train(kind, tmp_path_factory.mktemp(kind), objectives, max_steps=6, **contrast_alike(kind))
        return runs[kind]

    return run


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["student", "teacher"])
@pytest.mark.parametrize("config", STAGES)
def test_launch_runs_what_was_asked_for_and_changes_no_loss(tmp_path, alone, config, kind):
    objectives = OBJECTIVES if kind == "student" else None
    seen = train_launched(config, tmp_path / "whole", kind=kind, objectives=objectives, save_strategy="steps",
                          save_steps=3)  # fmt: skip
    stage = STAGES[config]
    assert (seen["world_size"], seen["zero_stage"]) == (2, stage)
    assert seen["distributed_type"] == ("MULTI_CPU" if stage is None else "DEEPSPEED")

    one = alone(kind)
    steps = steps_of(seen, LOSSES[kind])
    assert len(steps) == 6
    for ours, expected in zip(steps, logged(one, *LOSSES[kind])):
        assert ours == pytest.approx(expected, rel=TOLERANCE)

    whole = sum(p.numel() * p.element_size() for p in one.model.parameters())
    ranks = 2 if stage == 3 else 1
    assert seen["parameter_bytes_of_a_rank"] == pytest.approx(whole / ranks, rel=0.05)
    assert seen["optimizer_bytes_of_a_rank"] == pytest.approx(2 * whole / (1 if stage is None else 2), rel=0.05)
    if kind == "student":
        teacher = sum(p.numel() * p.element_size() for p in one.teacher_model.parameters())
        assert seen["teacher_bytes_of_a_rank"] == pytest.approx(teacher / ranks, rel=0.05)

    # What it saved is complete: a process without a launcher loads it and computes the same.
    if kind == "student":
        _, info = AutoModelForMaskedLM.from_pretrained(tmp_path / "whole" / "run", output_loading_info=True)
        assert not any(info.values())
        one.model.load_state_dict(VidLanKDStudent.from_pretrained(tmp_path / "whole" / "run").state_dict())
    else:
        one.model.load_state_dict(VidLanKDTeacher.from_pretrained(tmp_path / "whole" / "run").state_dict())
    data = make_texts(13, seed=1) if kind == "student" else make_video_text(13, seed=1)
    assert one.evaluate(data)["eval_mlm_loss"] == pytest.approx(seen["evaluation"]["eval_mlm_loss"], rel=1e-5)
    assert "cls.predictions.decoder.weight" not in load_file(tmp_path / "whole" / "run" / "model.safetensors")

    checkpoint = str(tmp_path / "whole" / "run" / "checkpoint-3")
    resumed = train_launched(config, tmp_path / "resumed", kind=kind, objectives=objectives, resume=checkpoint)
    assert steps_of(resumed, LOSSES[kind]) == steps, "resumed on as many processes, every later loss is the same"


def test_every_configuration_is_what_its_name_says():
    kinds = {path.name: load_config_from_file(str(path)) for path in CONFIGS.glob("*.yaml")}
    assert set(kinds) == {*STAGES, *ON_GPUS}
    for name, stage in STAGES.items():
        assert kinds[name].use_cpu and kinds[name].num_processes == 2
        assert kinds[name].deepspeed_config.get("zero_stage") == stage
    assert kinds["cpu_zero3_offload.yaml"].deepspeed_config["offload_param_device"] == "cpu"
    assert {name: kinds[name].distributed_type.value for name in ON_GPUS} == ON_GPUS
    assert not any(kinds[name].use_cpu for name in ON_GPUS)
    assert {kinds[name].mixed_precision for name in ON_GPUS} == {"bf16"}
    for stage in ("zero1", "zero2", "zero3", "zero3_offload"):  # the file for CPUs differs only in where it runs
        assert kinds[f"{stage}.yaml"].deepspeed_config == kinds[f"cpu_{stage}.yaml"].deepspeed_config
    assert kinds["fsdp2.yaml"].fsdp_config["fsdp_version"] == 2
    assert kinds["multi_node.yaml"].num_machines == 2


def test_one_process_is_described_without_a_kind_of_parallelism(tmp_path):
    args = DistillationConfig(output_dir=str(tmp_path), report_to="none", use_cpu=True)
    assert describe_launch(args) == "1 process, cpu, fp32"


@pytest.mark.slow
def test_fsdp2_shards_a_student_and_changes_no_loss_and_no_gradient(tmp_path):
    """On CPU accelerate has no FSDP, so this uses PyTorch's `fully_shard` on the layers that `fsdp2.yaml` names."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += [str(ROOT / "tests" / "fsdp_run.py"), str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert run.returncode == 0, run.stderr[-3000:]
    assert (tmp_path / "distillation" / "heads.safetensors").is_file()


@pytest.mark.slow
def test_two_machines_find_each_other_and_change_no_loss(tmp_path, alone):
    """`multi_node.yaml` with its rendezvous, as two launches on this machine, on CPU."""
    config = tmp_path / "multi_node.yaml"
    text = (CONFIGS / "multi_node.yaml").read_text()
    for old, new in {"use_cpu: false": "use_cpu: true", "num_processes: 16": "num_processes: 2",
                     "mixed_precision: bf16": "mixed_precision: 'no'"}.items():  # fmt: skip
        assert old in text
        text = text.replace(old, new)
    config.write_text(text)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    options = {"kind": "student", "objectives": OBJECTIVES, "per_device_train_batch_size": 4, "max_steps": 6,
               "use_cpu": False, "output_dir": str(tmp_path / "run"), "result": str(tmp_path / "r.json")}  # fmt: skip
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
    command += ["--main_process_ip", "127.0.0.1", "--main_process_port", port]
    script = [str(ROOT / "tests" / "distributed_run.py"), json.dumps(options)]
    machines = [
        subprocess.Popen([*command, "--machine_rank", rank, *script], stderr=subprocess.PIPE, text=True)
        for rank in ("0", "1")
    ]
    errors = [machine.communicate(timeout=400)[1] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], errors
    seen = json.loads((tmp_path / "r.json").read_text())
    assert (seen["world_size"], seen["distributed_type"]) == (2, "MULTI_CPU")
    for ours, expected in zip(steps_of(seen, LOSSES["student"]), logged(alone("student"), *LOSSES["student"])):
        assert ours == pytest.approx(expected, rel=TOLERANCE)


PRINTS_LAUNCH = """
import sys
from vidlankd_hf import DistillationConfig
from vidlankd_hf.reliability.launch import describe_launch
print("REALLY", describe_launch(DistillationConfig(output_dir=sys.argv[1], report_to="none")), flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "config, changes, message",
    [
        ("cpu.yaml", {"MULTI_GPU": "MULTI_CPU"}, "2 processes were requested, but this run has 1 "),
        (
            "fsdp2.yaml",
            {"use_cpu: false": "use_cpu: true"},
            "FSDP was requested, but this run is 2 process",
        ),
        ("ddp.yaml", {}, "GPUs were requested, but this run is 2 processes, MULTI_CPU, cpu"),
        ("zero2.yaml", {}, "GPUs were requested, but this run is 2 processes, DeepSpeed ZeRO-2, cpu"),
    ],
)
def test_launch_that_is_not_what_was_asked_for_stops(tmp_path, config, changes, message):
    if config in ("ddp.yaml", "zero2.yaml") and torch.cuda.is_available():
        pytest.skip("there are GPUs")
    script, written = tmp_path / "prints.py", tmp_path / config
    script.write_text(PRINTS_LAUNCH)
    text = (CONFIGS / config).read_text()
    for old, new in {"mixed_precision: bf16": "mixed_precision: 'no'", "num_processes: 4": "num_processes: 2",
                     **changes}.items():  # fmt: skip
        text = text.replace(old, new)
    written.write_text(text)
    run = run_launched(str(written), script, str(tmp_path))
    assert run.returncode != 0 and "REALLY" not in run.stdout
    assert message in run.stderr


@pytest.mark.parametrize(
    "options, expected",
    [
        (["--cpu", "--num_processes", "3", "x.py"], (3, True)),
        (["--config_file", str(CONFIGS / "cpu.yaml"), "x.py", "--config_file", "of_the_script"], (2, True)),
        (["--config_file", str(CONFIGS / "multi_node.yaml"), "--num_processes", "32", "x.py"], (32, False)),
    ],
)
def test_what_was_asked_for_is_read_from_the_launcher(monkeypatch, options, expected):
    class Launcher:
        def parents(self):
            return [self, self]

        def cmdline(self):
            return ["/bin/python", "/bin/accelerate", "launch", *options]

    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr(launch.psutil, "Process", Launcher)
    assert launch.requested_launch() == expected
    monkeypatch.setattr(Launcher, "cmdline", lambda self: ["make", "test"])
    assert launch.requested_launch() == (None, None)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert launch.requested_launch() == (2, None)


@pytest.mark.parametrize("asked, given, runs", [("bf16", {}, "bf16"), ("fp16", {"bf16": True}, "bf16"),
                                                ("no", {}, "no")])  # fmt: skip
def test_launchers_precision_is_used_unless_another_one_is_given(tmp_path, monkeypatch, asked, given, runs):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", asked)
    args = DistillationConfig(output_dir=str(tmp_path), use_cpu=True, report_to="none", **given)
    assert (args.mixed_precision, args.bf16, args.fp16) == (runs, runs == "bf16", False)


def test_unsupported_precision_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp8")
    with pytest.raises(ValueError, match="mixed_precision is 'fp8' for the launcher, but it must be no, bf16 or fp16"):
        DistillationConfig(output_dir=str(tmp_path), use_cpu=True, report_to="none")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["student", "teacher"])
def test_precision_in_a_deepspeed_configuration_works_without_an_option(tmp_path, alone, kind):
    config = tmp_path / "bf16.yaml"
    config.write_text((CONFIGS / "cpu_zero2.yaml").read_text().replace("'no'", "bf16"))
    objectives = OBJECTIVES if kind == "student" else None
    seen = train_launched(str(config), tmp_path / "run", kind=kind, objectives=objectives)
    assert (seen["zero_stage"], seen["mixed_precision"]) == (2, "bf16")
    steps, expected = steps_of(seen, LOSSES[kind]), logged(alone(kind), *LOSSES[kind])
    for ours, exact in zip(steps, expected, strict=True):
        assert ours == pytest.approx(exact, rel=0.05)
    assert steps != expected


def test_processes_that_do_not_know_of_each_other_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(arguments, "requested_launch", lambda: (2, None))
    with pytest.raises(ValueError, match="2 processes were requested, but this run has 1 "):
        DistillationConfig(output_dir=str(tmp_path), use_cpu=True, report_to="none")


@pytest.mark.slow
def test_run_of_two_processes_resumes_with_one(tmp_path):
    two = train_launched("cpu.yaml", tmp_path / "two", kind="student", objectives=OBJECTIVES, save_strategy="steps",
                         save_steps=3)  # fmt: skip
    checkpoint = str(tmp_path / "two" / "run" / "checkpoint-3")
    one = train("student", tmp_path / "one", OBJECTIVES, max_steps=6, resume=checkpoint,
                **contrast_alike("student"))  # fmt: skip
    assert one.state.global_step == 6
    for ours, expected in zip(logged(one, *LOSSES["student"]), steps_of(two, LOSSES["student"]), strict=True):
        assert ours == pytest.approx(expected, rel=TOLERANCE)


@pytest.mark.slow
def test_zero_refuses_a_checkpoint_of_another_number_of_processes(tmp_path):
    options = {"kind": "student", "objectives": OBJECTIVES, "per_device_train_batch_size": 4, "max_steps": 4,
               "save_strategy": "steps", "save_steps": 2, "output_dir": str(tmp_path / "run"),
               "use_cpu": False}  # fmt: skip
    script, result = ROOT / "tests" / "distributed_run.py", str(tmp_path / "result.json")
    assert run_launched("cpu_zero2.yaml", script, json.dumps({**options, "result": result})).returncode == 0
    options.update(resume=str(tmp_path / "run" / "checkpoint-2"), output_dir=str(tmp_path / "again"))
    options.update(per_device_train_batch_size=8, result=result)
    run = run_launched("cpu_zero2.yaml", script, json.dumps(options), processes=1)
    assert run.returncode != 0 and "world size" in run.stderr


@pytest.mark.slow
def test_teacher_starts_from_a_pretrained_bert_under_zero3(tmp_path, tiny_world):
    """A teacher that is loaded after TrainingArguments is sharded, but must start with all of its weights."""
    from transformers import AutoTokenizer, BertForMaskedLM

    tokenizer = AutoTokenizer.from_pretrained(tiny_world / "tokenizer")
    bert = BertForMaskedLM(bert_config("tiny", tokenizer))
    bert.save_pretrained(tmp_path / "bert")
    options = [
        "--world",
        str(tiny_world),
        "--text_model",
        str(tmp_path / "bert"),
        "--output_dir",
        str(tmp_path / "run"),
    ]
    options += ["--max_steps", "2", "--warmup_steps", "0", "--learning_rate", "0", "--weight_decay", "0"]
    run = run_launched("cpu_zero3.yaml", ROOT / "examples" / "pretrain_teacher.py", *options, "--report_to", "none")
    assert run.returncode == 0, run.stderr[-3000:]
    assert "2 processes, DeepSpeed ZeRO-3" in run.stdout
    trained = VidLanKDTeacher.from_pretrained(tmp_path / "run").text_model.state_dict()
    for name, value in bert.state_dict().items():
        torch.testing.assert_close(trained[name], value)


@pytest.mark.slow
def test_text_tower_under_zero3_gives_the_losses_of_one_process(tmp_path):
    """A complete FLAVA has scalars, which cannot be sharded; only its text tower is loaded."""
    tokenizer = make_tokenizer()
    make_vision_language_model("flava", tokenizer).save_pretrained(tmp_path / "flava")
    tokenizer.save_pretrained(tmp_path / "flava")
    lines = [" ".join(WORDS[(i * k) % 60] for k in range(1, 41)) for i in range(1, 201)]
    (tmp_path / "text.txt").write_text("\n".join(lines) + "\n")
    seen = []
    for config, processes, batch in (("cpu.yaml", 1, 8), ("cpu_zero3.yaml", 2, 4)):
        folder = tmp_path / config
        options = {"teacher": tmp_path / "flava", "text": tmp_path / "text.txt", "cache_dir": tmp_path / "cache",
                   "student": "tiny", "student_model_type": "roberta", "block_tokens": 30, "max_steps": 3,
                   "per_device_train_batch_size": batch, "gather_negatives": True, "logging_steps": 1,
                   "save_strategy": "no", "use_cpu": True, "report_to": "none", "output_dir": folder}  # fmt: skip
        command = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
        run = run_launched(config, ROOT / "examples" / "distill.py", *command, processes=processes)
        assert run.returncode == 0, run.stderr[-3000:]
        seen.append(json.loads((folder / "trainer_state.json").read_text()))
    names = ("loss", "grad_norm", "mlm_loss", "nst_loss", "crd_loss")
    for a, b in zip(*(steps_of(state, names) for state in seen), strict=True):
        assert a == pytest.approx(b, rel=1e-3)

"""Do results on a GPU agree with those on a CPU?

    python benchmarks/gpu/correctness.py --output_dir results
    python benchmarks/gpu/correctness.py --output_dir results --rehearse

Each check has its bound in the code and writes the measured value to correctness.json. In a rehearsal without a GPU,
the "device" is the CPU, and checks that need CUDA are skipped and say so.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from results import Results, SkippedError, arguments, parser_of  # isort: skip  (finds the others)
import torch
from training import Setup, difference, folder_of, gradients, logs
from transformers import TrainerCallback

FP32, HALF = 1e-4, 0.02  # largest relative differences of losses
BF16_ANGLE = 0.99  # smallest cosine of the bf16 and the fp32 gradient


def bounded(bound: float, **measured: float) -> dict:
    over = {name: value for name, value in measured.items() if not value <= bound}
    assert not over, f"{over} are above {bound}; all: {measured}"
    return {**measured, "bound": bound}


def fp32(setup: Setup, kind: str) -> dict:
    """Losses and gradients of one batch, 20 steps, and an evaluation, compared with the CPU's."""
    (ours, ours_gradient), (theirs, their_gradient) = (
        gradients(setup.trainer(kind, device)) for device in (setup.device, "cpu")
    )
    runs, evaluations = [], []
    for device in (setup.device, "cpu"):
        runs.append(setup.trained(kind, device))
        evaluations.append({name: v for name, v in runs[-1].evaluate().items() if name.endswith("_loss")})
    return bounded(
        FP32,
        losses=difference([ours], [theirs]),
        gradient=float((ours_gradient - their_gradient).norm() / their_gradient.norm()),
        training=difference(logs(runs[0]), logs(runs[1])),
        evaluation=difference([evaluations[0]], [evaluations[1]]),
    )


def bf16(setup: Setup, kind: str) -> dict:
    """Losses and gradient of one batch, and 20 steps, compared with fp32 on the device."""
    (ours, gradient), (exact, exact_gradient) = (gradients(setup.trainer(kind, bf16=on)) for on in (True, False))
    cosine = float(torch.cosine_similarity(gradient.double(), exact_gradient.double(), dim=0))
    assert cosine >= BF16_ANGLE, f"the gradients have a cosine of {cosine}, below {BF16_ANGLE}"
    runs = [setup.trained(kind, bf16=on) for on in (True, False)]
    losses = [[{k: v for k, v in row.items() if k != "grad_norm"} for row in logs(run)] for run in runs]
    return {**bounded(HALF, losses=difference([ours], [exact]), training=difference(*losses)), "cosine": cosine}


def fp16(setup: Setup) -> dict:
    """20 steps with a gradient scaler, compared with fp32 on the device."""
    if setup.device == "cpu":
        raise SkippedError("fp16 with a gradient scaler needs a GPU")
    runs = [setup.trained("student", fp16=on) for on in (True, False)]
    losses = [[{k: v for k, v in row.items() if k != "grad_norm"} for row in logs(run)] for run in runs]
    return {**bounded(HALF, training=difference(*losses)), "scale": runs[0].accelerator.scaler.get_scale()}


def resume(setup: Setup) -> dict:
    """A run that resumes in the middle repeats every loss: bit for bit with full_determinism."""
    found = {}
    for name, deterministic in (("default_difference", False), ("deterministic_difference", True)):
        half = setup.steps // 2
        options = {"dropout": 0.1, "full_determinism": deterministic, "save_steps": half}
        whole = setup.trained("student", save_strategy="steps", **options)
        resumed = setup.trainer("student", **options)
        resumed.train(resume_from_checkpoint=str(folder_of(whole) / f"checkpoint-{half}"))
        found[name] = difference(logs(resumed), logs(whole))
        torch.use_deterministic_algorithms(False)
    assert found["deterministic_difference"] == 0, f"not bit-exact: {found}"
    return found


def gradient_checkpointing(setup: Setup) -> dict:
    runs = [setup.trained("student", dropout=0.1, gradient_checkpointing=on) for on in (True, False)]
    return bounded(FP32, training=difference(logs(runs[0]), logs(runs[1])))


def compiled(setup: Setup) -> dict:
    """`--torch_compile true` has no graph breaks, equal losses, and saves the finished model."""
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    runs = [setup.trained("student", ragged=False, torch_compile=on) for on in (True, False)]
    counters = torch._dynamo.utils.counters
    breaks, graphs = dict(counters["graph_break"]), counters["stats"]["unique_graphs"]
    assert graphs and not breaks, f"{graphs} graphs, and breaks: {breaks}"
    runs[0].save_model()
    assert (folder_of(runs[0]) / "model.safetensors").is_file()
    return {**bounded(FP32, training=difference(logs(runs[0]), logs(runs[1]))), "graphs": graphs}


class NoWaiting(TrainerCallback):
    """Raises an error at every wait for the GPU between the second and the last step."""

    def on_step_begin(self, args, state, control, **kwargs):
        torch.cuda.set_sync_debug_mode("error" if state.global_step >= 2 else "default")

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step >= state.max_steps - 1:
            torch.cuda.set_sync_debug_mode("default")


def no_waiting(setup: Setup, kind: str, **options) -> dict:
    if setup.device == "cpu":
        raise SkippedError("only a GPU makes the host wait; tests/training/test_no_sync.py covers what a CPU can show")
    trainer = setup.trainer(kind, logging_steps=1000, dropout=0.1, **options)
    trainer.add_callback(NoWaiting())
    try:
        trainer.train()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return {"steps_without_waiting": setup.steps - 3}


def grounding(setup: Setup) -> dict:
    """Nearest clips of a teacher's and a student's tokens on the device and on the CPU."""
    from vidlankd_hf.evaluation.grounding import nearest_clips

    torch.manual_seed(0)
    tokens, bank = (torch.nn.functional.normalize(torch.randn(n, 64), dim=-1) for n in (12, 20_000))
    ours = [part.cpu() for part in nearest_clips(tokens.to(setup.device), bank.to(setup.device), 6)]
    theirs = nearest_clips(tokens, bank, 6)
    pairs = {"similarity": 0, "mean": 2, "std": 3}
    return bounded(FP32, **{name: float((ours[i] - theirs[i]).abs().max()) for name, i in pairs.items()})


# ---- checks with several processes, new ones for each check ----


def launched(setup: Setup, ranks: int, **options) -> list[dict]:
    """Logs of a student's run in `ranks` processes that share the GPU."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    folder = Path(tempfile.mkdtemp())
    given = {"rehearse": setup.rehearse, "device": setup.device, "options": options, "folder": str(folder)}
    environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(ranks)}
    if setup.device == "cpu":
        environment["DS_ACCELERATOR"] = "cpu"
    processes = [
        subprocess.Popen([sys.executable, __file__, "--child", json.dumps(given)], stdout=subprocess.DEVNULL,
                         stderr=open(folder / f"{rank}.txt", "w"),
                         env={**environment, "RANK": str(rank), "LOCAL_RANK": "0"})
        for rank in range(ranks)
    ]  # fmt: skip
    try:
        codes = [process.wait(timeout=600) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert not any(codes), "\n".join((folder / f"{rank}.txt").read_text()[-1000:] for rank in range(ranks))
    return json.loads((folder / "logs.json").read_text())


def child(given: dict) -> None:
    from vidlankd_hf.reliability.launch import end_run

    output_dir = f"{given['folder']}/run"  # the same for all ranks
    trainer = Setup(given["rehearse"], given["device"]).trainer("student", output_dir=output_dir, **given["options"])
    trainer.train()
    if trainer.is_world_process_zero():
        (Path(given["folder"]) / "logs.json").write_text(json.dumps(logs(trainer)))
    end_run(trainer)


def gather_negatives(setup: Setup) -> dict:
    """Two processes with gathered negatives have the losses of one process with both batches."""
    alone = setup.trained("student", objectives={"crd": 1.0})
    options = {"objectives": {"crd": 1.0}, "gather_negatives": True, "ddp_backend": "gloo"}
    logged = launched(setup, 2, per_device_train_batch_size=setup.batch // 2, **options)
    return bounded(FP32, training=difference(logged, logs(alone)))


def zero(setup: Setup, stage: int) -> dict:
    """ZeRO with one process, also with a sharded teacher (stage 3), has the losses of the plain run."""
    try:
        import deepspeed  # noqa: F401
    except ImportError as error:
        raise SkippedError(f"DeepSpeed is not installed: {error}") from error
    plain = setup.trained("student")
    settings = {name: "auto" for name in ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps",
                                          "gradient_clipping", "train_batch_size")}  # fmt: skip
    config = {**settings, "zero_optimization": {"stage": stage}, "zero_allow_untested_optimizer": True}
    return bounded(2 * FP32, training=difference(launched(setup, 1, deepspeed=config), logs(plain)))


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        child(json.loads(sys.argv[2]))
        return
    args = arguments(parser_of(__doc__))
    setup, results = Setup(args.rehearse, args.device), Results("correctness", args)
    checks = {
        "student_fp32": lambda: fp32(setup, "student"),
        "teacher_fp32": lambda: fp32(setup, "teacher"),
        "student_bf16": lambda: bf16(setup, "student"),
        "teacher_bf16": lambda: bf16(setup, "teacher"),
        "no_waiting_student": lambda: no_waiting(setup, "student"),
        "no_waiting_student_bf16": lambda: no_waiting(setup, "student", bf16=True),
        "no_waiting_teacher": lambda: no_waiting(setup, "teacher"),
        "resume": lambda: resume(setup),
        "fp16": lambda: fp16(setup),
        "gradient_checkpointing": lambda: gradient_checkpointing(setup),
        "grounding": lambda: grounding(setup),
        "compiled": lambda: compiled(setup),
        "gather_negatives": lambda: gather_negatives(setup),
        **{f"zero{stage}": lambda stage=stage: zero(setup, stage) for stage in (1, 2, 3)},
    }
    for name in args.only or checks:
        results.run(name, checks[name])
    sys.exit(f"failed: {', '.join(results.failed)}" if results.failed else 0)


if __name__ == "__main__":
    main()

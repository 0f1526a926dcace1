"""Does a CUDA run mix devices? Runs on a machine without a GPU, with a CUDA build of torch.

    python3 -m venv cuda && cuda/bin/pip install torch -e .   # several GB
    cuda/bin/python benchmarks/gpu/fake_device.py

torch's `FakeTensorMode` computes shapes, dtypes and devices without data, and refuses an operation on tensors of two
devices. Here it runs the forward passes of student and teacher, their trainers' losses, item counts and sums, NaN
detection, gathered negatives, evaluation and grounding on `cuda:0`, in fp32 and under bf16 autocast. A value that
depends on data, such as `.item()`, cannot be computed, so waiting for the device is an error as well. Backward passes
are not run: they would need a driver.
"""

import sys
from contextlib import contextmanager
from types import SimpleNamespace

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import BertTokenizer

from vidlankd_hf import (
    TextCollator,
    VideoTextCollator,
    VidLanKDTeacher,
    VidLanKDTeacherConfig,
    bert_config,
    student_class,
    student_config,
)
from vidlankd_hf.evaluation.grounding import nearest_clips
from vidlankd_hf.models.configuration import video_config_like
from vidlankd_hf.reliability.nan_detection import weights_are_finite
from vidlankd_hf.training.base_trainer import BaseTrainer
from vidlankd_hf.training.distillation_trainer import DistillationTrainer
from vidlankd_hf.training.teacher_trainer import TeacherTrainer

FEATURES, DEVICE = 16, torch.device("cuda:0")
OBJECTIVES = {"nst": 1000.0, "crd": 1.0, "infonce": 1.0, "regression": 1.0, "soft_label": 1.0}
WORDS = [f"w{i}" for i in range(95)]


class EndOfLoopError(Exception):
    """Stops an evaluation where it reads its sums, which may wait for the device."""


class OtherProcess:
    """Replaces accelerate in a run of two processes: the other one has the same batch."""

    num_processes = 2

    def reduce(self, tensor, how):
        return tensor * 2

    def gather(self, tensor):
        return torch.cat([tensor, tensor])

    def pad_across_processes(self, tensor, dim):
        return tensor


class Batches(list):
    """Evaluation batches with the data set that they are from."""

    def __init__(self, batches):
        super().__init__(batches)
        self.dataset = range(sum(len(batch["input_ids"]) for batch in batches) * OtherProcess.num_processes - 1)


def as_trained(trainer_class, model, teacher=None):
    """A trainer with `model` on the device that has only what a step and an evaluation use."""
    trainer = trainer_class.__new__(trainer_class)
    trainer.model, trainer.teacher_model, trainer.accelerator = model, teacher, OtherProcess()
    trainer.args = SimpleNamespace(
        world_size=2, process_index=0, gather_negatives=True, gradient_accumulation_steps=1, device=DEVICE,
        eval_batch_size=4, fp16=False,
    )  # fmt: skip
    trainer.state, trainer.control = SimpleNamespace(global_step=1), None
    trainer.callback_handler = SimpleNamespace(on_prediction_step=lambda *_: None)
    trainer._totals, trainer._detector, trainer._micro_step = {}, None, 0
    trainer._prepare_for_evaluation = lambda: model.eval()
    trainer._prepare_inputs = lambda batch: batch
    trainer.compute_loss_context_manager = lambda: torch.autocast("cuda", enabled=False)
    return trainer


def on_device(batch: dict) -> dict:
    return {name: value.to(DEVICE) for name, value in batch.items()}


def step(trainer, batch: dict) -> None:
    """One training step's forward pass, with what is recorded of it."""
    trainer.model.train()
    batches, items = trainer.get_batch_samples(iter([batch]), 1, DEVICE)
    loss = trainer.compute_loss(trainer.model, batches[0], num_items_in_batch=items)
    assert loss.device == DEVICE and loss.requires_grad
    norm = torch.nn.utils.get_total_norm([p.detach() for p in trainer.model.parameters()])
    trainer._detector.record_gradient(norm, 0, 0)
    trainer._detector.record_gradient(1.0, 0, 0)  # as DeepSpeed gives it
    assert all(total.device == DEVICE for total in trainer._totals.values())
    assert weights_are_finite(trainer.model).device == DEVICE


def evaluate(trainer, batch: dict) -> None:
    from vidlankd_hf.training import base_trainer

    def stop(totals, accelerator):
        assert totals and all(total.device == DEVICE for total in totals.values())
        raise EndOfLoopError

    before, base_trainer.means_of_totals = base_trainer.means_of_totals, stop
    try:
        BaseTrainer.evaluation_loop(trainer, Batches([batch, batch]), "evaluation")
    except EndOfLoopError:
        return
    finally:
        base_trainer.means_of_totals = before
    raise AssertionError("the evaluation read no sums")


@contextmanager
def precision(name: str):
    with torch.autocast("cuda", torch.bfloat16, enabled=name == "bf16"):
        yield


def main() -> None:
    if torch.version.cuda is None:
        sys.exit(f"torch {torch.__version__} is a CPU build: install a CUDA build of torch")
    tokenizer = BertTokenizer(
        vocab={w: i for i, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])}
    )
    texts = [{"input_ids": list(range(5, 5 + n)), "sample_id": n, "epoch": 0} for n in (9, 12, 7, 12)]
    clips = [
        {"id": f"v{n}", "text": " ".join(WORDS[:n]), "video_features": torch.randn(n, FEATURES).numpy(),
         "sample_id": n, "epoch": 0} for n in (3, 5, 4, 6)
    ]  # fmt: skip
    ragged, full = TextCollator(tokenizer)(texts), TextCollator(tokenizer)([texts[1], texts[3]] * 2)
    video = VideoTextCollator(tokenizer)(clips)
    done = []
    with FakeTensorMode(allow_non_fake_inputs=True), torch.device(DEVICE):
        for name in ("fp32", "bf16"):
            text = bert_config("tiny", tokenizer, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)
            for contrast in ("infonce", "hinge", "hinge_batch"):
                config = VidLanKDTeacherConfig(
                    text_config=text, video_config=video_config_like(text, FEATURES), contrast=contrast
                )
                teacher = VidLanKDTeacher(config)
                trainer = as_trained(TeacherTrainer, teacher)
                with precision(name):
                    step(trainer, on_device(video))
                    evaluate(trainer, on_device(video))
                done.append(f"teacher, {contrast}, {name}")
            for model_type in ("bert", "roberta", "modernbert"):
                student = student_class(model_type)(student_config("tiny", tokenizer, model_type))
                student.add_objectives(OBJECTIVES, text.hidden_size)
                trainer = as_trained(DistillationTrainer, student, teacher.eval().requires_grad_(False))
                for batch in (ragged, full):
                    with precision(name):
                        step(trainer, on_device(batch))
                        evaluate(trainer, on_device(batch))
                done.append(f"{model_type} student, {name}")
            batch = on_device(video)
            with precision(name), torch.no_grad():
                bank = teacher.encode_video(batch["video_features"], batch["video_mask"])
                tokens = teacher.unit_tokens(teacher.encode_text(batch["input_ids"], batch["attention_mask"]))
                found = nearest_clips(tokens[0], bank, 2)
                assert all(part.device == DEVICE for part in found)
            done.append(f"grounding, {name}")
    print("\n".join(f"passed: {what}" for what in done))


if __name__ == "__main__":
    main()

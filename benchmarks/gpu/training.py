"""Small training runs on synthetic data, which the checks compare with each other."""

import tempfile
from pathlib import Path

import numpy as np
import torch
from step_variants import make_models
from transformers import BertTokenizer
from transformers.trainer_callback import PrinterCallback

from vidlankd_hf import (
    DistillationConfig,
    DistillationTrainer,
    TeacherConfig,
    TeacherTrainer,
    VidLanKDTeacher,
    VidLanKDTeacherConfig,
    bert_config,
)
from vidlankd_hf.models.configuration import video_config_like

FEATURES = 512
OBJECTIVES = {"nst": 1000.0, "crd": 1.0}


class Setup:
    """Sizes of the checks.

    Args:
        rehearse: Tiny sizes.
        device: `"cuda"` or `"cpu"`.
    """

    def __init__(self, rehearse: bool, device: str):
        self.device, self.rehearse = device, rehearse
        self.size, self.vocabulary = ("tiny", 400) if rehearse else ("small", 30522)
        self.block, self.batch, self.steps = (14, 4, 6) if rehearse else (126, 16, 20)
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(self.vocabulary - 5))]
        self.tokenizer = BertTokenizer(vocab={word: i for i, word in enumerate(words)})

    def texts(self, count: int, seed: int, ragged: bool) -> list[dict]:
        rng = np.random.default_rng(seed)
        lengths = rng.integers(self.block // 2, self.block + 1, count) if ragged else [self.block] * count
        return [{"input_ids": rng.integers(5, self.vocabulary, length, dtype=np.uint16)} for length in lengths]

    def clips(self, count: int, seed: int) -> list[dict]:
        rng, rows = np.random.default_rng(seed), []
        for i in range(count):
            text = " ".join(f"w{j}" for j in rng.integers(0, self.vocabulary - 5, rng.integers(4, self.block // 2)))
            features = rng.normal(size=(rng.integers(4, 24), FEATURES)).astype(np.float32)
            rows.append({"id": f"v{i}", "video": f"v{i // 2}", "text": text, "video_features": features})
        return rows

    def trained(self, kind: str, *args, **given):
        """Builds a trainer as [`trainer`] does, and trains."""
        trainer = self.trainer(kind, *args, **given)
        trainer.train()
        return trainer

    def trainer(self, kind: str, device: str | None = None, dropout=0.0, ragged=True, objectives=None, **given):
        """Builds the trainer of a new `"student"` or `"teacher"`, always with the same weights and data.

        Args:
            kind: What to train.
            device: Device to train on; default: the device of the checks.
            dropout: Dropout of all models.
            ragged: Whether the student's texts have different lengths, so that there are attention masks.
            objectives: Objectives of the student.
            given: Further training arguments.
        """
        device = self.device if device is None else device
        objectives = OBJECTIVES if objectives is None else objectives
        options = {
            "output_dir": tempfile.mkdtemp(), "max_steps": self.steps, "per_device_train_batch_size": self.batch,
            "per_device_eval_batch_size": self.batch, "logging_steps": 1, "save_strategy": "no", "seed": 5,
            "learning_rate": 1e-4, "report_to": "none", "disable_tqdm": True, "use_cpu": device == "cpu", **given,
        }  # fmt: skip
        count, held_out = self.batch * self.steps, self.batch * 2 + 1
        common = {"processing_class": self.tokenizer}
        if kind == "student":
            args = DistillationConfig(objectives=objectives, **options)
            teacher, student = make_models(self.size, self.size, objectives, self.tokenizer, dropout, "cpu")
            data = {"train_dataset": self.texts(count, 0, ragged), "eval_dataset": self.texts(held_out, 1, ragged)}
            trainer = DistillationTrainer(model=student, teacher_model=teacher, args=args, **data, **common)
            trainer.remove_callback(PrinterCallback)
            return trainer
        args = TeacherConfig(**options)
        torch.manual_seed(0)
        drop = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
        text = bert_config(self.size, self.tokenizer, **drop)
        config = VidLanKDTeacherConfig(text_config=text, video_config=video_config_like(text, FEATURES))
        data = {"train_dataset": self.clips(count, 0), "eval_dataset": self.clips(held_out, 1)}
        trainer = TeacherTrainer(model=VidLanKDTeacher(config), args=args, **data, **common)
        trainer.remove_callback(PrinterCallback)
        return trainer


def logs(trainer) -> list[dict]:
    """Losses, components and gradient norm of each step."""
    skipped = ("learning_rate", "epoch", "step")
    rows = [entry for entry in trainer.state.log_history if "loss" in entry]
    return [{name: value for name, value in row.items() if name not in skipped} for row in rows]


def difference(ours: list[dict], expected: list[dict]) -> float:
    """Largest relative difference of a logged value."""
    assert len(ours) == len(expected) and ours, f"{len(ours)} steps are logged, {len(expected)} are expected"
    pairs = [(a[name], b[name]) for a, b in zip(ours, expected) for name in b]
    return max(abs(a - b) / max(abs(b), 1e-8) for a, b in pairs)


def gradients(trainer) -> tuple[dict[str, float], torch.Tensor]:
    """Losses and gradient (all parameters in one vector, on the CPU) of the first batch."""
    model = trainer.accelerator.prepare_model(trainer.model)
    model.train()
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    loss, outputs = trainer.compute_loss(model, batch, return_outputs=True)
    loss.backward()
    flat = [p.grad.float().flatten().cpu() for _, p in sorted(trainer.model.named_parameters()) if p.grad is not None]
    return {"loss": loss.item(), **{name: value.item() for name, value in outputs.losses.items()}}, torch.cat(flat)


def folder_of(trainer) -> Path:
    return Path(trainer.args.output_dir)

"""The variants of a distillation step that `step.py` times, and the models that they train."""

import tempfile

import numpy as np
import torch
import torch.nn.functional as F
from transformers import DataCollatorForLanguageModeling

from vidlankd_hf import (
    DistillationConfig,
    DistillationTrainer,
    VidLanKDStudent,
    VidLanKDTeacher,
    VidLanKDTeacherConfig,
    bert_config,
    student_class,
    student_config,
)
from vidlankd_hf.models.configuration import video_config_like
from vidlankd_hf.models.heads import masked_logits, mlm_head, mlm_loss
from vidlankd_hf.models.student import unit_states

BLOCK = 126  # tokens of a block, without [CLS] and [SEP]


class Way:
    """One variant of the step, in parts: `collate, teach, encode, head, distill, update`."""

    def __init__(self, teacher: VidLanKDTeacher, student: VidLanKDStudent, tokenizer, objectives: dict, device, bf16):
        self.teacher, self.student, self.objectives, self.device = teacher, student, objectives, device
        self.bf16 = bf16
        self.optimizer = self.make_optimizer([p for p in student.parameters() if p.requires_grad])
        self.make_batch = DataCollatorForLanguageModeling(tokenizer)
        self.special = (tokenizer.cls_token_id, tokenizer.sep_token_id)

    def collate(self, rows: np.ndarray, epoch: int) -> dict:
        cls, sep = self.special
        return dict(self.make_batch([{"input_ids": [cls, *row.tolist(), sep]} for row in rows]))

    def on_device(self, batch: dict) -> dict:
        return {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}

    def encode(self, batch: dict) -> torch.Tensor:
        return self.student.base_model(batch["input_ids"], batch["attention_mask"]).last_hidden_state

    def head(self, states: torch.Tensor, batch: dict) -> torch.Tensor:
        """Logits at every position and cross-entropy at the masked ones, as in `BertForMaskedLM(labels=)`."""
        logits = mlm_head(self.student)(states)
        return F.cross_entropy(logits.flatten(0, 1).float(), batch["labels"].flatten())

    def distill(self, states: torch.Tensor, taught: torch.Tensor, batch: dict) -> torch.Tensor:
        total = 0.0
        for name, weight in self.objectives.items():
            student = F.normalize(self.student.distillation_heads[name].layers(states).float(), dim=-1)
            total = total + weight * getattr(self, name)(student, F.normalize(taught.float(), dim=-1))
        return total

    def autocast(self):
        return torch.autocast(self.device, torch.bfloat16, enabled=self.bf16)

    def step(self, batch: dict) -> torch.Tensor:
        """One training step on a batch that `collate` made."""
        batch = self.on_device(batch)
        with self.autocast():
            loss = self.loss(batch)
        loss.backward()
        self.update()
        return loss

    def loss(self, batch: dict) -> torch.Tensor:
        taught = self.teach(batch) if self.objectives else None
        states = self.encode(batch)
        loss = self.head(states, batch)
        return loss + self.distill(states, taught, batch) if self.objectives else loss

    def update(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()


class Original(Way):
    def make_optimizer(self, parameters):
        return torch.optim.AdamW(parameters, lr=1e-5, eps=1e-6, foreach=False, fused=False)

    def teach(self, batch):
        with torch.no_grad():
            states = self.teacher.encode_text(batch["input_ids"], batch["attention_mask"])
            self.teacher.text_model.cls(states)
        return torch.from_numpy(states.cpu().float().numpy()).to(self.device)

    def nst(self, student, teacher):
        total = 0.0
        for s, t in zip(student, teacher):
            s, t = F.normalize(s, dim=0).T, F.normalize(t, dim=0).T  # neurons [D, L]
            kernels = [(a[:, None] * b[None]).sum(-1).square().mean() for a, b in ((s, s), (s, t), (t, t))]
            total = total + kernels[0] - 2 * kernels[1] + kernels[2]
        return total / len(student)

    def crd(self, student, teacher):
        total, (size, length, _) = 0.0, student.shape
        for i in range(length):
            z = student[:, i] @ teacher[:, i].T / 0.07
            positive = torch.eye(size, dtype=torch.bool, device=z.device)
            total = total + F.softplus(-z[positive]).sum() + F.softplus(z[~positive]).sum()
        return total / (size * length)


class Stock(Way):
    def make_optimizer(self, parameters):
        return torch.optim.AdamW(parameters, lr=1e-5, fused=True)

    def teach(self, batch):
        with torch.no_grad():
            states = self.teacher.encode_text(batch["input_ids"], batch["attention_mask"])
            self.teacher.text_model.cls(states)
        return states

    def loss(self, batch):
        loss = super().loss(batch)
        torch.isnan(loss).item()  # Trainer's logging_nan_inf_filter, on by default, syncs for every loss
        return loss

    def nst(self, student, teacher):
        s, t = F.normalize(student, dim=1), F.normalize(teacher, dim=1)
        ss, st, tt = (torch.bmm(a.transpose(1, 2), b).square().mean((1, 2)) for a, b in ((s, s), (s, t), (t, t)))
        return (ss - 2 * st + tt).mean()

    def crd(self, student, teacher):
        z = torch.einsum("bld,cld->lbc", student, teacher) / 0.07
        positive = torch.eye(len(student), dtype=torch.bool, device=z.device)
        return F.softplus(torch.where(positive, -z, z)).sum(-1).mean()


class Ours(Way):
    compile_mode: str | None = None

    def __init__(self, teacher, student, tokenizer, objectives, device, bf16):
        self.teacher, self.student, self.objectives, self.device = teacher, student, objectives, device
        self.bf16 = bf16
        args = DistillationConfig(
            output_dir=tempfile.mkdtemp(), objectives=objectives, use_cpu=device == "cpu", report_to="none",
            learning_rate=1e-5, lr_scheduler_type="constant", bf16=bf16,
        )  # fmt: skip
        self.trainer = DistillationTrainer(
            model=student, teacher_model=teacher if objectives else None, args=args, processing_class=tokenizer,
            **self.data(tokenizer),
        )  # fmt: skip
        if self.compile_mode:
            for model in (student, *([teacher.text_model] if objectives else [])):
                encoder = torch.compile(model.base_model, mode=self.compile_mode)
                setattr(model, model.base_model_prefix, encoder)
        self.trainer.create_optimizer_and_scheduler(1)
        self.make_batch = self.trainer.data_collator
        self.model, self.optimizer = self.trainer.accelerator.prepare(student, self.trainer.optimizer)

    def data(self, tokenizer) -> dict:
        """The trainer's arguments about the data, which are only checked, never read."""
        return {"train_dataset": [{"input_ids": np.full(BLOCK, 5, np.uint16)}] * 2}

    def sample(self, row: np.ndarray) -> dict:
        return {"input_ids": row}

    def collate(self, rows, epoch):
        return self.make_batch([{**self.sample(row), "sample_id": i, "epoch": epoch} for i, row in enumerate(rows)])

    def step(self, batch):
        if self.compile_mode:
            torch.compiler.cudagraph_mark_step_begin()
        batch = self.on_device(batch)
        (batch,), items = self.trainer.get_batch_samples(iter([batch]), 1, self.trainer.args.device)
        loss = self.trainer.training_step(self.model, batch, items)
        self.trainer.accelerator.clip_grad_norm_(self.student.parameters(), self.trainer.args.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss

    def loss(self, batch):
        return self.trainer.compute_loss(self.model, self.trainer._prepare_inputs(batch))

    def teach(self, batch):
        return self.trainer.model_inputs(batch)["teacher_states"]

    def encode(self, batch):
        return self.student.base_model(batch["input_ids"]).last_hidden_state

    def head(self, states, batch):
        return mlm_loss(masked_logits(self.student, states, batch["masked_positions"]), batch["masked_labels"])

    def distill(self, states, taught, batch):
        taught, total = unit_states(taught), 0.0
        for name, weight in self.objectives.items():
            student = self.student.distillation_heads[name](states)
            with torch.autocast(self.device, enabled=False):
                loss = self.student.objectives[name](student, taught, torch.ones_like(batch["input_ids"]))
            total = total + weight * loss
        return total


class Compiled(Ours):
    compile_mode = "default"


class Graphs(Ours):
    compile_mode = "reduce-overhead"


WAYS = {
    "original": Original,
    "stock": Stock,
    "ours": Ours,
    "compiled": Compiled,
    "graphs": Graphs,
    "alone": Ours,
}


def make_models(
    teacher_size: str, size: str, objectives: dict, tokenizer, dropout: float, device: str, model_type: str = "bert"
):
    """Builds teacher and student, always with the same random weights. ModernBERT has no dropout."""
    torch.manual_seed(0)
    drop = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    text = bert_config(teacher_size, tokenizer, **drop)
    video = video_config_like(text, feature_size=8)
    video.num_hidden_layers = 1
    teacher = VidLanKDTeacher(VidLanKDTeacherConfig(text_config=text, video_config=video)).requires_grad_(False).eval()
    drop = {} if model_type == "modernbert" else drop
    student = student_class(model_type)(student_config(size, tokenizer, model_type, **drop))
    if objectives:
        student.add_objectives(objectives, text.hidden_size)
    return teacher.to(device), student.to(device).train()

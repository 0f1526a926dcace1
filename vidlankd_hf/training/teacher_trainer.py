"""Trains the teacher with a contrastive video-text loss and masked language modeling on captioned clips."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase
from transformers.hf_argparser import HfArg

from ..data.collators import VideoTextCollator
from ..data.vocabulary import check_vocabulary_size
from ..hub.model_cards import write_teacher_card
from ..models.teacher import VidLanKDTeacher
from ..reliability.trainer_options import check_trainer_arguments
from .arguments import PretrainingArguments
from .base_trainer import BaseTrainer
from .checks import check_model


@dataclass
class TeacherConfig(PretrainingArguments):
    """`TrainingArguments` of the teacher; the defaults are the paper's (AdamW at 5e-5, linear decay, no warm-up).

    Args:
        max_length: Maximum number of tokens in a text, special tokens included.
        max_video_length: Maximum number of steps in a clip; longer clips are subsampled evenly.
    """

    output_dir: str | None = HfArg(default="outputs/teacher", help="folder of the teacher")
    learning_rate: float = HfArg(default=5e-5, help="Initial learning rate of AdamW.")
    max_length: int = HfArg(default=128, help="maximum tokens per text, including [CLS] and [SEP]")
    max_video_length: int = HfArg(default=384, help="maximum steps per clip; longer clips are subsampled evenly")


class TeacherTrainer(BaseTrainer):
    """Trains a [`VidLanKDTeacher`] on captioned clips by contrast and MLM.

    Evaluation adds text-to-video and video-to-text recall at 1, 5 and 10 over the complete evaluation data.

    Args:
        model: The teacher.
        args: The arguments; `TeacherConfig()` if not given.
        train_dataset, eval_dataset: Data sets with the columns `id`, `text` and `video_features`, as
            [`load_video_text`] returns them, and `candidates` for the contrast `"mil_nce"`. `eval_dataset` may be a
            dict of several.
        processing_class: The teacher's tokenizer.
        kwargs: Other arguments of `transformers.Trainer`, such as `callbacks`.

    Raises:
        ValueError: At construction, if model, tokenizer and arguments do not fit, or an argument is not supported.

    Example:

        trainer = TeacherTrainer(model=teacher, args=TeacherConfig(), train_dataset=data, processing_class=tokenizer)
        trainer.train()
        trainer.save_model()
    """

    def __init__(
        self,
        model: VidLanKDTeacher,
        args: TeacherConfig | None = None,
        train_dataset=None,
        eval_dataset=None,
        processing_class: PreTrainedTokenizerBase | None = None,
        **kwargs,
    ):
        args = TeacherConfig() if args is None else args
        check_trainer_arguments({**kwargs, "args": args}, TeacherConfig)
        check_model(model)
        if not isinstance(model, VidLanKDTeacher):
            raise ValueError(f"the model is a {type(model).__name__}: TeacherTrainer trains a VidLanKDTeacher")
        if processing_class is None:
            raise ValueError("give the tokenizer as processing_class: it tokenizes the texts as they are read")
        if "contrast" in model.loss_terms and args.per_device_train_batch_size < 2:
            raise ValueError(
                f"per_device_train_batch_size is {args.per_device_train_batch_size}, but the contrast needs at "
                "least 2 samples in a batch"
            )
        model.config.vocabulary = check_vocabulary_size(processing_class, "teacher", model.config.vocab_size)
        collator = VideoTextCollator(
            processing_class,
            seed=args.seed,
            mlm_probability=args.mlm_probability,
            max_length=args.max_length,
            max_video_length=min(args.max_video_length, model.config.video_config.max_position_embeddings),
            feature_size=model.config.video_config.feature_size,
            check_negatives="contrast" in model.loss_terms,
            mil_candidates=model.config.mil_candidates if "contrast" in model.loss_terms else None,
        )
        kwargs.setdefault("data_collator", collator)
        super().__init__(model, args, train_dataset, eval_dataset, processing_class=processing_class, **kwargs)

    def evaluation_groups(self, dataset) -> list | None:
        if "contrast" not in self.model.loss_terms:
            return None
        if hasattr(dataset, "videos"):
            return dataset.videos()
        if "video" in (getattr(dataset, "column_names", None) or ()):
            return list(dataset.with_format(None)["video"])
        return list(range(len(dataset)))

    def model_inputs(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Inputs without those that no loss of the model reads: clips, or positions for the language-model head."""
        unread = () if "contrast" in self.model.loss_terms else ("video_features", "video_mask", "video_ids")
        unread += () if "mlm" in self.model.loss_terms else ("masked_positions", "masked_labels")
        return {name: value for name, value in inputs.items() if name not in unread}

    def collect(self, outputs, batch: dict[str, Tensor], real: int) -> dict[str, Tensor]:
        if outputs.video_embeds is None:
            return {}
        text, video = outputs.text_embeds[:real].float(), outputs.video_embeds[:real].float()
        return {"text": text, "video": video, "ids": batch["video_ids"][:real, None]}

    def collected_metrics(self, collected: list[dict[str, Tensor]]) -> dict[str, float]:
        if "contrast" not in self.model.loss_terms:
            return {}
        text, video, ids = (
            # Ranks may hold different numbers of samples; the zeros that pad them are dropped below.
            self.accelerator.gather(self.accelerator.pad_across_processes(torch.cat([c[name] for c in collected])))
            for name in ("text", "video", "ids")
        )
        real = text.abs().sum(-1) > 0
        text, video, ids = text[real], video[real], ids[real, 0]
        directions = {"text_to_video": (text, video), "video_to_text": (video, text)}
        return {f"{name}_r@{k}": v for name, pair in directions.items() for k, v in recall_at(*pair, ids).items()}

    def write_card(self, folder: Path) -> None:
        write_teacher_card(folder, self)


def recall_at(
    queries: Tensor, targets: Tensor, videos: Tensor, ranks: tuple[int, ...] = (1, 5, 10), rows: int = 2048
) -> dict[int, float]:
    """Share of queries whose own target is among the k with the highest inner products; ties count half.

    Args:
        queries, targets: `[N, D]`; `targets[i]` is the right answer for `queries[i]`.
        videos: `[N]`, the video of each. Other targets of the same video are not wrong answers.
        ranks: The values of k.
        rows: Queries per product, so that memory grows with N and not with its square.

    Returns:
        k -> share, from 0 to 1.
    """
    above = []
    for first in range(0, len(queries), rows):
        scores = queries[first : first + rows] @ targets.T
        siblings = videos[first : first + rows, None] == videos
        siblings.diagonal(first).fill_(False)
        own = scores.diagonal(first)[:, None].clone()
        scores.masked_fill_(siblings, -torch.inf)
        above.append((scores > own).sum(1) + ((scores == own).sum(1) - 1) / 2)
    return {k: (torch.cat(above) < k).float().mean().item() for k in ranks}

"""Collators: samples to batches with special tokens, padding, masked tokens and clips."""

from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from .fingerprint import hash64
from .masking import mask_tokens
from .teacher_batch import TeacherBatch
from .tokenization import control_tokens, tokenize


class _MaskingCollator:
    """Base of both collators: turns token ids of any lengths into a masked batch."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, seed: int = 0, mlm_probability: float = 0.15):
        # Looked up once: asking the tokenizer for every batch takes a tenth of a batch's time.
        self._ids = {name: getattr(tokenizer, f"{name}_token_id") for name in ("cls", "sep", "mask", "pad")}
        for name, token_id in self._ids.items():
            if token_id is None:
                raise ValueError(f"the tokenizer has no [{name.upper()}] token: use a BERT-like tokenizer")
        if not 0 < mlm_probability < 1:
            raise ValueError(f"mlm_probability is {mlm_probability}: give a share between 0 and 1, such as 0.15")
        self.tokenizer, self.seed, self.mlm_probability = tokenizer, seed, mlm_probability
        self._control = control_tokens(tokenizer)
        self.ordinary_ids = np.setdiff1d(np.arange(len(tokenizer)), tokenizer.all_special_ids)

    def _text_batch(
        self, sequences: list, samples: list[dict]
    ) -> tuple[dict[str, torch.Tensor], np.ndarray, np.ndarray]:
        """Returns a batch of texts, its tokens before masking, and which of them are neither special nor padding."""
        lengths = np.array([len(s) for s in sequences])
        tokens = np.full((len(sequences), lengths.max() + 2), self._ids["pad"], np.int64)
        places = np.arange(tokens.shape[1])
        padded = (lengths != lengths[0]).any()
        if padded:
            ordinary = (places > 0) & (places <= lengths[:, None])
            tokens[ordinary] = np.concatenate(sequences)
            tokens[np.arange(len(tokens)), lengths + 1] = self._ids["sep"]
        else:
            ordinary = np.broadcast_to((places > 0) & (places < len(places) - 1), tokens.shape)
            tokens[:, 1:-1] = np.concatenate(sequences).reshape(len(tokens), -1)
            tokens[:, -1] = self._ids["sep"]
        tokens[:, 0] = self._ids["cls"]
        masked, positions, labels = mask_tokens(
            tokens,
            ordinary,
            np.array([sample["sample_id"] for sample in samples]),
            np.array([sample["epoch"] for sample in samples]),
            seed=self.seed,
            mask_token_id=self._ids["mask"],
            ordinary_ids=self.ordinary_ids,
            probability=self.mlm_probability,
        )
        batch = {"input_ids": masked, "masked_positions": positions, "masked_labels": labels}
        if padded:  # attention is faster without a mask
            batch["attention_mask"] = (places <= lengths[:, None] + 1).astype(np.int64)
        return {name: torch.from_numpy(array) for name, array in batch.items()}, tokens, ordinary


class TextCollator(_MaskingCollator):
    """Turns blocks of token ids into masked batches.

    A sample is `{"input_ids": ids without special tokens, "sample_id", "epoch"}`, as [`EpochDataset`] over
    [`load_text_blocks`] yields it, optionally with `"voken_ids"`, one for each token. A batch has `input_ids` and
    `attention_mask` `[B, L]`, `masked_positions` and `masked_labels` `[B, M]`, and `voken_ids` `[B, L]`, which are
    -100 for special tokens and padding. `attention_mask` is left out if nothing is padded. With full blocks, L and M
    are the same in every batch.

    With `teacher_tokenizer`, samples are aligned blocks (see [`TeacherBatch`]), and a batch also has:

    - `segments` `[B, L]`: the segment of each of the student's tokens, 0, 1, ... in each block; -1 for none. [CLS] is
      the first segment and [SEP] the last, if the teacher's tokenizer adds special tokens at that end;
    - `segment_mask` `[B, S]`: 1 for the segments of a block, 0 in unused slots;
    - `teacher_input_ids` and `teacher_attention_mask` `[W, Lt]`: the teacher's windows of clean text, of all blocks,
      with its special tokens; the mask is left out if nothing is padded;
    - `teacher_positions` `[B, T]`: indices of the teacher's tokens of each block in the flattened `[W * Lt]`, in
      order, 0 in unused slots;
    - `teacher_segments` `[B, T]`: the segment of each of these tokens, -1 for none and in unused slots. The first
      special tokens of all windows of a block belong to [CLS], the last ones to [SEP].

    Args:
        tokenizer: A BERT-like tokenizer.
        seed: Seed of the masks.
        mlm_probability: Share of ordinary tokens to mask.
        teacher_tokenizer: The teacher's tokenizer, if it differs from the student's.
        causal_teacher: Whether that teacher is causal, so that its tokens see only those before them. The state of its
            first special token then does not depend on the text, and [CLS] is in no segment.
        clean_teacher_input: Add `teacher_input_ids` `[B, L]`, the tokens before masking, for a teacher that has the
            student's tokenizer.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        seed: int = 0,
        mlm_probability: float = 0.15,
        teacher_tokenizer: PreTrainedTokenizerBase | None = None,
        causal_teacher: bool = False,
        clean_teacher_input: bool = False,
    ):
        super().__init__(tokenizer, seed, mlm_probability)
        if teacher_tokenizer is not None and clean_teacher_input:
            raise ValueError(
                "clean_teacher_input is for a teacher with the student's tokenizer: leave it out, because a teacher "
                "with its own tokenizer always reads clean text"
            )
        self._teacher = None if teacher_tokenizer is None else TeacherBatch(teacher_tokenizer, causal_teacher)
        self.clean_teacher_input = clean_teacher_input

    def __call__(self, samples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch, tokens, ordinary = self._text_batch([sample["input_ids"] for sample in samples], samples)
        if "voken_ids" in samples[0]:
            vokens = [sample["voken_ids"] for sample in samples]
            if [len(ids) for ids in vokens] != ordinary.sum(1).tolist():
                raise ValueError("a text and its voken_ids have different lengths: give one voken for each token")
            voken_ids = np.full(ordinary.shape, -100)
            voken_ids[ordinary] = np.concatenate(vokens)
            batch["voken_ids"] = torch.from_numpy(voken_ids)
        if self.clean_teacher_input:
            batch["teacher_input_ids"] = torch.from_numpy(tokens)
        if self._teacher is not None:
            fields = self._teacher(samples, ordinary)
            batch |= {name: torch.from_numpy(array) for name, array in fields.items()}
        return batch


class VideoTextCollator(_MaskingCollator):
    """Turns captioned clips into masked batches.

    A sample is `{"text", "video_features" [T, F], "sample_id", "epoch"}`, optionally with `"video"`, the video it
    comes from (default: `"id"`). A batch has the fields of [`TextCollator`], `video_features` `[B, T, F]`,
    `video_mask` `[B, T]` and `video_ids` `[B]`. Samples of one video have equal `video_ids` and are never each other's
    negatives. Clips of more than `max_video_length` steps are subsampled evenly (a maximum of 1 takes the middle
    step).

    With `mil_candidates` N, a sample also has `"candidates"`: up to N - 1 texts around its own, in any order. A batch
    then has `candidate_input_ids` and `candidate_attention_mask` `[B, N - 1, L]` and `candidate_mask` `[B, N - 1]`,
    which is 0 where a sample has fewer. The masks of such a text are a pure function of (seed, epoch, text).

    Args:
        tokenizer: A BERT-like tokenizer.
        seed: Seed of the masks.
        mlm_probability: Share of ordinary tokens to mask.
        max_length: Maximum number of tokens of a text, including special tokens. Longer texts raise an error:
            [`load_video_text`] makes windows of the right length.
        max_video_length: Maximum number of steps of a clip.
        feature_size: Expected width F; checked if given.
        mil_candidates: N, for the contrast `"mil_nce"`. None ignores `"candidates"`.
        check_negatives: Whether a batch with samples of only one video is an error, as contrastive losses need.

    Raises:
        ValueError: A text is empty or too long, features have the wrong shape or width or are not finite, or all
            samples of a batch are of one video.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        seed: int = 0,
        mlm_probability: float = 0.15,
        max_length: int = 128,
        max_video_length: int = 384,
        feature_size: int | None = None,
        check_negatives: bool = True,
        mil_candidates: int | None = None,
    ):
        super().__init__(tokenizer, seed, mlm_probability)
        self.max_length, self.max_video_length, self.feature_size = max_length, max_video_length, feature_size
        self.check_negatives, self.mil_candidates = check_negatives, mil_candidates

    def __call__(self, samples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        names = [str(sample.get("video", sample.get("id", sample["sample_id"]))) for sample in samples]
        if self.check_negatives and len(samples) > 1 and len(set(names)) == 1:
            raise ValueError(
                f"all {len(samples)} samples of a batch are of the video {names[0]!r}, so there is no negative: "
                "give a larger --per_device_train_batch_size, or data with more videos"
            )
        sequences = self._tokenize([sample["text"] for sample in samples], samples)
        batch, *_ = self._text_batch(sequences, samples)
        if self.mil_candidates is not None and self.mil_candidates > 1:
            batch |= self._candidates(samples, self.mil_candidates - 1)
        clips = [self._clip(sample) for sample in samples]
        batch["video_features"] = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
        steps = torch.tensor([len(clip) for clip in clips])
        batch["video_mask"] = (torch.arange(int(steps.max())) < steps[:, None]).long()
        batch["video_ids"] = torch.tensor([hash64(name) >> 1 for name in names])  # 63 bits fit into int64
        return batch

    def _tokenize(self, texts: list[str], samples: list[dict]) -> list[list[int]]:
        """Token ids of a text of each sample."""
        sequences = tokenize(self.tokenizer, texts, self._control)
        for sample, sequence in zip(samples, sequences):
            if not 0 < len(sequence) <= self.max_length - 2:
                raise ValueError(
                    f"the text of sample {sample.get('id', sample['sample_id'])!r} has {len(sequence)} tokens, but 1 "
                    f"to {self.max_length - 2} are allowed: make windows with load_video_text(max_length=...)"
                )
        return sequences

    def _candidates(self, samples: list[dict], count: int) -> dict[str, torch.Tensor]:
        for sample in samples:
            found = None if sample.get("candidates") is None else len(sample["candidates"])
            if found is None or found > count:
                raise ValueError(
                    f"sample {sample.get('id', sample['sample_id'])!r} has {'no' if found is None else found} "
                    f"candidates, but the contrast mil_nce takes up to {count} texts around its own: load the data "
                    f"with load_video_text(mil_candidates={count + 1})"
                )
        owners = [sample for sample in samples for _ in sample["candidates"]]
        texts = [text for sample in samples for text in sample["candidates"]]
        present = np.arange(count) < np.array([len(sample["candidates"]) for sample in samples])[:, None]
        sequences: list[list[int]] = [[] for _ in range(present.size)]  # places without a text stay [CLS] [SEP]
        keys = [{"sample_id": 0, "epoch": 0} for _ in sequences]
        for place, text, ids, sample in zip(np.flatnonzero(present), texts, self._tokenize(texts, owners), owners):
            sequences[place], keys[place] = ids, {"sample_id": hash64(text) >> 1, "epoch": sample["epoch"]}
        batch, *_ = self._text_batch(sequences, keys)
        shape, mask = (len(samples), count, -1), torch.from_numpy(present.astype(np.int64))
        names = [name for name in ("input_ids", "attention_mask") if name in batch]
        return {**{f"candidate_{name}": batch[name].view(shape) for name in names}, "candidate_mask": mask}

    def _clip(self, sample: dict) -> torch.Tensor:
        features = torch.as_tensor(np.asarray(sample["video_features"], np.float32))
        name = sample.get("id", sample["sample_id"])
        if features.ndim != 2 or not len(features):
            raise ValueError(
                f"the video features of sample {name!r} have shape {list(features.shape)}, but [T, F] with at least "
                "one step is needed: extract them with extract_features"
            )
        if self.feature_size is not None and features.shape[1] != self.feature_size:
            raise ValueError(
                f"the video features of sample {name!r} have width {features.shape[1]}, but the teacher takes "
                f"{self.feature_size}: extract with the same models, or make a teacher for this width"
            )
        if not torch.isfinite(features).all():
            raise ValueError(f"the video features of sample {name!r} are not finite: extract this video again")
        if len(features) > self.max_video_length:
            steps = torch.linspace(0, len(features) - 1, self.max_video_length).round().long()
            features = features[steps if len(steps) > 1 else [len(features) // 2]]
        return features

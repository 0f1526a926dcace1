"""Runs of a seed before anything is trained: their commands, and the shapes of their models."""

import inspect
from functools import cached_property
from pathlib import Path

import torch
from transformers import AutoConfig

from ...data.features import FeatureStore
from ...data.vocabulary import load_tokenizer
from ...models.configuration import SIZES, VidLanKDTeacherConfig, bert_config, student_config, video_config_like
from ...models.student import student_class
from ...models.teacher import VidLanKDTeacher
from ...training.script_arguments import TeacherArguments
from ..ablations.runs import SeedRuns
from ..ablations.tables import ROWS, TEACHERS
from ..grid import ExperimentRun
from ..world.build import build_world

STREAM_WIDTH = 2048  # of the paper's features, if there are none yet


class PlannedRuns(SeedRuns):
    """The runs of a seed whose teachers need not exist: models have the shapes of the recipes and no weights."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._teachers, self._counted = dict[str, VidLanKDTeacher](), dict[str, float]()

    def student_run(self, name: str) -> ExperimentRun:
        options = self._student_options(name)
        return self._student_run(name, options, {**self.student_recipe, **options})

    def _text_config(self, teacher: Path):
        return self.teacher_model(teacher.name).config.text_config

    @cached_property
    def vocabulary(self) -> int:
        """Number of tokens of the teachers' tokenizer."""
        if self.world is None:
            return len(load_tokenizer(self.teacher_recipe["tokenizer"]))
        if (self.world / "tokenizer").is_dir():
            return len(load_tokenizer(str(self.world / "tokenizer")))
        default = inspect.signature(build_world).parameters["vocab_size"].default
        return int(self.world_recipe.get("vocab_size", default))

    def teacher_model(self, name: str) -> VidLanKDTeacher:
        """A teacher of `TEACHERS`."""
        if name not in self._teachers:
            self._teachers[name] = self._make_teacher(name)
        return self._teachers[name]

    def _make_teacher(self, name: str) -> VidLanKDTeacher:
        recipe = {**self.teacher_recipe, **TEACHERS[name]}
        size, names = recipe.get("text_model", TeacherArguments.text_model), TeacherArguments.__dataclass_fields__
        own = TeacherArguments(**{key: value for key, value in recipe.items() if key in names})
        text = (
            bert_config(size, vocab_size=self.vocabulary)
            if size in SIZES
            else AutoConfig.from_pretrained(size, trust_remote_code=False)
        )
        features = Path(self.teacher_recipe["features"] if self.world is None else self.world / "features")
        width = STREAM_WIDTH * len(own.streams or ("frame", "clip"))
        if features.is_dir():
            width = FeatureStore(features, own.streams).feature_size
        video = video_config_like(text, width)
        with torch.device("meta"):
            return VidLanKDTeacher(VidLanKDTeacherConfig(text_config=text, video_config=video, **own.design))

    def _sequence_flops(self, name: str) -> float:
        if name not in self._counted:
            self._counted[name] = super()._sequence_flops(name)
        return self._counted[name]

    def _models(self, name: str) -> tuple:
        row, recipe = ROWS[name], self.student_recipe
        teacher = self.teacher_model(row.teacher)
        size, model_type = recipe.get("student", "small"), recipe.get("student_model_type") or "bert"
        if row.continues_teacher:
            config = teacher.config.text_config
        elif size in SIZES:
            model_type = row.options.get("student_model_type", model_type)
            config = student_config(size, None, model_type, vocab_size=self.vocabulary)
        else:
            config = AutoConfig.from_pretrained(size, trust_remote_code=False)
        with torch.device("meta"):
            return student_class(config.model_type)(config), teacher

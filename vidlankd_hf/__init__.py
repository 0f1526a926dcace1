"""VidLanKD for Hugging Face: language models that learn from video."""

from importlib import import_module

from transformers import AutoConfig, AutoModel

from .models.configuration import VidLanKDTeacherConfig, VidLanKDVideoConfig, bert_config, student_config
from .models.load_teacher import load_teacher
from .models.student import VidLanKDModernBertStudent, VidLanKDRobertaStudent, VidLanKDStudent, student_class
from .models.teacher import VidLanKDTeacher

__version__ = "0.1.0"

AutoConfig.register("vidlankd_video", VidLanKDVideoConfig)
AutoConfig.register("vidlankd_teacher", VidLanKDTeacherConfig)
AutoModel.register(VidLanKDTeacherConfig, VidLanKDTeacher)
# A saved teacher includes its code: it loads with `trust_remote_code` where this package is not installed.
VidLanKDTeacherConfig.register_for_auto_class()
VidLanKDTeacher.register_for_auto_class("AutoModel")

# Imported on first use: the models need only torch and transformers.
_LAZY = {
    "DistillationConfig": "training.distillation_config",
    "DistillationTrainer": "training.distillation_trainer",
    "TeacherConfig": "training.teacher_trainer",
    "TeacherTrainer": "training.teacher_trainer",
    "TextCollator": "data.collators",
    "VideoTextCollator": "data.collators",
    "load_text_blocks": "data.text_blocks",
    "load_video_text": "data.video_text",
}
__all__ = [
    "VidLanKDModernBertStudent",
    "VidLanKDRobertaStudent",
    "VidLanKDStudent",
    "VidLanKDTeacher",
    "VidLanKDTeacherConfig",
    "VidLanKDVideoConfig",
    "bert_config",
    "load_teacher",
    "student_class",
    "student_config",
    *_LAZY,
]


def __getattr__(name):
    if name in _LAZY:
        return getattr(import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return [*globals(), *_LAZY]

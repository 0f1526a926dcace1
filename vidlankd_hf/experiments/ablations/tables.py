"""The ablations: teachers, rows (one student each), and the tables they appear in. A shared row is run only once."""

from dataclasses import dataclass, field, replace

from ..world.recipe import OBJECTIVES

# Settings in which each teacher differs from the default one.
TEACHERS = {
    "teacher": {},
    "text_teacher": {"losses": "mlm"},
    "contrast_teacher": {"losses": "contrast"},
    "hinge_teacher": {"contrast": "hinge"},
    "narrow_hinge_teacher": {"losses": "contrast", "contrast": "hinge", "margin": 0.2},
    "shuffled_teacher": {"shuffle_videos": True},
    "image_teacher": {"streams": ["frame"], "max_video_length": 1},
    "frame_teacher": {"streams": ["frame"]},
    "clip_teacher": {"streams": ["clip"]},
    "vokenizer": {"joint_size": 64},
    "vokenizer_hinge": {"joint_size": 64, "losses": "contrast", "contrast": "hinge", "margin": 0.5},
    "clip_model": {"architecture": "clip"},
    "shuffled_clip_model": {"architecture": "clip", "shuffle_videos": True},
}


@dataclass
class Row:
    """One student.

    Args:
        label: Name of the row in tables and figures.
        objectives: Objectives, as in [`DistillationConfig`].
        teacher: Name in `TEACHERS`.
        num_vokens: Number of vokens K; the teacher is then the vokenizer.
        continues_teacher: Whether the student starts from the teacher's text encoder.
        equal_compute: Whether the student trains for more steps, up to the FLOPs of the CRD student.
        steps_factor: Steps (or epochs) of training, as a multiple of the recipe's.
        byte_level: Whether the student has a byte-level BPE tokenizer, trained on the text, instead of the teacher's.
        options: Further options of `vidlankd distill`.
    """

    label: str
    objectives: dict = field(default_factory=dict)
    teacher: str = "teacher"
    num_vokens: int | None = None
    continues_teacher: bool = False
    equal_compute: bool = False
    steps_factor: int = 1
    byte_level: bool = False
    options: dict = field(default_factory=dict)


def _headless(name: str, weight: float) -> dict:
    return {name: {"weight": weight, "head": False}}


NST, CRD = OBJECTIVES["nst"], OBJECTIVES["crd"]
VOKEN, MASKED = {"voken": 1.0}, {"teacher_input": "masked"}
AT_NST, AT_CRD = f"NST (weight {NST['nst']:g})", f"CRD (weight {CRD['crd']:g})"
ROWS = {
    "text_only": Row("text only"),
    "text_only_equal_compute": Row("text only, equal compute", equal_compute=True),
    "continue": Row("teacher's text encoder, trained on text", continues_teacher=True),
    "soft_label": Row("soft labels", {"soft_label": 1.0}, options=MASKED),
    "regression": Row("regression", {"regression": 1.0}),
    "regression_headless": Row("regression, no head", _headless("regression", 1.0)),
    "nst": Row(AT_NST, NST),
    "nst_headless": Row(f"{AT_NST}, no head", _headless("nst", NST["nst"])),
    "nst_tokens": Row(f"{AT_NST}, token axis", {"nst": {"weight": NST["nst"], "axis": "tokens"}}),
    "nst_tokens_headless": Row(
        "NST (weight 3), token axis, no head", {"nst": {"weight": 3.0, "axis": "tokens", "head": False}}
    ),
    **{f"nst_at_{weight}": Row(f"NST (weight {weight})", {"nst": float(weight)}) for weight in (1, 100, 1000, 10000)},
    "crd": Row(AT_CRD, CRD),
    "crd_headless": Row(f"{AT_CRD}, no head", _headless("crd", CRD["crd"])),
    **{f"crd_at_{weight}": Row(f"CRD (weight {weight})", {"crd": float(weight)}) for weight in ("0.3", "5")},
    "infonce": Row("InfoNCE (weight 1)", {"infonce": 1.0}),
    "nst+crd": Row(f"{AT_NST} + {AT_CRD}", {**NST, **CRD}),
    "regression+crd": Row("regression, no head + CRD (weights 0.5)", {**_headless("regression", 0.5), "crd": 0.5}),
    "regression+infonce": Row(
        "regression, no head + InfoNCE (weights 0.5)", {**_headless("regression", 0.5), "infonce": 0.5}
    ),
    "by_text_teacher": Row("CRD, teacher: captions only (MLM)", CRD, "text_teacher"),
    "by_contrast_teacher": Row("CRD, teacher: contrast only", CRD, "contrast_teacher"),
    "by_hinge_teacher": Row("CRD, teacher: paper's hinge loss", CRD, "hinge_teacher"),
    "by_narrow_hinge_teacher": Row("CRD, teacher: hinge only, margin 0.2", CRD, "narrow_hinge_teacher"),
    "by_shuffled_teacher": Row("CRD, teacher: shuffled captions", CRD, "shuffled_teacher"),
    "by_image_teacher": Row("CRD, teacher: one frame per clip", CRD, "image_teacher"),
    "by_frame_teacher": Row("CRD, teacher: frame features (2D)", CRD, "frame_teacher"),
    "by_clip_teacher": Row("CRD, teacher: clip features (3D)", CRD, "clip_teacher"),
    **{f"voken_{k}": Row(f"vokens, K = {k}", VOKEN, "vokenizer", num_vokens=k) for k in (30, 300, 3000)},
    "by_vokenizer": Row("CRD, teacher: the vokenizer", CRD, "vokenizer"),
    "voken_hinge": Row("vokens, K = 300, hinge vokenizer", VOKEN, "vokenizer_hinge", num_vokens=300),
}
ROWS |= {
    f"{name}_twice": replace(ROWS[name], label=f"{ROWS[name].label}, twice the steps", steps_factor=2)
    for name in (
        "text_only",
        "nst",
        "nst_tokens_headless",
        "crd",
        "regression_headless",
        "regression+crd",
        "regression+infonce",
    )
}
# Students of a CLIP, which has another tokenizer than they have.
ROWS |= {
    "clip_crd": Row("CRD, teacher: a CLIP", CRD, "clip_model"),
    "clip_nst": Row(f"{AT_NST}, teacher: a CLIP", NST, "clip_model"),
    "clip_shuffled": Row("CRD, teacher: a CLIP, shuffled captions", CRD, "shuffled_clip_model"),
}
# Students of other model types, with the teacher's tokenizer and with one of their own.
MODEL_TYPES = {"roberta": "RoBERTa", "modernbert": "ModernBERT"}
LEARNING = {
    "text_only": ("text only", {}, "teacher"),
    "nst": (AT_NST, NST, "teacher"),
    "crd": (AT_CRD, CRD, "teacher"),
    "shuffled": ("CRD, shuffled captions", CRD, "shuffled_teacher"),
}
ROWS |= {
    f"{model_type}_{'bpe_' if byte_level else ''}{name}": Row(
        f"{MODEL_TYPES[model_type]}, {'own' if byte_level else 'same'} tokenizer: {label}",
        objectives,
        teacher,
        byte_level=byte_level,
        options={"student_model_type": model_type},
    )
    for model_type in MODEL_TYPES
    for byte_level in (False, True)
    for name, (label, objectives, teacher) in LEARNING.items()
    if byte_level or name != "shuffled"  # the control of a common tokenizer is `by_shuffled_teacher`
}
ROWS |= {
    f"{name}_masked": Row(f"{ROWS[name].label}, teacher reads masked tokens", ROWS[name].objectives, options=MASKED)
    for name in ("nst", "crd")
}
TABLES = {
    "objectives": (
        "Distillation objectives",
        "text_only text_only_equal_compute soft_label regression voken_30 voken_3000 nst crd infonce nst+crd "
        "regression+crd".split(),
    ),
    "teacher": (
        "Teacher training",
        "text_only by_text_teacher by_shuffled_teacher by_hinge_teacher by_narrow_hinge_teacher by_contrast_teacher "
        "crd".split(),
    ),
    "video": ("Text, images or video", "text_only by_text_teacher by_image_teacher crd".split()),
    "features": ("Teacher input features", "text_only by_frame_teacher by_clip_teacher crd".split()),
    "heads": (
        "Distillation head and NST axis",
        "nst nst_headless nst_tokens nst_tokens_headless crd crd_headless regression regression_headless".split(),
    ),
    "continue": ("Distillation, or training the teacher itself on the text", "text_only continue crd".split()),
    "vokens": (
        "Vokens (number of clips K), compared with distilled states",
        "text_only voken_30 voken_300 voken_3000 voken_hinge by_vokenizer crd".split(),
    ),
    "weights": (
        "Objective weights",
        "nst_at_1 nst_at_100 nst_at_1000 nst nst_at_10000 crd_at_0.3 crd crd_at_5".split(),
    ),
    "steps": (
        "Longer training",
        "text_only text_only_twice nst nst_twice nst_tokens_headless nst_tokens_headless_twice crd crd_twice "
        "regression_headless regression_headless_twice regression+crd regression+crd_twice "
        "regression+infonce regression+infonce_twice".split(),
    ),
    "tokenizer": (
        "A teacher with another tokenizer than the student",
        [name for name in ROWS if name.startswith(tuple(f"{model_type}_" for model_type in MODEL_TYPES))],
    ),
    "input": (
        "What the teacher reads: the student's masked tokens, or clean text",
        "nst nst_masked crd crd_masked".split(),
    ),
    "clip": (
        "A CLIP as the teacher",
        "text_only by_image_teacher clip_crd clip_nst clip_shuffled".split(),
    ),
}
WORLD_TABLES = ("clip",)  # their teachers are trained on the videos of the grounded world

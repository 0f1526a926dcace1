"""What is compared: teachers, rows (each a student), and the tables they stand in. A row of several is run once."""

from dataclasses import dataclass, field

# Settings of pretrain_teacher.py that set a teacher apart from the default one.
TEACHERS = {
    "teacher": {},
    "text_teacher": {"losses": "mlm"},
    "contrast_teacher": {"losses": "contrast"},
    "hinge_teacher": {"contrast": "hinge"},
    "shuffled_teacher": {"shuffle_videos": True},
    "image_teacher": {"streams": ["frame"], "max_video_length": 1},
    "frame_teacher": {"streams": ["frame"]},
    "clip_teacher": {"streams": ["clip"]},
    "vokenizer": {"joint_size": 64},
    "vokenizer_hinge": {"joint_size": 64, "losses": "contrast", "contrast": "hinge", "margin": 0.5},
}


@dataclass
class Row:
    """One student.

    Args:
        what: The name of the row.
        objectives: As [`DistillationConfig`] takes them.
        teacher: Of `TEACHERS`.
        num_vokens: K, where it learns vokens; the teacher is then the vokenizer.
        continues_teacher: Starts as the teacher's text encoder.
        equal_compute: Text only, for as many more steps as CRD's other products would have cost.
    """

    what: str
    objectives: dict = field(default_factory=dict)
    teacher: str = "teacher"
    num_vokens: int | None = None
    continues_teacher: bool = False
    equal_compute: bool = False


def _headless(name: str, weight: float) -> dict:
    return {name: {"weight": weight, "head": False}}


CRD, VOKEN = {"crd": 1.0}, {"voken": 1.0}
ROWS = {
    "text_only": Row("text only, equal steps"),
    "text_only_equal_compute": Row("text only, equal compute", equal_compute=True),
    "continue": Row("the teacher's text encoder, text only", continues_teacher=True),
    "soft_label": Row("soft label", {"soft_label": 1.0}),
    "regression": Row("regression", {"regression": 1.0}),
    "regression_headless": Row("regression, no head", _headless("regression", 1.0)),
    "nst": Row("NST x 1000", {"nst": 1000.0}),
    "nst_headless": Row("NST x 1000, no head", _headless("nst", 1000.0)),
    "nst_tokens": Row("NST x 1000, tokens over neurons", {"nst": {"weight": 1000.0, "axis": "tokens"}}),
    "nst_at_1": Row("NST x 1", {"nst": 1.0}),
    "nst_at_10": Row("NST x 10", {"nst": 10.0}),
    "nst_at_100": Row("NST x 100", {"nst": 100.0}),
    "nst_at_10000": Row("NST x 10000", {"nst": 10000.0}),
    "crd": Row("CRD", CRD),
    "crd_headless": Row("CRD, no head", _headless("crd", 1.0)),
    "crd_at_0.1": Row("CRD x 0.1", {"crd": 0.1}),
    "crd_at_10": Row("CRD x 10", {"crd": 10.0}),
    "infonce": Row("InfoNCE", {"infonce": 1.0}),
    "nst+crd": Row("NST x 1000 + CRD", {"nst": 1000.0, "crd": 1.0}),
    "by_text_teacher": Row("CRD, teacher: MLM on the captions", CRD, "text_teacher"),
    "by_contrast_teacher": Row("CRD, teacher: contrast", CRD, "contrast_teacher"),
    "by_hinge_teacher": Row("CRD, teacher: the paper's hinge + MLM", CRD, "hinge_teacher"),
    "by_shuffled_teacher": Row("CRD, teacher: shuffled videos", CRD, "shuffled_teacher"),
    "by_image_teacher": Row("CRD, teacher: one frame a clip", CRD, "image_teacher"),
    "by_frame_teacher": Row("CRD, teacher: frame features (2D)", CRD, "frame_teacher"),
    "by_clip_teacher": Row("CRD, teacher: clip features (3D)", CRD, "clip_teacher"),
    "voken_30": Row("voken, K = 30", VOKEN, "vokenizer", num_vokens=30),
    "voken_300": Row("voken, K = 300", VOKEN, "vokenizer", num_vokens=300),
    "voken_3000": Row("voken, K = 3000", VOKEN, "vokenizer", num_vokens=3000),
    "by_vokenizer": Row("CRD, teacher: the vokenizer", CRD, "vokenizer"),
    "voken_hinge": Row("voken, K = 300, vokenizer by hinge", VOKEN, "vokenizer_hinge", num_vokens=300),
}
TABLES = {
    "objectives": (
        "What the student learns by",
        "text_only text_only_equal_compute soft_label regression voken_30 voken_3000 nst crd infonce nst+crd".split(),
    ),
    "teacher": (
        "What the teacher learned by",
        "text_only by_text_teacher by_shuffled_teacher by_hinge_teacher by_contrast_teacher crd".split(),
    ),
    "video": ("Text, images or video", "text_only by_text_teacher by_image_teacher crd".split()),
    "features": ("Features that the teacher sees", "text_only by_frame_teacher by_clip_teacher crd".split()),
    "heads": (
        "The distillation head, and the axis of NST",
        "nst nst_headless nst_tokens crd crd_headless regression regression_headless".split(),
    ),
    "continue": ("Distillation, or the teacher itself trained on the text", "text_only continue crd".split()),
    "vokens": (
        "Vokens: how many clips, against distilled states",
        "text_only voken_30 voken_300 voken_3000 voken_hinge by_vokenizer crd".split(),
    ),
    "weights": (
        "Weights of the objectives",
        "nst_at_1 nst_at_10 nst_at_100 nst nst_at_10000 crd_at_0.1 crd crd_at_10".split(),
    ),
}

"""A name that a user mistypes: the error lists what is allowed and suggests the nearest."""

from types import SimpleNamespace

import pytest
from helpers import refusal

from vidlankd_hf import DistillationConfig
from vidlankd_hf.data.caption_tables import parse_columns
from vidlankd_hf.data.captions import read_captions
from vidlankd_hf.data.text_blocks import load_text
from vidlankd_hf.models.objectives import objectives_recipe
from vidlankd_hf.training.build import build_teacher
from vidlankd_hf.training.script_arguments import StudentArguments, TeacherArguments


def table(folder) -> str:
    (folder / "captions.csv").write_text("clip_id,text\na,we see it\n")
    return str(folder / "captions.csv")


def lines(folder) -> str:
    (folder / "text.jsonl").write_text('{"text": "we see it"}\n')
    return str(folder / "text.jsonl")


@pytest.mark.parametrize(
    "use, near",
    [
        (lambda path: objectives_recipe({"nts": 1.0}), "nst"),
        (lambda path: DistillationConfig("x", teacher_pooling="maen"), "mean"),
        (lambda path: DistillationConfig("x", matmul_precision="hihgest"), "highest"),
        (lambda path: TeacherArguments(contrast="hinge_bach"), "hinge_batch"),
        (lambda path: TeacherArguments(losses="contrast+mln"), "contrast\\+mlm"),
        (lambda path: StudentArguments(student_model_type="robberta"), "roberta"),
        (lambda path: StudentArguments(attn_implementation="spda"), "sdpa"),
        (lambda path: build_teacher("smal", None, SimpleNamespace(feature_size=4)), "small"),
        (lambda path: read_captions(table(path), format="webvd"), "webvid"),
        (lambda path: parse_columns(["vidoe=clip", "text=text"]), "video"),
        (lambda path: read_captions(table(path), columns=["video=clipid", "text=text"]), "clip_id"),
        (lambda path: load_text(lines(path), text_column="txt"), "text"),
    ],
)
def test_a_mistyped_name_gets_the_nearest(tmp_path, use, near):
    with pytest.raises(ValueError, match=rf"did you mean {near}\?"):
        use(tmp_path)


def test_a_mistyped_table_gets_the_nearest(monkeypatch, capsys):
    assert refusal(monkeypatch, "ablate", "--table", "objectivs") == "2"
    assert "did you mean objectives?" in capsys.readouterr().err

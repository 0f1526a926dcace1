"""Real captions and text, if VIDLANKD_DATA names a folder with them."""

import json
import lzma
import subprocess
import sys
from pathlib import Path

import pytest
from captioned_videos import write_features
from helpers import make_tokenizer
from real_data import DATA, needs_data

from vidlankd_hf import load_video_text
from vidlankd_hf.data.captions import read_captions
from vidlankd_hf.data.text_blocks import load_text
from vidlankd_hf.inspection.inspect import sample_clips


@needs_data
def test_real_captions_are_read_completely():
    captions = read_captions(DATA / "videos" / "captions.jsonl")
    assert len(captions) == 116 and len({c.video for c in captions}) == 33


@needs_data
@pytest.mark.parametrize(
    "file, count, videos",
    [
        ("activitynet/train.json.xz", 37_421, 10_009),
        ("activitynet/val_1.json.xz", 17_505, 4_917),
        ("activitynet/val_2.json.xz", 17_031, 4_885),
        ("youcook2/youcookii_annotations_trainval.json.xz", 13_829, 1_790),
        ("msvd/sents_train_lc_nopunc.txt.xz", 48_774, 1_200),
        ("msvd/sents_val_lc_nopunc.txt.xz", 4_290, 100),
        ("msvd/sents_test_lc_nopunc.txt.xz", 27_763, 670),
    ],
)
def test_real_annotations_are_recognized_and_read_completely(file, count, videos):
    captions = read_captions(DATA / "captions" / file)
    assert len(captions) == count and len({c.video for c in captions}) == videos
    assert all(c.text and 0 <= c.start and (c.end is None or c.end > c.start) for c in captions)


@needs_data
def test_real_clips_are_shown_with_their_captions(tmp_path):
    """One file has a frame wrongly marked as key frame, another a title that is not UTF-8."""
    paths = sorted(p for p in (DATA / "videos").iterdir() if p.suffix != ".jsonl")
    features = write_features(tmp_path / "features", {path.name: 46.0 for path in paths})
    dataset = load_video_text(features, DATA / "videos" / "captions.jsonl", make_tokenizer())
    clips = sample_clips(dataset, DATA / "videos", count=len(dataset), num_frames=1)
    assert {clip.video for clip in clips} == {path.name for path in paths}
    assert all(clip.problem is None and len(clip.frames) == 1 for clip in clips)


@needs_data
def test_real_compressed_text_is_read_line_by_line():
    path = DATA / "text" / "wikitext2-test.txt.xz"
    with lzma.open(path, "rt") as file:
        lines = file.read().splitlines()
    texts = load_text(str(path))["text"][:]
    assert [t for t in texts if t.strip()] == [line for line in lines if line.strip()]


@pytest.mark.slow
@needs_data
def test_real_text_is_vokenized_by_a_vokenizer_of_real_videos(tiny_world, tmp_path):
    """Every step accepts real input; backbone and vokenizer are hardly trained."""
    videos = sorted(
        (p for p in (DATA / "videos").iterdir() if p.suffix in (".mp4", ".webm")), key=lambda p: p.stat().st_size
    )
    names = {path.stem for path in videos[:8]}
    (tmp_path / "videos").mkdir()
    for path in videos[:8]:
        (tmp_path / "videos" / path.name).symlink_to(path)
    lines = (DATA / "videos" / "captions.jsonl").read_text().splitlines()
    kept = [line for line in lines if Path(json.loads(line)["video"]).stem in names]
    (tmp_path / "captions.jsonl").write_text("\n".join(kept) + "\n")

    def run(script, **options):
        arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        command = [sys.executable, str(Path(__file__).parents[2] / "examples" / script), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]

    data = {"features": tmp_path / "features", "captions": tmp_path / "captions.jsonl"}
    text = {"text": DATA / "text" / "wikitext2-test.txt.xz", "cache_dir": tmp_path / "cache"}
    quick = {"max_steps": 3, "report_to": "none", "use_cpu": "true", "per_device_train_batch_size": 2}
    quick |= {"per_device_eval_batch_size": 2}
    frame_model = tiny_world / "backbones" / "frame"
    run("extract_features.py", videos=tmp_path / "videos", output_dir=data["features"], frame_model=frame_model)
    vokenizer = tmp_path / "vokenizer"
    run("pretrain_teacher.py", **data, **quick, tokenizer=tiny_world / "tokenizer", text_model="tiny", joint_size=8,
        held_out_videos=0.3, output_dir=vokenizer)  # fmt: skip
    run("vokenize.py", **data, **text, vokenizer=vokenizer, num_vokens=6, output_dir=tmp_path / "vokens")
    run("distill.py", **text, **quick, teacher=vokenizer, vokens=tmp_path / "vokens", student="tiny",
        objectives='{"voken": 1}', output_dir=tmp_path / "student")  # fmt: skip
    state = json.loads((tmp_path / "student" / "trainer_state.json").read_text())
    assert any(0 < entry.get("eval_voken_loss", 0) < 3 for entry in state["log_history"])

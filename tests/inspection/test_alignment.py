"""The offset between captions and picture is found where there is one, and none is claimed where there is none."""

import json

import numpy as np
import pytest
import torch
from captioned_videos import caption, write_captions, write_features
from helpers import FEATURE_SIZE, make_teacher, make_tokenizer
from PIL import Image

from vidlankd_hf.data.captions import read_captions
from vidlankd_hf.data.features import FeatureStore, ShardWriter
from vidlankd_hf.data.pairing import pair_captions
from vidlankd_hf.inspection.alignment import (
    OFFSETS,
    advantages,
    load_encoders,
    measure_alignment,
    sample_captions,
    summarize_alignment,
    write_alignment,
)

SECONDS = 60


def scene(seconds: torch.Tensor, video) -> torch.Tensor:
    """Unit vectors that turn with the time of a video and that differ between videos."""
    angle = 0.4 * seconds.double() + 2.0 * torch.as_tensor(video).double()
    return torch.stack([angle.cos(), angle.sin()], -1)


def encode_texts(texts):
    """The word `word17` of video 3 is about what is to be seen in second 17 of it: "word17 word3"."""
    second, video = (torch.tensor([int(text.split()[k][4:]) for text in texts]) for k in (0, 1))
    return scene(second + 1.0, video)


def encode_clips(clips):
    """A clip's features are seconds and the number of the video, as `write_features` writes them."""
    return torch.stack([scene(clip[:, 0] + 0.5, clip[:, 1]).mean(0) for clip in clips])


def measure(folder, late, encode=(encode_texts, encode_clips), videos=8):
    """Alignment of captions of two seconds that come `late` seconds after what they name."""
    names = [f"v{number}.mp4" for number in range(videos)]
    features = write_features(folder / "features", {name: float(SECONDS) for name in names})
    rows = [
        caption(name, second + late, second + late + 2, f"word{second} word{number}")
        for number, name in enumerate(names)
        for second in range(12, SECONDS - 14, 3)
    ]
    store = FeatureStore(features)
    pairs = pair_captions(store, read_captions(write_captions(folder / "captions.jsonl", rows)))
    return measure_alignment((*encode, make_tokenizer()), features, None, pairs, max_length=8), store, pairs


@pytest.mark.parametrize(
    "late, sentence",
    [
        (2.0, "Captions come 2.0 s after the picture."),
        (-3.5, "Captions come 3.5 s before the picture."),
        (0.0, "Captions come at the same time as the picture."),
        (10.0, "Captions come 10.0 s or more after the picture."),
    ],
)
def test_captions_shifted_on_purpose_are_found_at_their_offset(tmp_path, late, sentence):
    summary, _, _ = measure(tmp_path, late)
    assert summary["sentence"] == sentence and summary["peak"] == -late
    write_alignment(summary, tmp_path)
    assert json.loads((tmp_path / "alignment.json").read_text()) == summary
    pixels = np.asarray(Image.open(tmp_path / "alignment.png").convert("RGB")).reshape(-1, 3).astype(int)
    assert (np.abs(pixels - [0x2F, 0x6F, 0xAB]).sum(1) < 30).sum() > 200, "the curve is drawn"


def test_no_offset_is_claimed_if_the_similarity_does_not_depend_on_the_time(tmp_path):
    def of_the_video_alone(texts):
        return torch.nn.functional.one_hot(torch.tensor([int(text.split()[1][4:]) for text in texts]), 8).double()

    def clip_of_the_video_alone(clips):
        return torch.nn.functional.one_hot(torch.stack([clip[0, 1] for clip in clips]).long(), 8).double()

    summary, _, _ = measure(tmp_path, 2.0, (of_the_video_alone, clip_of_the_video_alone))
    assert summary["peak"] is None and summary["sentence"].startswith("No offset fits")
    assert set(summary["similarity"]) == {1.0}


def test_no_offset_is_claimed_from_noise():
    random = np.random.default_rng(0)
    for _ in range(20):
        summary = summarize_alignment(random.normal(0.3, 1, (len(OFFSETS), 200)), [str(i // 4) for i in range(200)])
        assert summary["peak"] is None


def test_advantages_equal_naive_loops_and_leave_out_clips_outside_the_video(tmp_path):
    _, store, pairs = measure(tmp_path, 9.0, videos=3)
    captions = sample_captions(pairs, make_tokenizer(), 6, count=20)
    found = advantages(captions, store, encode_texts, encode_clips)
    assert found.shape == (len(OFFSETS), 20) and np.isnan(found).any() and np.isfinite(found[20]).all()
    texts = encode_texts([c.text for c in captions])
    for o in (0, 20, 25, 40):
        inside = [
            i for i, c in enumerate(captions) if c.start + OFFSETS[o] >= 0 and c.end + OFFSETS[o] <= SECONDS
        ]  # fmt: skip
        clips = {
            i: encode_clips([store.read(captions[i].video, captions[i].start + OFFSETS[o],
                                        captions[i].end + OFFSETS[o])[0]])[0]
            for i in inside
        }  # fmt: skip
        for i in range(20):
            others = [texts[i] @ clips[j] for j in inside if captions[j].video != captions[i].video]
            expected = texts[i] @ clips[i] - sum(others) / len(others) if i in clips else torch.nan
            assert found[o, i] == pytest.approx(float(expected), abs=1e-9, nan_ok=True)


def test_captions_of_one_video_are_refused(tmp_path):
    with pytest.raises(ValueError, match="captions of 1 video were.*2 videos or more"):
        measure(tmp_path, 0.0, videos=1)


def test_a_teachers_encoders_are_those_it_was_trained_with(tmp_path):
    tokenizer = make_tokenizer()
    teacher = make_teacher(tokenizer).eval()
    teacher.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    encode_texts, encode_clips, _ = load_encoders(tmp_path)
    clips = [torch.randn(steps, FEATURE_SIZE).half() for steps in (3, 1)]
    ids = torch.tensor([[2, 6, 7, 3], [2, 8, 3, 0]])
    mask, features = (ids != 0).long(), torch.zeros(2, 3, FEATURE_SIZE)
    features[0], features[1, :1] = clips
    with torch.no_grad():
        expected = teacher(ids, mask, features, torch.tensor([[1, 1, 1], [1, 0, 0]]))
        torch.testing.assert_close(encode_texts(["word1 word2", "word3"]).cpu(), expected.text_embeds)
        torch.testing.assert_close(encode_clips(clips).cpu(), expected.video_embeds)


def test_a_teacher_without_video_encoder_is_refused(tmp_path):
    make_teacher(make_tokenizer(), losses="mlm").save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no video encoder.*losses='contrast\\+mlm'"):
        load_encoders(tmp_path)


def test_features_of_another_width_than_the_teachers_are_refused(tmp_path):
    """A stream that the teacher does not see is an error that names both widths."""
    writer = ShardWriter(tmp_path / "f", {"frame": {"model": "none", "rate": 1.0, "clip_length": 1}})
    for name in ("a", "b"):
        writer.add(name, 9.0, {"frame": (torch.randn(9, FEATURE_SIZE + 1).half(), torch.arange(9) + 0.5)})
    writer.close()
    make_teacher(make_tokenizer()).save_pretrained(tmp_path / "t")
    make_tokenizer().save_pretrained(tmp_path / "t")
    store = FeatureStore(tmp_path / "f")
    rows = [caption(name, 1, 3) for name in ("a", "b")]
    pairs = pair_captions(store, read_captions(write_captions(tmp_path / "c.jsonl", rows)))
    with pytest.raises(ValueError, match="width 7.*expects 6"):
        measure_alignment(load_encoders(tmp_path / "t"), tmp_path / "f", None, pairs, max_length=8)

from pathlib import Path

import pytest

from vidlankd_hf.data.caption_formats import FORMATS
from vidlankd_hf.data.captions import Caption, read_captions

FIXTURES = Path(__file__).parent / "fixtures"  # by hand, after the published layouts that docs/data.md links
YOUTUBE, EGO4D = "aaaaaaaaaaa", "001e3e4e-2743-47fc-8564-d5efd11f9e90"
EXPECTED = {
    "msrvtt": [("video0", 0.0, None, "a car drives"), ("video0", 0.0, None, "a car is shown")],
    "vatex": [
        ("a_b-cdefghi_000010_000020", 0.0, None, "a man runs"),
        ("a_b-cdefghi_000010_000020", 0.0, None, "someone runs"),
    ],
    "vatex_youtube": [("a_b-cdefghi", 10.0, 20.0, "a man runs"), ("a_b-cdefghi", 10.0, 20.0, "someone runs")],
    "webvid": [("21179416", 0.0, None, "Aerial shot, winter forest")],
    "internvid": [(YOUTUBE, 19.92, 29.92, "a man cuts wood")],
    "panda70m": [(YOUTUBE, 8.0, 16.5, "A red car."), (YOUTUBE, 60.0, 64.2, "A man's hand.")],
    "htm_aa": [
        ("6yooogsTG8k", 282.4, 285.6, "and starting with pink i'm just going to knead that"),
        ("6yooogsTG8k", 0.0, 2.6, "hello"),
    ],
    "sentencified_htm": [(YOUTUBE, 1.5, 4.0, "we cut the onion."), (YOUTUBE, 4.0, 6.25, "then we fry it.")],
    "ego4d": [
        (EGO4D, 3.3445, 5.5, "#C C picks a bag"),
        (EGO4D, 3.3445, 5.5, "#C C looks"),
        (EGO4D, 5.5, None, "#C C walks"),
    ],
    "howto100m": [(YOUTUBE, 0.0, 2.0, "hey guys"), (YOUTUBE, 2.0, 4.0, "welcome")],
    "activitynet": [
        ("v_aaaaaaaaaaa", 0.83, 19.86, "A woman waits."),
        ("v_aaaaaaaaaaa", 17.37, 60.81, "She runs."),
    ],
    "youcook2": [(YOUTUBE, 12.0, 30.0, "spread butter")],
    "msvd": [
        ("mv89psg6zh4_33_46", 0.0, None, "a bird is bathing"),
        ("mv89psg6zh4_33_46", 0.0, None, "a faucet runs"),
    ],
}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_published_layout_gives_its_captions(name):
    (path,) = FIXTURES.glob(f"{name.removesuffix('_youtube')}.*")
    assert read_captions(path, format=name) == [Caption(*row) for row in EXPECTED[name]]


def test_every_preset_has_a_fixture_and_a_line_in_the_docs():
    own = {"jsonl", "srt", "vtt", "json3", "srv3"}
    assert set(FORMATS) - own == set(EXPECTED)
    docs = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    assert [name for name in FORMATS if f"`{name}`" not in docs] == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("msrvtt", "{}", "has no 'sentences', only an empty object"),
        ("msrvtt", '{"sentences": [{"video_id": "a"}]}', "sentence 1: has no 'caption', only video_id"),
        ("vatex_youtube", '[{"videoID": "a", "enCap": ["b"]}]', "entry 1: videoID 'a' must be an id and two times"),
        ("ego4d", '{"a": {"narration_pass_1": {"narrations": [{"timestamp_sec": "1", "narration_text": "b"}]}}}',
         "narration_pass_1: each timestamp_sec must be a number"),
        ("ego4d", '{"a": 3}', "video 'a', narration_pass_1: must be a JSON object"),
    ],
)  # fmt: skip
def test_another_layout_is_refused_with_what_is_missing(tmp_path, name, content, message):
    (tmp_path / "t.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_captions(tmp_path / "t.json", format=name)

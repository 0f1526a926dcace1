"""All formats are read completely, repetitions of speech recognition are removed, and errors name the fault."""

import gzip
import json
import lzma

import pytest

from vidlankd_hf.data import captions, compressed
from vidlankd_hf.data.captions import Caption, read_captions, remove_rolling_overlap
from vidlankd_hf.data.compressed import read_parts

# As yt-dlp writes YouTube's recognized speech: each line is shown twice more, and with each new line once more.
YOUTUBE = """WEBVTT
Kind: captions
Language: en

00:00:00.030 --> 00:00:02.389 align:start position:0%
~
hey<00:00:00.299><c> guys</c><00:00:00.480><c> welcome</c>

00:00:02.389 --> 00:00:02.399 align:start position:0%
hey guys welcome
~

00:00:02.399 --> 00:00:04.000 align:start position:0%
hey guys welcome
to<00:00:02.500><c> my</c><00:00:03.000><c> channel</c>

00:00:04.000 --> 00:00:04.010 align:start position:0%
to my channel
~

00:00:04.010 --> 00:00:06.500 align:start position:0%
to my channel
so

00:00:06.500 --> 00:00:06.510 align:start position:0%
so
~

00:00:06.510 --> 00:00:09.000 align:start position:0%
so
stir<00:00:07.000><c> it</c><00:00:08.000><c> well</c>

00:00:21.000 --> 00:00:23.000 align:start position:0%
~
stir<00:00:21.500><c> it</c><00:00:22.000><c> well</c>
""".replace("~", " ")


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_srt_is_read_with_tags_entities_blank_lines_and_numbers_in_the_text(tmp_path):
    path = write(
        tmp_path / "film.srt",
        "\ufeff1\r\n00:00:01,250 --> 00:00:02,500\r\n<i>Fish</i> {\\an8}&amp; chips,\r\n"
        'a < b <font color="red">red</font>\r\n\r\n'
        "2\r\n0:00:03,0 --> 0:00:04,000 X1:40\r\n1984\r\n\r\nwas a year\r\n\r\n"
        "3\r\n00:00:04,500 --> 00:00:05,000\r\n\r\n"
        "4\r\n01:02:03,004 --> 01:02:04,000\r\nno blank line after\r\n5\r\n01:02:05,000 --> 01:02:06,000\r\nlast",
    )
    assert read_captions(path) == [
        Caption("film", 1.25, 2.5, "Fish & chips, a < b red"),
        Caption("film", 3.0, 4.0, "1984 was a year"),
        Caption("film", 3723.004, 3724.0, "no blank line after"),
        Caption("film", 3725.0, 3726.0, "last"),
    ]


def test_webvtt_is_read_without_its_styles_comments_names_and_settings(tmp_path):
    path = write(
        tmp_path / "talk.en.vtt",
        "WEBVTT - a talk\n\nSTYLE\n::cue { color: red }\n\nNOTE by hand\n\nintro\n"
        "00:01.000 --> 00:02.000 align:middle line:90%\n<v Ann>Hello <b>you</b>\nNOTE this is said\n\n"
        "NOTE not\nthis\n\nsecond\n00:00:02.500 --> 00:00:03.000\n<c.yellow>And</c> you\n",
    )
    assert read_captions(path) == [
        Caption("talk.en", 1.0, 2.0, "Hello you NOTE this is said"),
        Caption("talk.en", 2.5, 3.0, "And you"),
    ]


def test_folder_of_subtitles_is_read_next_to_the_videos(tmp_path):
    write(tmp_path / "a.srt", "1\n00:00:01,000 --> 00:00:02,000\nfirst\n")
    write(tmp_path / "sub" / "b.vtt", "WEBVTT\n\n00:01.000 --> 00:02.000\nsecond\n")
    write(tmp_path / "c.csv.xz", lzma.compress(b'start,end,text\n1,2,"third, quoted"\n'))
    write(tmp_path / "a.mp4", b"\x00\xff")
    assert [c.video + " " + c.text for c in read_captions(tmp_path)] == ["a first", "c third, quoted", "b second"]
    write(tmp_path / "a.vtt", "WEBVTT\n\n00:01.000 --> 00:02.000\nagain\n")
    with pytest.raises(ValueError, match="a.srt and .*a.vtt both belong to the video 'a'"):
        read_captions(tmp_path)


HOWTO100M = {"x1": {"start": [0.5, 2], "end": [2.5, 4], "text": ["cut the", "bread"]}, "x2": {}}
ACTIVITYNET = {"v_a": {"duration": 9.5, "timestamps": [[0, 4.5], [3.0, 9.5]], "sentences": [" A man.", "He runs."]}}
YOUCOOK2 = {"database": {"y1": {"annotations": [{"segment": [90, 102], "id": 0, "sentence": "spread"}]}, "test": {}}}


@pytest.mark.parametrize(
    "name, content, expected",
    [
        ("caption.json", {"x1": HOWTO100M["x1"]}, [("x1", 0.5, 2.5, "cut the"), ("x1", 2.0, 4.0, "bread")]),
        ("x3.csv", "start,end,text\n0.5,2.5,cut\n2,4,bread\n", [("x3", 0.5, 2.5, "cut"), ("x3", 2, 4, "bread")]),
        ("x4.csv", ",start,end,text\n0,0.5,2.5,cut\n1,2.5,3,\n", [("x4", 0.5, 2.5, "cut")]),
        ("train.json", ACTIVITYNET, [("v_a", 0.0, 4.5, "A man."), ("v_a", 3.0, 9.5, "He runs.")]),
        ("trainval.json", YOUCOOK2, [("y1", 90.0, 102.0, "spread")]),
        ("sents.txt", "vid1\ta cat\nvid1\ta dog\n\nvid2\ta man\n",
         [("vid1", 0.0, None, "a cat"), ("vid1", 0.0, None, "a dog"), ("vid2", 0.0, None, "a man")]),
        ("own.jsonl", '{"video": "d/v.mp4", "text": "a\u2028b"}\n', [("d/v.mp4", 0.0, None, "a\u2028b")]),
    ],
)  # fmt: skip
def test_published_formats_are_recognized_and_read(tmp_path, name, content, expected):
    path = write(tmp_path / name, content)
    assert read_captions(path) == [Caption(*row) for row in expected]
    packed = write(tmp_path / f"{name}.xz", lzma.compress(path.read_bytes()))
    assert read_captions(packed) == read_captions(path)


def test_format_can_be_given_if_the_name_does_not_reveal_it(tmp_path):
    path = write(tmp_path / "subtitles.txt", "1\n00:00:01,000 --> 00:00:02,000\nhello\n")
    with pytest.raises(ValueError, match="unknown format .*format="):
        read_captions(path)
    assert read_captions(path, format="srt")[0].text == "hello"
    with pytest.raises(ValueError, match="format is 'ass': choose one of jsonl, srt"):
        read_captions(path, format="ass")


def test_known_faults_of_published_times_are_corrected_and_counted(tmp_path, caplog):
    entry = {"duration": 90, "timestamps": [[61.3, 60.7], [5, 5]], "sentences": ["He grinds it.", "It overturns."]}
    captions = read_captions(write(tmp_path / "train.json", {"v_a": entry}))
    assert [(c.start, c.end) for c in captions] == [(60.7, 61.3), (5.0, 6.0)]
    assert "1 caption with swapped times" in caplog.text and "1 caption without duration" in caplog.text


# ---- rolling captions ----


def test_rolling_lines_of_youtube_are_read_once_and_a_later_repetition_stays(tmp_path):
    captions = read_captions(write(tmp_path / "talk.vtt", YOUTUBE))
    assert captions == [
        Caption("talk", 0.03, 2.399, "hey guys welcome"),
        Caption("talk", 2.399, 4.01, "to my channel"),
        Caption("talk", 4.01, 6.51, "so"),
        Caption("talk", 6.51, 9.0, "stir it well"),
        Caption("talk", 21.0, 23.0, "stir it well"),
    ]
    repeated = read_captions(write(tmp_path / "talk.vtt", YOUTUBE), remove_overlap=False)
    assert " ".join(c.text for c in repeated).count("hey guys welcome") == 3


@pytest.mark.parametrize(
    "lines, expected",
    [
        # the tail of a line, with times that overlap, as in HowTo100M
        (["cut the bread into small", "into small cubes and then", "and then fry them"],
         ["cut the bread into small", "cubes and then", "fry them"]),
        # a line that grows
        (["hey", "hey guys", "hey guys welcome back"], ["hey", "guys", "welcome back"]),
        # a line that is within the one before
        (["today we bake bread", "bake bread", "at home"], ["today we bake bread", "at home"]),
        # recognition that changed its mind about case and punctuation
        (["we use Olive oil,", "olive oil and salt"], ["we use Olive oil,", "and salt"]),
        # one word that may have been said twice
        (["this is very", "very good"], ["this is very", "very good"]),
        # repetition inside a line is speech
        (["no no no", "do not do it"], ["no no no", "do not do it"]),
        # an overlap that starts again inside a failed one
        (["a b a b a c", "a b a c x"], ["a b a b a c", "x"]),
        # the longest overlap counts, not the first found
        (["a b a b", "a b a b c"], ["a b a b", "c"]),
    ],
)  # fmt: skip
def test_repeated_tail_is_removed_and_nothing_else(lines, expected):
    captions = [Caption("v", i * 2.0, i * 2.0 + 3, line) for i, line in enumerate(lines)]
    result = remove_rolling_overlap(captions)
    assert [c.text for c in result] == expected
    assert all(c.start < c.end for c in result)


def test_overlap_is_not_looked_for_across_videos_or_pauses():
    captions = [Caption("a", 0, 1, "stir it well"), Caption("b", 1, 2, "stir it well"), Caption("b", 9, 10, "stir it")]
    assert remove_rolling_overlap(captions) == captions


def test_subtitles_made_by_hand_are_left_as_they_are(tmp_path):
    lines = "1\n00:00:01,000 --> 00:00:02,000\nyes, yes we can\n\n2\n00:00:02,000 --> 00:00:03,000\nyes we can\n"
    path = write(tmp_path / "speech.srt", lines)
    assert [c.text for c in read_captions(path)] == ["yes, yes we can", "yes we can"]
    assert [c.text for c in read_captions(path, remove_overlap=True)] == ["yes, yes we can"]


# ---- bad input ----

CUE = "1\n00:00:01,000 --> 00:00:02,000\nhello\n\n"


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.srt", CUE + "2\n00:00:05,000 --> 00:00:04,000\nx\n", "a.srt, line 6: start 5.0 and end 4.0 must satisfy"),
        ("a.srt", CUE + "2\n00:00:0x,000 --> 00:00:04,000\nx\n", "a.srt, line 6: .* must be times"),
        ("a.srt", "Hello\n" + CUE, "a.srt, line 1: 'Hello' precedes the first times"),
        ("a.srt", "1\n00:00:01,000 --> 00:00:02,000\n\n", "holds no caption"),
        ("a.srt", "", "holds no caption"),
        ("a.vtt", CUE, "line 1 must start with WEBVTT; if these are SRT"),
        ("a.vtt", "WEBVTT\n\n00:05.000 --> 00:04.000\nx\n", "a.vtt, line 3: start 5.0 and end 4.0"),
        ("a.srt", "1\n00:00:01,000 --> 00:00:02,000\ncaf\u00e9\n".encode("latin-1"), "not UTF-8 .byte 35., but"),
        ("a.srt", CUE.encode("utf-16-le"), "not UTF-8|probably utf-16-le|precedes"),
        ("a.srt.xz", b"not packed", "a.srt.xz cannot be read"),
        ("a.srt.gz", gzip.compress(b"packed", mtime=0)[:10] + b"\xff" * 20, "a.srt.gz cannot be read"),
        ("a.csv", "begin,end,text\n1,2,x\n", "must name the columns video, start, end and text, or, "),
        ("a.csv", "start,end,text\n1,soon,x\n", "a.csv, line 2: start 1.0 and end 'soon' must be numbers of seconds"),
        ("a.csv", "start,end,text\n1\n", "a.csv, line 2: has fewer columns than line 1"),
        ("a.jsonl", {"video": "v", "start": 5, "end": 4, "text": "x"}, "line 1: start 5 and end 4 must satisfy"),
        ("a.jsonl", {"video": "v", "start": -1, "end": 4, "text": "x"}, "line 1: start -1"),
        ("a.jsonl", {"video": "v", "start": 0, "end": 4, "text": " \t"}, "line 1: the caption of 'v' is empty"),
        ("a.jsonl", '{"video": "v", "text": "caf\u00e9"}'.encode("latin-1"), "not UTF-8"),
        ("a.jsonl", "", "holds no caption"),
        ("a.csv", "", "must name the columns"),
        ("a.csv", "start,end,text\n", "holds no caption"),
        ("a.csv", "start,end,text\n1,2," + "x" * 10_000_000, "a.csv, line .: not CSV .field larger"),
        ("a.srt", "1\n00:00:01,000 --> 00:00:02,000\n" + "x " * 5_000_000, "line 2: .* at most 1,000,000"),
        ("a.json", {"v": {"start": [0], "end": [1], "text": ["x" * 10_000_000]}}, "caption 1: .* at most 1,000,000"),
        ("a.json", "{}", "unknown format"),
        ("a.json", {"database": {"v": {"annotations": [{"segment": [9, 3], "sentence": "x"}]}}}, "start 9 and end 3"),
        ("a.json", '{"v": {"start": [0], "end": [1], "text": ["x"]}, "v": {"start": [1], "end": [2], "text": ["y"]}}',
         "a.json: 'v' occurs twice"),
        ("a.json", '{"database": {"v": {"annotations": []}, "v": {"annotations": []}}}', "'v' occurs twice"),
        ("a.json", "{", "a.json is not JSON"),
        ("a.json", "[1]", "must hold a JSON object"),
        ("a.json", '{"a": {"x": 1}}', "unknown format"),
        ("a.json", HOWTO100M, "video 'x2': must hold the lists"),
        ("a.json", {"v": {"timestamps": [[0, 1]], "sentences": []}}, "must hold timestamps and the same number"),
        ("a.json", {"v": {"timestamps": [[0, 1]], "sentences": [" "]}}, "video 'v', caption 1: .* is empty"),
        ("a.json", {"database": {"v": {"annotations": [{"segment": [1]}]}}}, "video 'v': annotations must hold"),
        ("a.txt", "vid1\ta cat\nvid2 a dog\n", "a.txt, line 2: must be a video's id, a tab"),
        ("a.txt", "vid1\t \n", "line 1: the caption of 'vid1' is empty"),
        ("a.jsonl", {"video": "v", "start": float("nan"), "text": "x"}, "line 1: start nan"),
        ("a.jsonl", {"video": "v", "text": "x" * 10_000_000}, "line 1: .* 10,000,000 .* at most 1,000,000"),
        ("a.jsonl", {"video": "../../etc/passwd", "text": "x"}, "'../../etc/passwd' leads out of the folder"),
        ("a.jsonl", {"video": "/etc/passwd", "text": "x"}, "leads out of the folder"),
        ("a.jsonl", {"video": "..\\secret", "text": "x"}, "leads out of the folder"),
        ("a.jsonl", {"video": "a\x00b", "text": "x"}, "is not a file name"),
        ("a.json", {"../x": {"start": [0], "end": [1], "text": ["x"]}}, "video '../x'.* leads out of the folder"),
    ],
)  # fmt: skip
def test_bad_captions_are_errors_that_name_file_and_line(tmp_path, name, content, message):
    with pytest.raises(ValueError, match=message):
        read_captions(write(tmp_path / name, content))


def test_file_of_ten_megabytes_is_read_completely(tmp_path):
    text = "\n".join(
        f"{i}\n{i // 3600:02}:{i // 60 % 60:02}:{i % 60:02},000 --> {i // 3600:02}:{i // 60 % 60:02}:{i % 60:02},900\n"
        f"{'some words ' * 15}{i}\n"
        for i in range(50_000)
    )
    assert len(text) > 10_000_000
    captions = read_captions(write(tmp_path / "long.srt", text))
    assert len(captions) == 50_000 and captions[-1].text.endswith("words 49999") and captions[-1].end == 49999.9


def test_speech_without_text_or_with_swapped_times_is_corrected_in_howto100m(tmp_path, caplog):
    columns = {"start": [5, 1, 3], "end": [2, 3, 4], "text": ["turned", float("nan"), " "]}
    assert read_captions(write(tmp_path / "a.json", {"v": columns})) == [Caption("v", 2.0, 5.0, "turned")]
    assert "2 captions without text" in caplog.text and "1 caption with swapped times" in caplog.text


def test_captions_that_overlap_in_time_are_all_kept(tmp_path):
    cues = "1\n00:00:01,000 --> 00:00:09,000\none\n\n2\n00:00:02,000 --> 00:00:03,000\ntwo\n"
    assert [(c.start, c.end) for c in read_captions(write(tmp_path / "a.srt", cues))] == [(1, 9), (2, 3)]


def test_folder_without_subtitles_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="holds no .srt, .vtt, .json3, .srv3, .csv file"):
        read_captions(tmp_path)


HOWTO = {f"v{i}": {"start": [0, 2], "end": [2, 4.5], "text": [f"größe {i}", "z\\w" * i]} for i in range(1, 40)}
ACTIVITYNET = {f"v_{i}": {"timestamps": [[0, 1.25]], "sentences": [f"ü{i}"]} for i in range(40)}
YOUCOOK = {"database": {f"v{i}": {"annotations": [{"segment": [1, 2], "sentence": "stir"}]} for i in range(40)}}


@pytest.mark.parametrize("content", [HOWTO, ACTIVITYNET, YOUCOOK], ids=["howto100m", "activitynet", "youcook2"])
def test_a_json_file_gives_the_same_captions_in_parts_of_any_size(tmp_path, monkeypatch, content):
    path = write(tmp_path / "a.json", json.dumps(content, ensure_ascii=False, indent=1) + "\n")
    expected = read_captions(path)
    assert len(expected) in (40, 78)
    for size in (1, 7, 100, 999):
        monkeypatch.setattr(compressed, "READ_BYTES", size)
        assert read_captions(path) == expected


def test_a_large_json_file_is_read_as_its_captions_are_needed(tmp_path, monkeypatch):
    path = write(tmp_path / "a.json", HOWTO)
    monkeypatch.setattr(compressed, "READ_BYTES", 64)
    read = []
    monkeypatch.setattr(captions, "read_parts", lambda path: (read.append(part) or part for part in read_parts(path)))
    texts = captions.iterate_captions(path)
    next(texts)
    assert 0 < len(b"".join(read)) < 1000 < path.stat().st_size
    assert len([*texts]) == 77 and b"".join(read) == path.read_bytes()


@pytest.mark.parametrize("size", [50, 10**6])
@pytest.mark.parametrize(
    "end, message",
    [
        (b'"v9": {"start": [1]', "a.json is not JSON: "),
        (b'"v1": {"start": [], "end": [], "text": []}}', "'v1' occurs twice"),
        (b'"a": {"start": [], "end": [], "text": []}} x', r"line 41: must hold a JSON object with an entry.* '} x'"),
        (b'"a": {"start": [], "end": [], "text": ["gr\xfc\xdfe"]}}', "is not UTF-8 .*probably cp1252"),
    ],
)
def test_faults_at_the_end_of_a_json_file_are_named_in_parts_too(tmp_path, monkeypatch, size, end, message):
    text = ",\n".join(f"{json.dumps(video)}: {json.dumps(entry)}" for video, entry in HOWTO.items())
    path = write(tmp_path / "a.json", b"{\n" + text.encode() + b",\n" + end)
    monkeypatch.setattr(compressed, "READ_BYTES", size)
    with pytest.raises(ValueError, match=message):
        read_captions(path)

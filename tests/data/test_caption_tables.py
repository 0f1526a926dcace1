import csv
import gzip
import io
import json
import tracemalloc

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from captioned_videos import write_features
from helpers import make_tokenizer

from vidlankd_hf.data import caption_tables
from vidlankd_hf.data.account import Account
from vidlankd_hf.data.captions import Caption, read_captions
from vidlankd_hf.data.video_text import load_video_text

LINES = [("v0", 0.5, 4.25, "word1 word2"), ("v0", 4.25, 9.0, 'word3, "word4"'), ("v1", 61.125, 3661.5, "word5")]
COLUMNS = ["video=clip", "start=begin", "end=stop", "text=caption"]
EXPECTED = [Caption(*line) for line in LINES]


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


def clock(t):
    return f"{int(t // 3600):02}:{int(t // 60) % 60:02}:{t % 60:06.3f}"


def write_csv(path, rows, delimiter=",", names=("clip", "begin", "stop", "caption")):
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerows([names, *rows])
    path.write_bytes(gzip.compress(text.getvalue().encode()) if path.suffix == ".gz" else text.getvalue().encode())
    return path


def write_parquet(path, **columns):
    pq.write_table(pa.table(columns), path, row_group_size=1)
    return path


def forms(folder):
    """The captions in every form of table, with the columns to give."""
    clips, begins, stops, captions = map(list, zip(*LINES))
    folder.mkdir()
    as_clock = [(v, clock(s), clock(e), t) for v, s, e, t in LINES]
    milliseconds = [(f"videos/{v}.mp4", round(s * 1000), round(e * 1000), t) for v, s, e, t in LINES]
    grouped = {v: [line for line in LINES if line[0] == v] for v in ("v0", "v1")}
    times = [[[s, e] for _, s, e, _ in lines] for lines in grouped.values()]
    texts = [[t for *_, t in lines] for lines in grouped.values()]
    (folder / "lines.jsonl").write_text(
        "".join(json.dumps(dict(zip(("clip", "begin", "stop", "caption"), line))) + "\n\n" for line in LINES)
    )
    lists = ["video=clip", "times=times", "text=texts"]
    yield write_csv(folder / "seconds.csv", LINES), COLUMNS
    yield write_csv(folder / "seconds.csv.gz", LINES), COLUMNS
    yield write_csv(folder / "clock.tsv", as_clock, "\t"), COLUMNS
    yield write_csv(folder / "own.tsv", LINES, "\t", ("video", "start", "end", "text")), None
    yield write_csv(folder / "own.csv", LINES, names=("video", "start", "end", "text")), None
    yield write_csv(folder / "own.csv.gz", LINES, names=("video", "start", "end", "text")), None
    yield (
        write_csv(folder / "ms.csv", milliseconds),
        ["video=clip", "start=begin:ms", "end=stop:ms", "text=caption"],
    )
    yield write_parquet(folder / "rows.parquet", clip=clips, begin=begins, stop=stops, caption=captions), COLUMNS
    whole = {"begin": [round(s * 1000) for s in begins], "stop": [round(e * 1000) for e in stops]}
    units = ["video=clip", "start=begin:ms", "end=stop:ms", "text=caption"]
    yield write_parquet(folder / "ms.parquet", clip=clips, **whole, caption=captions), units
    yield write_parquet(folder / "intervals.parquet", clip=list(grouped), times=times, texts=texts), lists
    yield (
        write_csv(
            folder / "lists.csv", zip(grouped, map(str, times), map(str, texts)), names=("clip", "times", "texts")
        ),
        lists,
    )
    yield folder / "lines.jsonl", COLUMNS


def test_the_same_captions_in_any_table_are_read_alike(tmp_path):
    for path, columns in forms(tmp_path / "tables"):
        read = read_captions(path, columns=columns)
        assert [c._replace(video=c.video.removesuffix(".mp4")) for c in read] == EXPECTED, path


@pytest.mark.parametrize("streaming", [False, True])
def test_the_same_captions_in_any_format_give_bit_equal_windows(tmp_path, tokenizer, streaming):
    features = write_features(tmp_path / "features", {"v0": 30.0, "v1": 3700.0})
    (tmp_path / "vtt").mkdir()
    for video in ("v0", "v1"):
        cues = [f"{clock(s)} --> {clock(e)}\n{text}\n" for v, s, e, text in LINES if v == video]
        (tmp_path / "vtt" / f"{video}.vtt").write_text("WEBVTT\n\n" + "\n".join(cues))
    own = tmp_path / "own.jsonl"
    own.write_text("".join(json.dumps(caption._asdict()) + "\n" for caption in EXPECTED))

    def windows(path, columns=None):
        options = {"streaming": streaming, "cache_dir": tmp_path / "cache", "caption_columns": columns}
        rows = load_video_text(features, path, tokenizer, max_length=8, **options)
        return [{**row, "video_features": row["video_features"].tobytes()} for row in map(plain, rows)]

    def plain(row):
        return {name: value.numpy() if hasattr(value, "numpy") else value for name, value in row.items()}

    expected = windows(own)
    assert len(expected) >= 2
    for path, columns in [(tmp_path / "vtt", None), *forms(tmp_path / "tables")]:
        assert str(windows(path, columns)) == str(expected), path


def test_what_a_table_lacks_is_left_out_by_reason(tmp_path):
    path = write_parquet(
        tmp_path / "t.parquet",
        clip=["a"] * 6,
        begin=[0.0, None, float("nan"), 3.0, 4.0, 5.0],
        stop=[1.0, 2.0, 3.0, None, 5.0, 6.0],
        caption=["kept", "no start", "NaN", "no end", " ", None],
    )
    account = Account()
    assert read_captions(path, columns=COLUMNS, account=account) == [Caption("a", 0.0, 1.0, "kept")]
    left_out = account.summary()["captions"]
    assert left_out["in"] == 6
    assert left_out["left_out"]["has no time"] == {"amount": 3, "first": [f"{path}, row {n}" for n in (2, 3, 4)]}
    assert left_out["left_out"]["has no text"] == {"amount": 2, "first": [f"{path}, row {n}" for n in (5, 6)]}


def test_several_captions_of_one_clip_share_its_times(tmp_path):
    path = write_parquet(tmp_path / "t.parquet", video=["a", "b"], text=[["one", "two"], ["three"]])
    assert read_captions(path) == [
        Caption("a", 0.0, None, "one"), Caption("a", 0.0, None, "two"), Caption("b", 0.0, None, "three")
    ]  # fmt: skip
    path = write_csv(tmp_path / "t.csv", [("a", "1", "2", "[Music]"), ("a", "2", "3", '["x", "y"]')])
    assert [c.text for c in read_captions(path, columns=COLUMNS)] == ["[Music]", "x", "y"]


@pytest.mark.parametrize(
    ("row", "columns", "message"),
    [
        (("a", "1", "1", "t"), COLUMNS, "t.csv, row 2: start 1.0 and end 1.0 must satisfy 0 <= start < end"),
        (("a", "soon", "2", "t"), COLUMNS, "t.csv, row 2: the time 'soon' must be a number of seconds, HH:MM:SS.mmm"),
        (("a", "0:01", "2", "t"), ["video=clip", "start=begin:ms", "text=caption"], "row 2: the time '0:01' must be"),
        (("", "1", "2", "t"), COLUMNS, "row 2: video '' and text must be non-empty"),
        (("a", "[[1, 2], [3]]", "", "t"), ["video=clip", "times=begin", "text=caption"], "row 2: times .* must be"),
        (("a", "[[1, 2], [2, 3]]", "", "t"), ["video=clip", "times=begin", "text=caption"], "has 2 times but 1 text"),
        (("x/v.mp4", "1", "2", "t"), COLUMNS, "row 2: the videos 'v/v.mp4' and 'x/v.mp4' have the same file name"),
        (("a", "1", "2"), COLUMNS, "t.csv cannot be read as csv, with commas .*Expected 4 columns, got 3"),
        (("a", "1", "2", "t"), ["video=id", "text=caption"], "has no column 'id', only 'clip', 'begin', 'stop'"),
        (("a", "1", "2", "t"), ["video=clip"], "names video: give video and text"),
        (("a", "1", "2", "t"), ["video=clip", "words=caption"], "has 'words=caption': give each of video, start"),
    ],
)  # fmt: skip
def test_a_wrong_row_or_column_is_refused_by_file_and_row(tmp_path, row, columns, message):
    first = ("v/v.mp4", "[[0, 1]]", "1", "first") if "times=begin" in columns else ("v/v.mp4", "0", "1", "first")
    path = write_csv(tmp_path / "t.csv", [first, row])
    with pytest.raises(ValueError, match=message):
        read_captions(path, columns=columns)


def test_a_table_without_names_is_told_its_columns_and_its_preset(tmp_path):
    path = write_parquet(tmp_path / "t.parquet", videoid=[1], name=["a cat"], duration=["PT0H"])
    with pytest.raises(ValueError, match="has no column 'video', 'text', only .* give --caption_format webvid"):
        read_captions(path)
    with pytest.raises(ValueError, match="but names .'clip', 'begin'.* say which columns .* --caption_columns"):
        read_captions(write_csv(tmp_path / "t.csv", LINES))
    semicolons = write_csv(tmp_path / "s.csv", LINES, ";")
    with pytest.raises(ValueError, match="cannot be read as csv, with commas between columns: "):
        read_captions(semicolons, columns=COLUMNS)


def test_a_folder_of_tables_is_read_in_order_and_other_files_are_accounted_for(tmp_path):
    write_csv(tmp_path / "b.csv", LINES[1:])
    write_csv(tmp_path / "a.csv", LINES[:1])
    (tmp_path / "README.md").write_text("words")
    account = Account()
    assert read_captions(tmp_path, columns=COLUMNS, account=account) == EXPECTED
    assert account.summary()["caption files"]["left_out"]["is not a table"]["first"] == [str(tmp_path / "README.md")]


def test_a_hub_data_set_is_read_without_its_code(tmp_path, monkeypatch, tokenizer):
    asked = []
    clips, begins, stops, captions = map(list, zip(*LINES))
    written = write_parquet(tmp_path / "t.parquet", clip=clips, begin=begins, stop=stops, caption=captions, more=clips)
    table = datasets.Dataset.from_parquet(str(written), cache_dir=str(tmp_path / "hub"))
    monkeypatch.setattr("datasets.load_dataset", lambda *a, **o: asked.append((*a, o)) or table)
    assert read_captions("owner/name:config:test", columns=COLUMNS) == EXPECTED
    assert asked == [("owner/name", "config", {"split": "test"})], "and no trust_remote_code"
    features = write_features(tmp_path / "features", {"v0": 30.0, "v1": 3700.0})
    options = {"cache_dir": tmp_path / "cache", "caption_columns": COLUMNS}
    stream = load_video_text(features, "owner/name", tokenizer, streaming=True, **options)
    in_memory = load_video_text(features, "owner/name", tokenizer, **options)
    assert sorted(row["text"] for row in stream) == sorted(row["text"] for row in in_memory) != []


def test_memory_does_not_grow_with_the_table(tmp_path):
    peaks = []
    for rows in (4_000, 16_000):
        path = tmp_path / f"{rows}.parquet"
        table = pa.table({"video": ["v"] * rows, "text": [f"a caption of some words {n}" for n in range(rows)]})
        pq.write_table(table, path, row_group_size=1_000)
        tracemalloc.start()
        assert sum(1 for _ in caption_tables.read_table(path, None, None, None)) == rows
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]

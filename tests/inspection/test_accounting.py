"""Everything that is read is used, or left out with a reason and a name."""

import json
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from backbone_files import save_backbone
from captioned_videos import write_features
from transformers import ResNetConfig, ResNetModel
from video_files import write_grey_video, write_sound

from vidlankd_hf.data.account import Account
from vidlankd_hf.data.captions import read_captions
from vidlankd_hf.data.features import FeatureStore
from vidlankd_hf.data.pairing import pair_captions
from vidlankd_hf.extraction import Stream, extract_features
from vidlankd_hf.extraction.import_features import ImportedStream, import_features
from vidlankd_hf.inspection.accounting import account_lines, close_account

SRT = (
    "1\n00:00:01,000 --> 00:00:02,000\nsaid\n\n2\n00:00:03,000 --> 00:00:04,000\n\u200b\n\n"
    "3\n00:00:50,000 --> 00:00:51,000\ntoo late\n"
)
ROLLING = (
    "WEBVTT\n\n00:01.000 --> 00:02.000\nhey<00:01.500><c> guys</c>\n\n00:02.000 --> 00:02.010\nhey guys\n\n"
    "00:02.010 --> 00:03.000\nhey guys\nhow<00:02.500><c> are</c>\n"
)
COLUMNS = {"start": [1, 3, 50], "end": [2, 4, 51], "text": ["said", "", "too late"]}
FORMATS = {
    "a.srt": SRT,
    "a.vtt": "WEBVTT\n\n" + SRT.replace(",", "."),
    "a.en.vtt": ROLLING,
    "a.csv": "start,end,text\n1,2,said\n3,4,\n50,51,too late\n",
    "all.jsonl": "".join(
        json.dumps({"video": video, "start": start, "end": start + 1, "text": "said"}) + "\n"
        for video, start in (("a.mp4", 1), ("a.mp4", 50), ("gone.mp4", 1))
    ),
    "caption.json": json.dumps({"a": COLUMNS, "gone": COLUMNS}),
    "train.json": json.dumps({"a": {"timestamps": [[1, 2], [50, 51]], "sentences": ["said", "too late"]}}),
    "trainval.json": json.dumps({"database": {"a": {"annotations": [{"segment": [1, 2], "sentence": "said"}]}}}),
    "sents.txt": "a\tsaid\na\tagain\ngone\tsaid\n",
}


PUBLISHED = Path(__file__).parents[1] / "data" / "fixtures"
FIXTURES = {path.stem: path for path in PUBLISHED.iterdir()} | {"vatex_youtube": PUBLISHED / "vatex.json"}


@pytest.fixture
def store(tmp_path):
    folder = write_features(tmp_path / "features", {"a.mp4": 20.0, "silent.mp4": 10.0})
    (folder / "quarantine.jsonl").write_text('{"path": "bad.mp4", "reason": "truncated", "detail": ""}\n')
    (folder / "left_out.jsonl").write_text('{"path": "notes.txt", "reason": "cannot be read as a video"}\n')
    return FeatureStore(folder)


def assert_balanced(account):
    """In = used + left out, of everything that was counted, and everything left out has a name and a reason."""
    left_out = Counter()
    for row in account.left_out:
        left_out[row.what] += row.amount
        assert row.name and row.reason
    assert set(left_out) <= set(account.read)
    for what in account.read:
        assert account.read[what] == pytest.approx(account.used[what] + left_out[what]), what


def accounted(store, *reading, **options):
    account = Account()
    pairs = pair_captions(store, read_captions(*reading, account=account, **options))
    close_account(account, store, pairs)
    assert_balanced(account)
    assert account.used["captions"] == sum(map(len, pairs.by_video.values()))
    return account


@pytest.mark.parametrize("name", FORMATS)
def test_what_goes_in_is_used_or_left_out_with_a_name(tmp_path, store, name):
    folder = tmp_path / "captions"
    folder.mkdir()
    (folder / name).write_text(FORMATS[name], encoding="utf-8")
    as_folder = name.endswith((".srt", ".vtt", ".csv"))
    if as_folder:
        (folder / "a.ass").write_text("[Script Info]\n")
    account = accounted(store, folder if as_folder else folder / name)
    assert account.read["captions"] >= 1 and account.used["captions"] >= 1
    assert set(account.read) == {"captions", "videos", "seconds", *(["caption files"] if as_folder else [])}
    videos = account.summary()["videos"]
    assert videos["in"] == 4 and videos["used"] == 1
    assert {reason: left["first"] for reason, left in videos["left_out"].items()} == {
        "cannot be read as a video": ["notes.txt"],
        "truncated": ["bad.mp4"],
        "has no caption": ["silent.mp4"],
    }
    account.write(tmp_path / "left_out.jsonl")
    assert len((tmp_path / "left_out.jsonl").read_text().splitlines()) == len(account.left_out)


@pytest.mark.parametrize("name", FIXTURES)
def test_published_layouts_are_accounted_for(tmp_path, name):
    path = FIXTURES[name]
    read = read_captions(path, name)
    videos = list(dict.fromkeys(caption.video for caption in read))
    # The first video ends before its last caption; the others have no features.
    latest = max(caption.start for caption in read if caption.video == videos[0])
    store = FeatureStore(write_features(tmp_path / "features", {videos[0]: max(1.0, latest), "silent": 10.0}))
    account = accounted(store, path, name)
    assert account.read["captions"] >= len(read) and account.read["videos"] == 2


YOUTUBE = {
    "a.json3": json.dumps({"events": [
        {"tStartMs": start, "dDurationMs": 500, "segs": [{"utf8": text}]}
        for start, text in ((1000, "said"), (2000, " \u200b"), (50_000, "too late"))
    ]}),
    "a.srv3": '<timedtext format="3"><body><p t="1000" d="500">said</p><p t="2000" d="500">\u200b</p>'
    '<p t="50000" d="500">too late</p></body></timedtext>',
}  # fmt: skip


@pytest.mark.parametrize("name", YOUTUBE)
def test_subtitles_of_youtube_are_accounted_for(tmp_path, store, name):
    (tmp_path / "captions").mkdir()
    (tmp_path / "captions" / name).write_text(YOUTUBE[name], encoding="utf-8")
    (tmp_path / "captions" / "notes.txt").write_text("no subtitles")
    account = accounted(store, tmp_path / "captions")
    assert account.summary()["caption files"]["in"] == 2 and account.used["captions"] == 1
    assert account.summary()["captions"]["left_out"].keys() == {"has no text", "is outside video"}


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet", "jsonl", "lists"])
def test_tables_of_captions_are_accounted_for(tmp_path, store, kind):
    rows = {
        "name": ["a", "a", "a", "gone"],
        "begin": [1, 2, 50, 1],
        "stop": [2, 3, 51, 2],
        "said": ["x", "", "y", "z"],
    }
    columns = ["video=name", "start=begin", "end=stop", "text=said"]
    folder = tmp_path / "tables"
    folder.mkdir()
    (folder / "notes.md").write_text("no table")
    if kind in ("csv", "tsv"):
        mark = "," if kind == "csv" else "\t"
        lines = [mark.join(rows), *(mark.join(map(str, row)) for row in zip(*rows.values()))]
        (folder / f"all.{kind}").write_text("\n".join(lines) + "\n")
    elif kind == "jsonl":
        lines = (json.dumps(dict(zip(rows, row))) for row in zip(*rows.values()))
        (folder / "all.jsonl").write_text("\n".join(lines) + "\n")
    else:
        if kind == "lists":
            columns = ["video=name", "times=spans", "text=said"]
            rows = {
                "name": ["a", "gone"],
                "spans": [[[1, 2], [2, 3], [50, 51]], [[1, 2]]],
                "said": [["x", "", "y"], ["z"]],
            }
        pyarrow.parquet.write_table(pa.table(rows), folder / "all.parquet")
    account = accounted(store, folder, columns=columns)
    captions = account.summary()["captions"]
    assert captions["in"] == 4 and captions["used"] == 1 and len(captions["left_out"]) == 3
    assert account.summary()["caption files"]["left_out"]["is not a table"]["amount"] == 1


VIDEOS = {"a.mp4": write_grey_video, "bad.mp4": write_sound, "b.mkv": write_grey_video}


def pack(folder, kind):
    """Writes a good video with captions, one without, one that fails, and a file that is none."""
    (folder / "plain").mkdir(parents=True)
    for name, write in VIDEOS.items():
        write(folder / "plain" / name, *([range(0, 2000, 200)] if write is write_grey_video else []))
    (folder / "plain" / "notes.txt").write_text("no video")
    if kind == "tar":
        (folder / "tars").mkdir()
        with tarfile.open(folder / "tars" / "0.tar", "w") as tar:
            for path in sorted((folder / "plain").iterdir()):
                tar.add(path, path.name)
        return folder / "tars"
    if kind == "parquet":
        contents = [(folder / "plain" / name).read_bytes() for name in VIDEOS]
        pyarrow.parquet.write_table(pa.table({"id": list(VIDEOS), "video": contents}), folder / "videos.parquet")
        return folder / "videos.parquet"
    return folder / "plain"


@pytest.mark.parametrize("kind", ["plain", "tar", "parquet"])
def test_videos_in_folders_tars_and_parquet_files_are_accounted_for(tmp_path, kind):
    resnet = ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], layer_type="basic"))
    stream = Stream("frame", save_backbone(tmp_path / "backbone", resnet), 1.0)
    source = pack(tmp_path / "videos", kind)
    store = extract_features(source, tmp_path / "features", [stream], max_failed=1, decoders=1)
    (tmp_path / "captions.jsonl").write_text(json.dumps({"video": "a", "start": 0, "end": 1, "text": "said"}) + "\n")
    videos = accounted(store, tmp_path / "captions.jsonl").summary()["videos"]
    files = {"plain": 4, "tar": 4, "parquet": 3}[kind]
    assert videos["in"] == files and videos["used"] == 1
    assert {"no video", "has no caption"} <= videos["left_out"].keys()


def test_imported_features_are_accounted_for(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for name, shape in (("a", (4, 2)), ("silent", (4, 2)), ("flat", (4,))):
        np.save(source / f"{name}.npy", np.ones(shape, np.float16))
    (source / "notes.md").write_text("no features")
    store = import_features([ImportedStream.parse(f"frame={source}@1")], tmp_path / "features", max_failed=1)
    (tmp_path / "captions.jsonl").write_text(json.dumps({"video": "a", "start": 0, "end": 1, "text": "said"}) + "\n")
    account = accounted(store, tmp_path / "captions.jsonl")
    videos = account.summary()["videos"]
    assert videos["in"] == 4 and videos["used"] == 1 and account.read["seconds"] == 8


def test_the_account_names_the_first_five_of_each_reason(tmp_path, store):
    account = Account()
    account.read["captions"] = 7
    for number in range(7):
        account.leave_out("captions", "has no text", f"a.srt, line {number}")
    (first, second) = account_lines(account)
    assert first == "captions: 7 in, 0 used"
    assert second.startswith("    7 left out: has no text (a.srt, line 0, ") and second.endswith("line 4)")

"""Everything that is read is used, or left out with a reason and a name."""

import json
from collections import Counter

import pytest
from captioned_videos import write_features

from vidlankd_hf.data.account import Account
from vidlankd_hf.data.captions import read_captions
from vidlankd_hf.data.features import FeatureStore
from vidlankd_hf.data.pairing import pair_captions
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


@pytest.fixture
def store(tmp_path):
    folder = write_features(tmp_path / "features", {"a.mp4": 20.0, "silent.mp4": 10.0})
    (folder / "quarantine.jsonl").write_text('{"path": "bad.mp4", "reason": "truncated", "detail": ""}\n')
    (folder / "left_out.jsonl").write_text('{"path": "notes.txt", "reason": "cannot be read as a video"}\n')
    return FeatureStore(folder)


@pytest.mark.parametrize("name", FORMATS)
def test_what_goes_in_is_used_or_left_out_with_a_name(tmp_path, store, name):
    folder = tmp_path / "captions"
    folder.mkdir()
    (folder / name).write_text(FORMATS[name], encoding="utf-8")
    as_folder = name.endswith((".srt", ".vtt", ".csv"))
    if as_folder:
        (folder / "a.ass").write_text("[Script Info]\n")
    account = Account()
    captions = read_captions(folder if as_folder else folder / name, account=account)
    pairs = pair_captions(store, captions)
    close_account(account, store, pairs)
    left_out = Counter()
    for row in account.left_out:
        left_out[row.what] += row.amount
        assert row.name and row.reason
    assert account.read["captions"] >= 1 and account.used["captions"] == len(pairs.by_video["a.mp4"])
    assert set(account.read) == {"captions", "videos", "seconds", *(["caption files"] if as_folder else [])}
    for what in account.read:
        assert account.read[what] == pytest.approx(account.used[what] + left_out[what]), what
    videos = account.summary()["videos"]
    assert videos["in"] == 4 and videos["used"] == 1
    assert {reason: left["first"] for reason, left in videos["left_out"].items()} == {
        "cannot be read as a video": ["notes.txt"],
        "truncated": ["bad.mp4"],
        "has no caption": ["silent.mp4"],
    }
    account.write(tmp_path / "left_out.jsonl")
    assert len((tmp_path / "left_out.jsonl").read_text().splitlines()) == len(account.left_out)


def test_the_account_names_the_first_five_of_each_reason(tmp_path, store):
    account = Account()
    account.read["captions"] = 7
    for number in range(7):
        account.leave_out("captions", "has no text", f"a.srt, line {number}")
    (first, second) = account_lines(account)
    assert first == "captions: 7 in, 0 used"
    assert second.startswith("    7 left out: has no text (a.srt, line 0, ") and second.endswith("line 4)")

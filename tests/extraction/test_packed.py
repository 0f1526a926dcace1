"""Videos inside tars and Parquet files are decoded like the plain files, and nothing else is copied out."""

import json
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from video_files import write_grey_video

from vidlankd_hf.extraction.decoders import Clip, Ended, Failed, Limits, decode_videos
from vidlankd_hf.extraction.videos import find_videos

STREAMS = [{"rate": 20.0, "clip_length": 1, "pixels": {"size": [8, 8], "resample": 2, "crop": None}}]
NAMES = ("a.mp4", "b.mkv")


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """The same two videos as files, in a tar and in Parquet files."""
    root = tmp_path_factory.mktemp("packed")
    for folder in ("plain", "tars/deep"):
        (root / folder).mkdir(parents=True)
    for i, name in enumerate(NAMES):
        write_grey_video(root / "plain" / name, [0, 100, 200 + 50 * i, 400])
    with tarfile.open(root / "tars" / "deep" / "0.tar", "w") as tar:
        for name in NAMES:
            tar.add(root / "plain" / name, f"part/{name}")
        (root / "note.json").write_text("{}")
        tar.add(root / "note.json", "part/a.json")
        link = tarfile.TarInfo("part/c.mp4")
        link.type, link.linkname = tarfile.SYMTYPE, str(root / "plain" / "a.mp4")
        tar.addfile(link)
    contents = [(root / "plain" / name).read_bytes() for name in NAMES]
    for name, column in (("bytes", contents), ("datasets", [{"bytes": c, "path": None} for c in contents])):
        table = pa.table({"id": list(NAMES), "video": column})
        pyarrow.parquet.write_table(table, root / f"{name}.parquet", row_group_size=1)
    pyarrow.parquet.write_table(pa.table({"video": contents}), root / "no_ids.parquet")
    return root


def decoded(videos):
    """The times and pixels of each video."""
    found = {}
    for event in decode_videos(videos, STREAMS, 1, Limits()):
        assert not isinstance(event, Failed), event.detail
        if isinstance(event, Clip):
            found.setdefault(event.video.id, []).append((event.time, event.pixels))
        else:
            assert isinstance(event, Ended) and event.duration > 0
    return found


def test_packed_videos_have_the_same_frames_as_the_plain_files(packed):
    plain = decoded(find_videos(packed / "plain"))
    assert set(plain) == set(NAMES) and min(map(len, plain.values())) > 3
    left_out = []
    for source in (packed / "tars", packed / "bytes.parquet", packed / "datasets.parquet"):
        other = decoded(find_videos(source, left_out))
        assert other.keys() == plain.keys()
        for name, clips in plain.items():
            assert [time for time, _ in clips] == [time for time, _ in other[name]]
            assert all(np.array_equal(one, same) for (_, one), (_, same) in zip(clips, other[name]))
    assert sorted(row.path.rpartition("::")[2] for row in left_out) == ["part/a.json", "part/c.mp4"]


def test_addresses_name_single_videos_by_member_id_or_row(packed, tmp_path):
    rows = [
        {"path": str(packed / "tars/deep/0.tar::part/b.mkv")},
        {"path": str(packed / "bytes.parquet::a.mp4"), "id": "by id"},
        {"path": str(packed / "no_ids.parquet::1"), "id": "by row"},
    ]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = decoded(find_videos(tmp_path / "m.jsonl"))
    plain = decoded(find_videos(packed / "plain"))
    for id, name in (("b.mkv", "b.mkv"), ("by id", "a.mp4"), ("by row", "b.mkv")):
        assert all(np.array_equal(one, same) for (_, one), (_, same) in zip(found[id], plain[name], strict=True))
    assert [video.id for video in find_videos(packed / "no_ids.parquet")] == ["no_ids.parquet-0", "no_ids.parquet-1"]


@pytest.mark.parametrize("address, said", [
    ("tars/deep/0.tar::part/c.mp4", "has no file 'part/c.mp4', only 3 others .'part/a.mp4'"),
    ("tars/deep/0.tar::../plain/a.mp4", "has no file"),
    ("bytes.parquet::7", "has 2 rows, and none with the id or number '7'"),
    ("none.tar::a.mp4", "No such file"),
    ("tars/deep/0.tar::part/a.json", "cannot be read as a video"),
])  # fmt: skip
def test_missing_member_fails_with_its_address(packed, address, said):
    videos = find_videos([str(packed / address)])
    (event,) = decode_videos(videos, STREAMS, 1, Limits())
    assert isinstance(event, Failed) and event.reason == "unreadable"
    assert address.partition("::")[0] in event.detail
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(event.detail)


def test_member_larger_than_the_limit_is_not_copied(packed):
    videos = find_videos([str(packed / "tars/deep/0.tar::part/a.mp4")])
    (event,) = decode_videos(videos, STREAMS, 1, Limits(download_bytes=100))
    assert isinstance(event, Failed) and "more than 100" in event.detail

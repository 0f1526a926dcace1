"""Damaged feature shards, checksums and indexes are named when they are read."""

import hashlib
import json
import zlib

import numpy as np
import pytest
import xxhash
from captioned_videos import caption, write_captions, write_features
from helpers import make_tokenizer
from prepared_data import flip

from vidlankd_hf import load_video_text
from vidlankd_hf.data.block_checksums import BLOCK_BYTES, KINDS, BlockHasher
from vidlankd_hf.data.checksums import DamagedData
from vidlankd_hf.data.features import FeatureStore


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.mark.parametrize("streaming", [False, True])
def test_damaged_features_are_named_when_they_are_read_and_not_before(tmp_path, tokenizer, streaming):
    folder = write_features(tmp_path / "features", {f"v{i}.mp4": 20_000.0 for i in range(8)})
    captions = write_captions(tmp_path / "c.jsonl", [caption(f"v{i}.mp4", 2000, 2004) for i in range(8)])
    shard = folder / "shard-00000.safetensors"
    flip(shard, shard.stat().st_size - 100)  # in the features of the last video
    data = load_video_text(folder, captions, tokenizer, streaming=streaming, cache_dir=tmp_path / "cache")
    rows = {data[i]["video"] for i in range(len(data)) if data_is_intact(data, i)}
    assert rows == {f"v{i}.mp4" for i in range(8)}, "what is not read is not verified"
    flip(shard, shard.stat().st_size - 4 * (20_000 - 2002))  # at 2002 s of the last video, which has 4 bytes a second
    data = load_video_text(folder, captions, tokenizer, streaming=streaming, cache_dir=tmp_path / "cache")
    assert [data_is_intact(data, i) for i in range(len(data))].count(False) == 1


def data_is_intact(data, i) -> bool:
    try:
        return bool(len(data[i]["video_features"]))
    except DamagedData as error:
        assert "shard-00000.safetensors is damaged at byte" in str(error) and "extract it again" in str(error)
        return False


def test_every_flipped_bit_of_a_shard_is_noticed(tmp_path):
    folder = write_features(tmp_path / "features", {"v.mp4": 40.0})
    shard = folder / "shard-00000.safetensors"
    original = shard.read_bytes()
    for at in range(0, len(original), 7):
        shard.write_bytes(original)
        flip(shard, at)
        with pytest.raises(ValueError, match="shard-00000.safetensors is damaged"):
            FeatureStore(folder).read("v.mp4")
    shard.write_bytes(original)
    assert len(FeatureStore(folder).read("v.mp4")[0]) == 40


@pytest.mark.parametrize("damage", ["gone", "short", "flipped"])
def test_damaged_checksums_and_index_are_named(tmp_path, damage):
    folder = write_features(tmp_path / "features", {"v.mp4": 40.0})
    for name, message in (("shard-00000.safetensors.xxh3", "xxh3"), ("index.jsonl", "index")):
        path = folder / name
        original = path.read_bytes()
        path.unlink() if damage == "gone" else path.write_bytes(original[:-1])
        if damage == "flipped":
            path.write_bytes(original)
            flip(path, 2)
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            FeatureStore(folder).read("v.mp4")
        path.write_bytes(original)
    FeatureStore(folder).read("v.mp4")


def as_before_xxh3(folder):
    """Replaces the checksums by those that earlier versions wrote."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["crc32"] = {}
    for name in manifest.pop("xxh3"):
        shard = folder / name
        (folder / f"{name}.xxh3").unlink()
        content = shard.read_bytes()
        blocks = [content[at : at + BLOCK_BYTES] for at in range(0, len(content), BLOCK_BYTES)]
        sums = b"".join(zlib.crc32(block).to_bytes(4, "little") for block in blocks)
        (folder / f"{name}.crc32").write_bytes(sums)
        manifest["crc32"][name] = hashlib.sha256(sums).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_checksums_of_an_earlier_version_are_verified(tmp_path, tokenizer):
    folder = write_features(tmp_path / "features", {"v.mp4": 20_000.0})
    captions = write_captions(tmp_path / "c.jsonl", [caption("v.mp4", 2000, 2004)])
    expected = FeatureStore(folder).read("v.mp4")[0]
    as_before_xxh3(folder)
    assert (FeatureStore(folder).read("v.mp4")[0] == expected).all()
    shard = folder / "shard-00000.safetensors"
    flip(shard, shard.stat().st_size - 4 * (20_000 - 2002))
    with pytest.raises(DamagedData, match="damaged at byte"):
        FeatureStore(folder).read("v.mp4")
    stream = load_video_text(folder, captions, tokenizer, streaming=True, cache_dir=tmp_path / "cache")
    assert not data_is_intact(stream, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_checksums_do_not_depend_on_the_parts_in_which_a_shard_is_written(kind):
    content = np.random.default_rng(0).bytes(3 * BLOCK_BYTES + 100)
    whole = BlockHasher(kind)
    whole.update(content)
    for size in (1000, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, len(content)):
        parts = BlockHasher(kind)
        for at in range(0, len(content), size):
            parts.update(content[at : at + size])
        assert parts.digest() == whole.digest()
    known = {"xxh3": xxhash.xxh3_64(content[:BLOCK_BYTES]).digest()[::-1], "crc32": None}[kind]
    assert known is None or whole.digest()[:8] == known
    assert len(whole.digest()) == 4 * {"xxh3": 8, "crc32": 4}[kind]


def test_features_without_checksums_of_an_older_version_are_read(tmp_path):
    folder = write_features(tmp_path / "features", {"v.mp4": 40.0})
    expected = FeatureStore(folder).read("v.mp4")[0]
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in ("xxh3", "index_sha256"):
        del manifest[name]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "shard-00000.safetensors.xxh3").unlink()
    assert (FeatureStore(folder).read("v.mp4")[0] == expected).all()

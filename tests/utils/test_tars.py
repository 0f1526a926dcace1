"""Members of tars are found without unpacking; damaged tars are refused by name."""

import io
import tarfile

import pytest

from vidlankd_hf.utils.tars import tar_members


@pytest.fixture
def tar(tmp_path):
    path = tmp_path / "shard.tar"
    with tarfile.open(path, "w") as file:
        for name, content in (("a.mp4", b"first"), ("part/b.mp4", b"second" * 400)):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return path


def test_members_have_the_place_of_their_content(tar):
    content = tar.read_bytes()
    found = {one.name: content[one.offset : one.offset + one.size] for one in tar_members(tar)}
    assert found == {"a.mp4": b"first", "part/b.mp4": b"second" * 400}


@pytest.mark.parametrize("damage", [lambda data: data[:1600], lambda data: b"no tar" * 400, lambda data: b""])
def test_damaged_tar_is_refused(tar, damage):
    tar.write_bytes(damage(tar.read_bytes()))
    with pytest.raises(ValueError, match=r"shard\.tar is (not an uncompressed tar|truncated)"):
        tar_members(tar)

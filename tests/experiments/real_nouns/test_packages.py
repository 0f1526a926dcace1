"""Packages are pinned, checked and licensed, and downloaded once."""

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from vidlankd_hf.experiments.real_nouns import packages, pictures
from vidlankd_hf.experiments.real_nouns.packages import PACKAGES, Package, fetch, licence_table
from vidlankd_hf.utils.io import sha256_of

ROOT = Path(__file__).parents[3]


def test_every_package_is_pinned_and_has_a_licence_in_the_docs():
    assert {*pictures.EMOJI, *pictures.FILES, "names", "minilm", "efficientnet"} == set(PACKAGES)
    for package in PACKAGES.values():
        assert package.registry in packages.COMMANDS and len(package.sha256) == 64
        assert package.version and package.licence and package.holds
    assert licence_table() in (ROOT / "docs" / "real_nouns.md").read_text()


@pytest.fixture
def client(tmp_path, monkeypatch):
    """A registry client that copies an archive; returns the function that makes it known, and its log of calls."""
    source, log = tmp_path / "source.tgz", tmp_path / "log"
    (tmp_path / "picture.txt").write_text("banana")
    with tarfile.open(source, "w:gz") as tar:
        tar.add(tmp_path / "picture.txt", "package/picture.txt")
    code = f"import shutil; shutil.copy({str(source)!r}, '.'); open({str(log)!r}, 'a').write('called ')"
    monkeypatch.setitem(packages.COMMANDS, "npm", lambda package: [sys.executable, "-c", code])

    def pin(sha256):
        monkeypatch.setitem(PACKAGES, "tiny", Package("npm", "tiny", "1.0", sha256, "a picture", "MIT", 1))

    return pin, log, source


def test_a_package_is_downloaded_once_and_unpacked(client, tmp_path):
    pin, log, source = client
    pin(sha256_of(source))
    folders = [fetch("tiny", tmp_path / "cache") for _ in range(2)]
    assert folders[0] == folders[1] and (folders[0] / "package" / "picture.txt").read_text() == "banana"
    assert log.read_text() == "called " and [path.name for path in folders[0].iterdir()] == ["package"]


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="builds a Debian package with dpkg-deb")
def test_a_debian_package_with_a_dangling_link_is_unpacked_into_a_relative_cache(tmp_path, monkeypatch):
    made = tmp_path / "made"
    (made / "DEBIAN").mkdir(parents=True)
    (made / "DEBIAN" / "control").write_text(
        "Package: tiny\nVersion: 1.0\nArchitecture: all\nMaintainer: Nobody\nDescription: a picture\n"
    )
    (made / "picture.txt").write_text("banana")
    (made / "font").symlink_to("of-another-package")
    deb = tmp_path / "tiny.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", made, deb], check=True, capture_output=True)
    code = f"import shutil; shutil.copy({str(deb)!r}, '.')"
    monkeypatch.setitem(packages.COMMANDS, "debian", lambda package: [sys.executable, "-c", code])
    monkeypatch.setitem(PACKAGES, "tiny", Package("debian", "tiny", "1.0", sha256_of(deb), "a picture", "MIT", 1))
    monkeypatch.chdir(tmp_path)
    folder = fetch("tiny", Path("cache"))
    assert (folder / "picture.txt").read_text() == "banana" and (folder / "font").is_symlink()


def test_another_archive_than_the_pinned_one_is_refused_and_leaves_nothing(client, tmp_path):
    pin, _, _ = client
    pin("0" * 64)
    with pytest.raises(ValueError, match="tiny 1.0 has the checksum .* pinned"):
        fetch("tiny", tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_a_missing_client_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(packages.COMMANDS, "npm", lambda package: ["no-such-client", "pack"])
    with pytest.raises(RuntimeError, match="no-such-client is not installed"):
        fetch("openmoji", tmp_path)

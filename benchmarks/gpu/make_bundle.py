"""Makes a folder with what run.sh needs on a GPU machine without network: wheels and benchmarks, at most 64 MiB.

    python benchmarks/gpu/make_bundle.py --output_dir dist/gpu
    dist/gpu/benchmarks/gpu/run.sh --rehearse

The machine brings Python 3.12 with torch, accelerate, tokenizers, safetensors, huggingface_hub, pandas, pyarrow,
opencv, matplotlib, scikit-learn and scipy. The bundle adds this package, the lowest transformers that it supports, and
what the machine lacks: datasets and PyAV (for the demo and extraction) and DeepSpeed (for ZeRO). Wheels are installed
without their requirements, into a separate folder; nothing else on the machine is changed.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 64 * 2**20
PYTHON, PLATFORMS = "3.12", ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
LOWEST, TESTED = "constraints-lowest.txt", "constraints.txt"
# Name -> the file that pins the version, or the version.
WHEELS = {
    "transformers": LOWEST,
    "datasets": LOWEST, "dill": "0.3.8", "multiprocess": "0.70.16",
    "av": TESTED,
    "hjson": "3.1.0", "pydantic": "2.14.4", "pydantic-core": "2.50.5", "annotated-types": "0.8.0",
    "typing-inspection": "0.4.5",
}  # fmt: skip
BUILT = {"deepspeed": TESTED}  # published only as source; without its kernels the wheel fits every Python


def pinned(name: str, where: str) -> str:
    """`name==version`, with the version from a file of constraints, or as given."""
    if where not in (LOWEST, TESTED):
        return f"{name}=={where}"
    return next(line for line in (ROOT / where).read_text().splitlines() if line.startswith(f"{name}=="))


def pip(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", *words], check=True)


def collect_wheels(folder: Path) -> None:
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    pip("download", "-q", "--no-deps", "--only-binary=:all:", "--python-version", PYTHON, "--implementation", "cp",
        *platforms, "-d", str(folder), *(pinned(*wheel) for wheel in WHEELS.items()))  # fmt: skip
    # DeepSpeed's set-up imports torch.
    pip("wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder),
        *(pinned(*wheel) for wheel in BUILT.items()))  # fmt: skip
    with tempfile.TemporaryDirectory() as copy:  # a build in the checkout would pack files that were removed since
        for name in ("vidlankd_hf", "examples", "accelerate_configs"):
            shutil.copytree(ROOT / name, Path(copy) / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, copy)
        pip("wheel", "-q", "--no-deps", "-w", str(folder), copy)


def check_size(folder: Path) -> int:
    """Bytes of all files in `folder`.

    Raises:
        SystemExit: They are more than 64 MiB; the message lists the largest.
    """
    sizes = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    total = sum(sizes.values())
    if total > LIMIT:
        largest = sorted(sizes, key=sizes.get, reverse=True)[:5]
        listed = ", ".join(f"{path.name} {sizes[path] / 2**20:.1f}" for path in largest)
        raise SystemExit(
            f"{folder} has {total / 2**20:.1f} MiB, but at most {LIMIT / 2**20:.0f} MiB are allowed: {listed}"
        )
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, required=True, help="new folder")
    folder = parser.parse_args().output_dir
    if folder.exists():
        raise SystemExit(f"{folder} exists: remove it, or choose another folder")
    (folder / "wheels").mkdir(parents=True)
    collect_wheels(folder / "wheels")
    shutil.copytree(ROOT / "benchmarks", folder / "benchmarks", ignore=shutil.ignore_patterns("__pycache__"))
    print(f"{folder} has {check_size(folder) / 2**20:.1f} MiB: start {folder}/benchmarks/gpu/run.sh there")


if __name__ == "__main__":
    main()

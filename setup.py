import os
import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "vidlankd_hf" / "__init__.py").read_text()).group(1)
# The release workflow knows where the repository is; a local build needs no link to it.
REPOSITORY = os.environ.get("GITHUB_REPOSITORY")
URL = f"{os.environ.get('GITHUB_SERVER_URL', 'https://github.com')}/{REPOSITORY}" if REPOSITORY else None


def long_description() -> str:
    """The README, with links that also work outside the repository."""
    text = (ROOT / "README.md").read_text()
    if URL is None:
        return text
    text = re.sub(r"(!\[[^]]*\]\()(?!https?:|#)", rf"\g<1>{URL}/raw/v{VERSION}/", text)
    return re.sub(r"((?<!!)\[[^]]*\]\()(?!https?:|#)", rf"\g<1>{URL}/blob/v{VERSION}/", text)


# Every lower bound is installed and tested by `make test-lowest` (constraints-lowest.txt).
deepspeed = ["deepspeed>=0.16.9"]
world = ["matplotlib>=3.9", "scikit-learn>=1.5", "scipy>=1.13"]
downstream = world
real = [*world, "resvg-py>=0.5"]
ray = ["ray[data]>=2.40"]
hdf5 = ["h5py>=3.11"]
notebook = ["nbclient>=0.10", "nbformat>=5.10", "ipykernel>=6.29"]
tensorboard = ["tensorboard>=2.18"]
slurm = ["submitit>=1.5"]
test = [
    "pytest>=8",
    "pytest-xdist>=3.6.1",
    "hypothesis>=6.100",
    "pysubs2>=1.7.1",
    "webvtt-py>=0.5",
    "markdown>=3.5",
    "selenium>=4.20",
    *tensorboard,
    *deepspeed,
    *hdf5,
    *world,
    *notebook,
]
docs = ["mkdocs>=1.6", "mkdocs-material>=9.5", "mkdocstrings[python]>=0.27"]
types = ["mypy>=1.18", "types-PyYAML", "types-psutil"]

setup(
    name="vidlankd_hf",
    version=VERSION,
    description="Teach a text-only language model from video: VidLanKD for Hugging Face",
    long_description=long_description(),
    long_description_content_type="text/markdown",
    author="The vidlankd_hf authors",
    license="Apache-2.0",
    keywords=["knowledge distillation", "language models", "video", "grounding", "transformers"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    project_urls={
        "Paper": "https://arxiv.org/abs/2107.02681",
        **({"Source": URL, "Issues": f"{URL}/issues", "Changelog": f"{URL}/blob/main/CHANGELOG.md"} if URL else {}),
    },
    python_requires=">=3.11",
    packages=[
        *find_packages(include=["vidlankd_hf", "vidlankd_hf.*"]),
        "vidlankd_hf.examples",
        "vidlankd_hf.accelerate_configs",
    ],
    package_dir={"vidlankd_hf.examples": "examples", "vidlankd_hf.accelerate_configs": "accelerate_configs"},
    package_data={
        "vidlankd_hf": ["py.typed", "**/*.html", "**/*.md"],
        "vidlankd_hf.examples": ["recipes/*.yaml"],
        "vidlankd_hf.accelerate_configs": ["*.yaml"],
    },
    entry_points={"console_scripts": ["vidlankd = vidlankd_hf.cli:main"]},
    install_requires=[
        "torch>=2.6",
        # The trainers use private names of `Trainer` (reliability/trainer_hooks.py), which minor releases do change:
        # raise the cap after tests/reliability/test_trainer_hooks.py passes with the new release.
        "transformers>=5.20,<5.24",
        "accelerate>=1.10",
        "datasets>=4.0",
        "evaluate>=0.4.5",
        # The next two are what transformers 5.20 itself requires.
        "safetensors>=0.8",
        "huggingface_hub>=1.31",
        "tokenizers>=0.23.3",  # earlier ones return only the first window of a long text
        "numpy>=2.0",
        "pyarrow>=17",
        "xxhash>=3.5",  # datasets requires it too
        "av>=17",
        "pillow>=11",
        "psutil>=5.9",
        "pyyaml>=6.0.1",
        "fsspec>=2024.6",
        "jinja2>=3.1",
        "tqdm>=4.66.3",
    ],
    extras_require={
        "deepspeed": deepspeed,
        "world": world,
        "downstream": downstream,
        "real": real,
        "ray": ray,
        "hdf5": hdf5,
        "notebook": notebook,
        "tensorboard": tensorboard,
        "slurm": slurm,
        "all": sorted({*deepspeed, *world, *real, *ray, *hdf5, *notebook, *tensorboard, *slurm}),
        "test": test,
        "docs": docs,
        "dev": [*test, *docs, *types, "ruff>=0.12"],
    },
)

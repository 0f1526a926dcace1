import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "vidlankd_hf" / "__init__.py").read_text()).group(1)

deepspeed = ["deepspeed>=0.16"]
world = ["matplotlib>=3.8", "scikit-learn>=1.4", "scipy>=1.11"]
downstream = world
ray = ["ray[data]>=2.40"]
notebook = ["nbclient>=0.10", "nbformat>=5.10", "ipykernel>=6.29"]
test = [
    "pytest>=8",
    "pytest-xdist>=3.6",
    "hypothesis>=6.100",
    "markdown>=3.5",
    "selenium>=4.20",
    "tensorboard>=2.16",
    *deepspeed,
    *world,
    *notebook,
]
docs = ["mkdocs>=1.6", "mkdocs-material>=9.5", "mkdocstrings[python]>=0.27"]

setup(
    name="vidlankd_hf",
    version=VERSION,
    description="Teach a text-only language model from video: VidLanKD for Hugging Face",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["vidlankd_hf", "vidlankd_hf.*"]),
    package_data={"vidlankd_hf": ["py.typed", "evaluation/grounding_page.html"]},
    install_requires=[
        "torch>=2.6",
        "transformers>=5.20",
        "accelerate>=1.10",
        "datasets>=4.0",
        "evaluate>=0.4.5",
        "safetensors>=0.5",
        "tokenizers>=0.22",
        "huggingface_hub>=1.0",
        "numpy>=2.0",
        "pyarrow>=17",
        "av>=14",
        "pillow>=11",
        "psutil>=5.9",
        "pyyaml>=6",
        "fsspec>=2024.6",
        "tqdm>=4.66",
    ],
    extras_require={
        "deepspeed": deepspeed,
        "world": world,
        "downstream": downstream,
        "ray": ray,
        "notebook": notebook,
        "test": test,
        "docs": docs,
        "dev": [*test, *docs, "ruff>=0.12"],
    },
)

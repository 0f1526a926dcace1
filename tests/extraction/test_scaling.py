"""Extraction in several launched processes, and on a local Ray cluster that loses a worker."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vidlankd_hf.extraction import extract_features

pytestmark = pytest.mark.slow
HERE = Path(__file__).parents[1]
SMALL = {"shard_bytes": 100, "batch_size": 1}  # a shard for each video, and the same bits in any batch


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, videos, backbones):
    """The files that one process writes."""
    folder = tmp_path_factory.mktemp("whole")
    extract_features(str(videos), folder, backbones, **SMALL)
    return files(folder)


def test_launched_processes_share_the_shards(tmp_path, videos, backbones, whole):
    bad = tmp_path / "videos"
    bad.mkdir()
    for path in videos.glob("*.mp4"):
        (bad / path.name).write_bytes(path.read_bytes())
    (bad / "3.mp4").write_bytes(b"")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29617"]
    command += [str(HERE.parent / "examples" / "extract_features.py"), "--videos", str(bad), "--device", "cpu"]
    command += ["--output_dir", str(tmp_path / "features"), "--shard_bytes", "100", "--batch_size", "1"]
    command += ["--frame_model", backbones[0].model, "--clip_model", backbones[1].model]
    done = subprocess.run(command, capture_output=True, text=True, timeout=580)
    assert done.returncode != 0 and "1 of 4 videos failed, but --max_failed is 0" in done.stderr, done.stderr[-3000:]
    for name in ("shard-00000.safetensors", "shard-00001.safetensors", "shard-00002.safetensors", "index.jsonl"):
        assert (tmp_path / "features" / name).read_bytes() == whole[name]
    done = subprocess.run([*command, "--max_failed", "1"], capture_output=True, text=True, timeout=580)
    assert done.returncode == 0 and done.stdout.count("Features of 3 videos") == 2, done.stderr[-3000:]


@pytest.fixture(scope="module")
def cluster():
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "300")  # a machine may be busy; read at import
    ray = pytest.importorskip("ray")
    paths = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    ray.init(num_cpus=2, include_dashboard=False, runtime_env={"env_vars": {"PYTHONPATH": paths}})
    yield
    ray.shutdown()


def test_lost_ray_worker_loses_nothing(tmp_path, videos, backbones, whole, cluster, monkeypatch):
    from vidlankd_hf.extraction import ray as on_ray

    class Mortal(on_ray.ShardWorker):
        """Is killed once, before it extracts the second shard."""

        def __call__(self, row):
            died = tmp_path / "died"
            if row["task"] == 1 and not died.exists():
                died.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().__call__(row)

    monkeypatch.setattr(on_ray, "ShardWorker", Mortal)
    store = on_ray.extract_with_ray(1, tmp_path / "features", videos=str(videos), streams=backbones, **SMALL)
    assert (tmp_path / "died").exists() and store.video_ids == ["0.mp4", "1.mp4", "2.mp4"]
    assert files(tmp_path / "features") == whole

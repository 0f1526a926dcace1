"""Processes that tests start: distributed runs, and Python without this package."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Makes this package, and packages that only training needs, look as if they were not installed.
WITHOUT_PACKAGE = """
import sys
for name in ("vidlankd_hf", "deepspeed", "datasets", "evaluate", "av", "sklearn"):
    sys.modules[name] = None
try:
    import vidlankd_hf
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("the package is there")
"""


# Modules that need neither torch nor transformers are imported without the package's __init__.py, which does.
LIGHT = f"""
import sys, types
package = types.ModuleType("vidlankd_hf")
package.__path__ = [{str(ROOT / "vidlankd_hf")!r}]
sys.modules["vidlankd_hf"] = package
"""


def launched(config: str, folder: Path, options: dict) -> subprocess.Popen:
    """Starts `distributed_run.py` with `accelerate launch`, and logs to `folder/log.txt`."""
    folder.mkdir(exist_ok=True)
    options = {**options, "output_dir": str(folder / "run"), "result": str(folder / "result.json")}
    command = [sys.executable, "-m", "accelerate.commands.launch"]
    command += ["--config_file", str(ROOT / "accelerate_configs" / config), "--main_process_port", "0"]
    log = open(folder / "log.txt", "a")
    return subprocess.Popen(
        [*command, str(ROOT / "tests" / "distributed_run.py"), json.dumps(options)], stdout=log, stderr=log
    )


def run_without_package(code: str, tmp_path, **environment) -> subprocess.CompletedProcess:
    """Runs `code` in a process in which this package cannot be imported."""
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), **environment}
    environment.pop("PYTHONPATH", None)
    command = [sys.executable, "-c", WITHOUT_PACKAGE + code]
    return subprocess.run(command, capture_output=True, text=True, timeout=500, env=environment, cwd=tmp_path)

"""Damaged JSON is an error that names the file, wherever the package reads JSON."""

import ast
import os
from pathlib import Path

import pytest

import vidlankd_hf
from vidlankd_hf.utils import json_files
from vidlankd_hf.utils.json_files import read_json, read_text

PACKAGE = Path(vidlankd_hf.__file__).parent


@pytest.mark.parametrize("content", ["", "{", "[" * 100_000, "[]", "5", '{"a": ' * 100_000, "1" + "0" * 5000])
def test_damaged_file_is_named_with_what_to_do(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ValueError, match=r"a\.json is damaged \(.*\): remove it"):
        read_json(tmp_path / "a.json", dict, "remove it")


def test_intact_file_is_read_and_a_missing_one_is_missing(tmp_path):
    (tmp_path / "a.json").write_text('{"ä": [1]}', encoding="utf-8")
    assert read_json(tmp_path / "a.json", dict, "remove it") == {"ä": [1]}
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "b.json", dict, "remove it")


def test_pipe_device_folder_and_endless_file_are_refused_at_once(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    (tmp_path / "long").write_text("12345")
    monkeypatch.setattr(json_files, "MOST_BYTES", 4)
    for name in ("pipe", "device", "folder", "long"):
        with pytest.raises(OSError, match=name):
            read_text(tmp_path / name)
        with pytest.raises(ValueError, match=f"{name} is damaged"):
            read_json(tmp_path / name, dict, "remove it")


# What this program has made itself, in memory or in a pipe to its own child, and what is guarded by a caller.
ALLOWED = {
    "extraction/child.py": 2,
    "extraction/decoders.py": 1,
    "data/vocabulary.py": 1,
    "data/caption_values.py": 1,  # in a loop over two parsers
    "evaluation/squad.py": 1,  # `official_layout`
    "experiments/world/task.py": 1,  # `official_layout`
    "data/window_shards.py": 1,  # tables whose checksums were verified
    "data/features.py": 2,  # lines that were checked when the index was read
    "data/howto100m.py": 1,  # lines whose checksum was verified
    "data/window_writer.py": 1,  # lines of verified files
    "data/open_shard.py": 1,  # a header that safetensors has read before
    "cli.py": 1,
    "reliability/checkpointing.py": 4,  # messages between processes, and a verified checkpoint
    "reliability/fault_tolerant_trainer.py": 1,  # of a verified checkpoint
    "reliability/run_dir.py": 1,
    "reliability/manifest.py": 3,  # `verify_checkpoint`
}


def unguarded(source: str) -> list[str]:
    """Calls that parse JSON outside a `try` that catches a `RecursionError`, except of what was just written."""
    found = []

    def visit(node, guarded):
        if isinstance(node, ast.Try):
            caught = any("RecursionError" in ast.unparse(handler.type or ast.Name("")) for handler in node.handlers)
            for child in node.body:
                visit(child, guarded or caught)
            for child in (*node.handlers, *node.orelse, *node.finalbody):
                visit(child, guarded)
            return
        name = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
        if name in ("json.loads", "json.load") and not guarded:
            found.append(name)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "json.loads" and node.args:
            argument = ast.unparse(node.args[0])
            if argument.startswith("json.dumps("):
                return
        for child in ast.iter_child_nodes(node):
            visit(child, guarded)

    visit(ast.parse(source), False)
    return found


def test_no_json_is_parsed_without_a_limit_of_its_depth():
    found = {path: len(unguarded(path.read_text())) for path in sorted(PACKAGE.rglob("*.py"))}
    counts = {path.relative_to(PACKAGE).as_posix(): count for path, count in found.items() if count}
    assert counts == ALLOWED, "use utils/json_files.py, or catch RecursionError"


def test_unguarded_calls_are_found():
    assert unguarded("json.loads(x)\nmap(json.loads, x)") == ["json.loads", "json.loads"]
    assert (
        unguarded("try:\n  json.loads(x)\nexcept (ValueError, RecursionError):\n  pass\njson.loads(json.dumps(x))")
        == []
    )
    assert unguarded("try:\n  json.loads(x)\nexcept ValueError:\n  json.load(x)") == ["json.loads", "json.load"]

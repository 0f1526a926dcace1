"""Mutation testing: each small change to the losses, masks and collators must make a fast test fail.

    make mutants

Mutants are sampled uniformly from all operators, comparisons, numbers and booleans that can be changed. They are made
in a copy; the working tree is not changed.
"""

import argparse
import ast
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
TESTS = {
    "models/losses.py": ["models/test_losses.py", "data/test_properties.py"],
    "models/contrast.py": ["models/test_losses.py", "data/test_properties.py"],
    "data/masking.py": ["data/test_masking.py", "data/test_properties.py"],
    "data/collators.py": ["data/test_masking.py", "models/test_teacher.py", "data/test_properties.py"],
}
SWAPS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitOr, ast.RShift: ast.LShift, ast.LShift: ast.RShift,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.And: ast.Or, ast.Or: ast.And, ast.Invert: None, ast.USub: None, ast.Not: None,
}  # fmt: skip


def places(tree: ast.AST) -> list[tuple[ast.AST, str, int]]:
    """Returns (node, field, index) of everything that can be changed, except strings, messages and annotations."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.Raise, ast.JoinedStr, ast.AnnAssign)):
            for inner in ast.walk(node):
                inner.left_out = True
    for node in ast.walk(tree):
        if getattr(node, "left_out", False):
            continue
        if isinstance(node, (ast.BinOp, ast.AugAssign, ast.BoolOp, ast.UnaryOp)) and type(node.op) in SWAPS:
            found.append((node, "op", 0))
        elif isinstance(node, ast.Compare):
            found += [(node, "ops", i) for i, op in enumerate(node.ops) if type(op) in SWAPS]
        elif isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float)):
            found.append((node, "value", 0))
    return found


def mutate(source: str, number: int) -> tuple[str, str]:
    """Changes the n-th place of a source, and returns the new source and a description of the change."""
    tree = ast.parse(source)
    node, field, which = places(tree)[number]
    line, before = node.lineno, ast.unparse(node)
    if field == "ops":
        node.ops[which] = SWAPS[type(node.ops[which])]()
    elif field == "value":
        node.value = not node.value if isinstance(node.value, bool) else node.value + 1
    elif SWAPS[type(node.op)] is None:  # applied twice, the operator has no effect
        node.operand = ast.UnaryOp(node.op, node.operand)
    else:
        node.op = SWAPS[type(node.op)]()
    return ast.unparse(tree), f"line {line}: {before}  ->  {ast.unparse(node)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=15, help="mutants per file")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample")
    args = parser.parse_args()
    chance, survivors, total = random.Random(args.seed), [], 0
    with tempfile.TemporaryDirectory(prefix="mutants-") as copy:
        for name in ("vidlankd_hf", "tests"):
            shutil.copytree(ROOT / name, Path(copy) / name)
        environment = {**os.environ, "PYTHONPATH": copy, "PYTHONDONTWRITEBYTECODE": "1"}
        for name, tests in TESTS.items():
            path = Path(copy) / "vidlankd_hf" / name
            source = path.read_text()
            count = len(places(ast.parse(source)))
            for number in sorted(chance.sample(range(count), min(args.count, count))):
                mutant, what = mutate(source, number)
                path.write_text(mutant)
                command = [
                    sys.executable,
                    "-m",
                    "pytest",
                    "-q",
                    "-x",
                    "-m",
                    "not slow",
                    *(f"tests/{t}" for t in tests),
                ]
                killed = subprocess.run(
                    command, cwd=copy, env=environment, capture_output=True, timeout=600
                ).returncode
                total += 1
                print(f"{'killed  ' if killed else 'SURVIVED'}  {name}, {what}", flush=True)
                if not killed:
                    survivors.append(f"{name}, {what}")
            path.write_text(source)
    print(f"{total - len(survivors)} of {total} killed; survivors:\n" + "\n".join(survivors))


if __name__ == "__main__":
    main()

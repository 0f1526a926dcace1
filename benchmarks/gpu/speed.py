"""How fast is a distillation step on one GPU, and where does its time go?

    python benchmarks/gpu/speed.py --output_dir results
    python benchmarks/gpu/speed.py --output_dir results --rehearse

Times the variants of benchmarks/step.py: first ours against the stock Trainer, then torch.compile and CUDA graphs,
batch sizes, and the original's arithmetic. Each row of speed.json has tokens/s, model FLOPs by the formula of
docs/scaling.md, their share of 790 TFLOP/s (`mfu`), peak memory, the share of time in matrix products, the kernels of
attention, and the ten longest kernels.
"""

import sys
from argparse import Namespace

from results import Results, arguments, parser_of  # isort: skip  (finds the others)
import numpy as np
import step
import torch
from step_variants import BLOCK

LIMIT = 790e12  # FLOP/s of large bf16 matrix products on one H200
# Name, model type, size, ways, precisions, batch (128 tokens each); most valuable first.
RUNS = [
    ("base", "bert", "base", ["ours", "stock"], ["bf16"], 256),
    ("small", "bert", "small", ["ours", "stock"], ["bf16"], 512),
    ("base_1024", "bert", "base", ["ours"], ["bf16"], 1024),
    ("modernbert", "modernbert", "base", ["ours", "stock"], ["bf16"], 256),
    ("base_compiled", "bert", "base", ["compiled"], ["bf16"], 256),
    ("base_graphs", "bert", "base", ["graphs"], ["bf16"], 256),
    ("base_original", "bert", "base", ["original"], ["fp32"], 64),
    ("base_64", "bert", "base", ["ours", "stock"], ["bf16"], 64),
    ("small_2048", "bert", "small", ["ours"], ["bf16"], 2048),
    ("small_compiled", "bert", "small", ["compiled"], ["bf16"], 512),
    ("small_graphs", "bert", "small", ["graphs"], ["bf16"], 512),
    ("base_2048", "bert", "base", ["ours"], ["bf16"], 2048),
    ("base_fp32", "bert", "base", ["ours", "stock"], ["fp32", "medium"], 256),
    ("small_64", "bert", "small", ["ours", "graphs"], ["bf16"], 64),
]
TARGETS = {"base tokens/s": 0.55e6, "base MFU": 0.5, "small tokens/s": 2.0e6, "base, times stock": 1.5}


def measure(run: tuple, args, peaks: dict, tokenizer) -> dict:
    _, model_type, size, ways, precisions, batch = run
    if args.rehearse:
        size, batch = "tiny", 2
    options = Namespace(ways=ways, precisions=precisions, batch=batch, rounds=1 if args.rehearse else 3, peaks=peaks,
                        teacher=None, model_type=model_type)  # fmt: skip
    shape = (options.rounds + 1, batch, BLOCK)
    rows = np.random.default_rng(0).integers(5, step.VOCABULARY, shape, dtype=np.uint16)
    try:
        found = step.time_variants(options, size, "both", tokenizer, args.device, rows)
    finally:
        torch.compiler.reset()
        if args.device == "cuda":
            torch.cuda.empty_cache()
    for row in found:
        row.update(batch=batch, model_type=model_type, mfu=row["model_flops"] / row["seconds"] / LIMIT)
    return {"rows": found, **{f"{row['way']}, {row['precision']}": round(row["tokens_per_second"]) for row in found}}


def agreement(args, tokenizer) -> dict:
    """Losses and gradient norms of the variants that are compared, on one batch of each kind of model."""
    rows = np.random.default_rng(0).integers(5, step.VOCABULARY, (8, BLOCK), dtype=np.uint16)
    size = "tiny" if args.rehearse else "small"
    return {
        model_type: step.check_agreement(("original", "stock", "ours"), size, size, step.OBJECTIVES["both"], tokenizer,
                                         rows, args.device, model_type)
        for model_type in ("bert", "modernbert")
    }  # fmt: skip


def targets(results: Results) -> dict:
    rows = {name: {row["way"]: row for row in results.checks[name]["rows"]} for name in ("base", "small")}
    ours, stock, small = rows["base"]["ours"], rows["base"]["stock"], rows["small"]["ours"]
    best = {
        name: max((row for check in results.checks.values() for row in check.get("rows", ())
                   if (row["student"], row["model_type"]) == (ours["student"] if name == "base" else small["student"],
                                                               "bert") and row["way"] != "stock"),
                  key=lambda row: row["tokens_per_second"])
        for name in rows
    }  # fmt: skip
    reached = {
        "base tokens/s": best["base"]["tokens_per_second"],
        "base MFU": best["base"]["mfu"],
        "small tokens/s": best["small"]["tokens_per_second"],
        "base, times stock": stock["seconds"] / ours["seconds"],
    }
    return {name: {"target": target, "reached": reached[name]} for name, target in TARGETS.items()}


def main() -> None:
    args = arguments(parser_of(__doc__))
    results, tokenizer = Results("speed", args), step.make_tokenizer()
    side = 8192 if args.device == "cuda" else 512
    peaks = {precision: step.peak_rate(precision, args.device, side) for precision in step.PRECISIONS}
    results.run("peaks", lambda: {"flops": peaks})
    results.run("agreement", lambda: agreement(args, tokenizer))
    for run in RUNS:
        if not args.only or run[0] in args.only:
            results.run(run[0], lambda run=run: measure(run, args, peaks, tokenizer))
            results.checks.pop("targets", None)
            if {"base", "small"} <= {name for name, check in results.checks.items() if "rows" in check}:
                results.run("targets", lambda: targets(results))
    sys.exit(f"failed: {', '.join(results.failed)}" if results.failed else 0)


if __name__ == "__main__":
    main()

"""Times one distillation step: the original release's arithmetic, a stock Trainer, this package, and MLM only.

    python benchmarks/step.py --sizes small --objectives both

All variants start from the same weights and read the same blocks. Before any time is printed, they must agree on
loss and gradient norm (dropout 0, fp32). Variants are interleaved, with one warm-up step before each timed step. On a
GPU, a timed round is several steps without waiting in between, on batches that are already in pinned memory, where a
training run's loader workers put them. Needs torch and transformers; draws a figure if matplotlib is installed.

Variants (--ways):
  original   per-sample D x D NST, a loop over positions, full logits of both models, a round trip to the host, an
             AdamW loop
  stock      what a Trainer with BertForMaskedLM does: full logits of both models, vectorized D x D losses, the
             stock collator, a host sync for every loss, fused AdamW
  ours       DistillationTrainer.training_step
  compiled   the same with both encoders under torch.compile
  graphs     the same under torch.compile(mode="reduce-overhead"), which uses CUDA graphs
  alone      DistillationTrainer without objectives and teacher: MLM only
Precisions: fp32; medium (torch.set_float32_matmul_precision: TF32 on GPUs, bf16 on CPUs with AMX, oneDNN's fp32 on
other CPUs); bf16 (autocast in the forward pass; the teacher of `ours` is loaded in bf16).
"""

import argparse
import json
import sys
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import numpy as np
import torch
from measuring import describe_machine, peak_memory, seconds
from step_variants import BLOCK, WAYS, Ours, Way, make_models
from transformers import BertTokenizer

from vidlankd_hf import TextCollator

VOCABULARY = 30522
OBJECTIVES = {"none": {}, "nst": {"nst": 1.0}, "crd": {"crd": 1.0}, "both": {"nst": 1.0, "crd": 1.0}}
PRECISIONS = ("fp32", "medium", "bf16")
PARTS = ("data", "teacher", "encoder", "head", "objectives", "optimizer")
AGREEMENT = {"cpu": 1e-5, "cuda": 1e-4}
STEPS_PER_ROUND = {"cpu": 1, "cuda": 10}
LABELS = {
    "original": "original release",
    "stock": "stock Trainer",
    "ours": "vidlankd_hf",
    "compiled": "vidlankd_hf, compiled",
    "graphs": "vidlankd_hf, CUDA graphs",
    "alone": "vidlankd_hf, MLM only",
}


def check_agreement(
    names, teacher_size, size, objectives, tokenizer, rows, device, model_type="bert"
) -> dict[str, tuple[float, float]]:
    """Returns (loss, gradient norm) of each variant on one masked batch (dropout 0, fp32); exits if they differ."""
    torch.set_float32_matmul_precision("highest")
    samples = [{"input_ids": row, "sample_id": i, "epoch": 0} for i, row in enumerate(rows)]
    batch = {name: value.to(device) for name, value in TextCollator(tokenizer)(samples).items()}
    labels = torch.full_like(batch["input_ids"], -100)
    labels = labels.scatter(1, batch["masked_positions"], batch["masked_labels"])
    dense = {"input_ids": batch["input_ids"], "attention_mask": torch.ones_like(labels), "labels": labels}
    seen = {}
    for name in names:
        teacher, student = make_models(teacher_size, size, objectives, tokenizer, 0.0, device, model_type)
        way = WAYS[name](teacher, student, tokenizer, objectives, device, bf16=False)
        loss = way.loss(batch if isinstance(way, Ours) else dense)
        loss.backward()
        norm = torch.nn.utils.get_total_norm([p.grad for p in student.parameters() if p.grad is not None])
        seen[name] = (loss.item(), norm.item())
    for name, values in seen.items():
        for value, reference in zip(values, seen["original"]):
            if abs(value - reference) > AGREEMENT[device] * abs(reference):
                raise SystemExit(
                    f"the variants disagree, so nothing is timed: (loss, gradient norm) is {seen['original']} for "
                    f"original and {values} for {name}"
                )
    torch.compiler.reset()  # otherwise it would compile the timed variants for batches of any size
    return seen


@contextmanager
def products_at(precision: str):
    torch.set_float32_matmul_precision("medium" if precision == "medium" else "highest")
    yield
    torch.set_float32_matmul_precision("highest")


def split(way: Way, rows: np.ndarray, epoch: int) -> dict[str, float]:
    """Seconds of each part of one step; `encoder`, `head` and `objectives` include their backward passes."""
    times, kept = dict.fromkeys(PARTS, 0.0), {}

    def part(name, work):
        times[name] += seconds(lambda: kept.update(result=work()), way.device)
        return kept["result"]

    def cast(function, *inputs):
        with way.autocast():
            return function(*inputs)

    batch = part("data", lambda: way.on_device(way.collate(rows, epoch)))
    taught = part("teacher", lambda: cast(way.teach, batch)) if way.objectives else None
    states = part("encoder", lambda: cast(way.encode, batch))
    leaf = states.detach().requires_grad_()
    part("head", lambda: cast(way.head, leaf, batch).backward())
    if way.objectives:
        part("objectives", lambda: cast(way.distill, leaf, taught, batch).backward())
    part("encoder", lambda: states.backward(leaf.grad))
    part("optimizer", way.update)
    return times


def step_seconds(way: Way, rows: np.ndarray, epoch: int) -> float:
    """Seconds of a step: on a CPU including collating; on a GPU the mean of several steps on prepared batches."""
    count = STEPS_PER_ROUND[way.device]
    if count == 1:
        return seconds(lambda: way.step(way.collate(rows, epoch)), way.device)
    batch = {name: value.pin_memory() for name, value in way.collate(rows, epoch).items()}
    return seconds(lambda: [way.step(batch) for _ in range(count)], way.device) / count


def peak_rate(precision: str, device: str, size: int) -> float:
    """FLOP/s of a product of two square matrices, best of 10."""
    a, b = (torch.randn(size, size, device=device) for _ in range(2))
    with products_at(precision):
        if precision == "bf16":
            a, b = a.bfloat16(), b.bfloat16()
        times = [seconds(lambda: a @ b, device) for _ in range(12)]
    return 2 * size**3 / min(times[2:])


def model_flops(teacher, student, objectives: dict, batch: int, masked: int) -> float:
    """FLOP of the matrix products that a step needs; a product of [m, k] and [k, n] counts 2mkn."""
    length, tokens = BLOCK + 2, batch * (BLOCK + 2)

    def encoder(config) -> float:
        width, inner = config.hidden_size, config.intermediate_size
        products = 6 if config.model_type == "modernbert" else 4  # ModernBERT's feed-forward layers are gated
        return tokens * config.num_hidden_layers * (8 * width**2 + products * width * inner + 4 * length * width)

    s, total = student.config, 3 * encoder(student.config)
    total += 3 * masked * (2 * s.hidden_size**2 + 2 * s.hidden_size * s.vocab_size)
    if objectives:
        total += encoder(teacher.config.text_config)
        total += 3 * len(objectives) * tokens * 2 * (s.hidden_size**2 + s.hidden_size * teacher.config.hidden_size)
    return total


def profile(way: Way, rows, device: str) -> dict:
    """Share of a step's time in matrix products (attention included), their seconds, and the ten longest kernels."""
    activity = torch.profiler.ProfilerActivity.CUDA if device == "cuda" else torch.profiler.ProfilerActivity.CPU
    batch = way.collate(rows, 0)
    with torch.profiler.profile(activities=[activity]) as profiled:
        whole = seconds(lambda: way.step(batch), device)
    names = ("mm", "gemm", "attention", "linear", "cutlass", "nvjet", "flash", "fmha")
    field = "self_device_time_total" if device == "cuda" else "self_cpu_time_total"
    times = {event.key: getattr(event, field) / 1e6 for event in profiled.key_averages()}
    products = sum(time for key, time in times.items() if any(n in key.lower() for n in names))
    attention = [key for key in times if any(n in key.lower() for n in ("flash", "fmha", "sdp", "cudnn_generated"))]
    longest = sorted(times.items(), key=lambda item: -item[1])[:10]
    return {
        "matmul_share": products / whole, "matmul_seconds": products,
        "kernels": {key[:120]: time for key, time in longest}, "attention_kernels": [key[:120] for key in attention],
    }  # fmt: skip


def measure(args, size: str, name: str, tokenizer, device: str) -> list[dict]:
    """Measures all variants for one student size and one set of objectives; returns the rows of the table."""
    objectives = OBJECTIVES[name]
    rows = np.random.default_rng(0).integers(5, VOCABULARY, (args.rounds + 1, args.batch, BLOCK), dtype=np.uint16)
    teacher_size = args.teacher or size
    compared = ["original", "stock", "ours", *(way for way in ("compiled", "graphs") if way in args.ways)]
    agreed = check_agreement(compared, teacher_size, size, objectives, tokenizer, rows[0, :8], device, args.model_type)
    print(f"\n{teacher_size} -> {size}, {name}: loss and gradient norm agree ({agreed['ours'][0]:.6f}, "
          f"{agreed['ours'][1]:.6f})", flush=True)  # fmt: skip
    return time_variants(args, size, name, tokenizer, device, rows)


def time_variants(args, size: str, name: str, tokenizer, device: str, rows: np.ndarray) -> list[dict]:
    """Times the variants on `rows [rounds + 1, batch, tokens]`, interleaved, and times the parts of each."""
    objectives, teacher_size = OBJECTIVES[name], args.teacher or size
    ways, cells = {}, []
    for kind in args.ways:
        own, made = {} if kind == "alone" else objectives, {}
        for precision in args.precisions:
            bf16 = precision == "bf16"
            if kind == "original" and bf16:
                continue  # the original has no autocast
            if bf16 not in made:
                teacher, student = make_models(teacher_size, size, own, tokenizer, 0.1, device, args.model_type)
                if bf16 and kind in ("ours", "compiled", "graphs"):
                    teacher = teacher.to(torch.bfloat16)
                made[bf16] = WAYS[kind](teacher, student, tokenizer, own, device, bf16)
            ways[kind, precision] = made[bf16]
            cells.append((kind, precision))
    times, memory = {cell: [] for cell in cells}, {}
    for kind, precision in cells:  # warm-up: compiles, tunes, allocates the optimizer's state
        with products_at(precision):
            way = ways[kind, precision]
            for _ in range(3 if kind == "graphs" else 1):  # graphs are recorded at the second step
                way.step(way.collate(rows[-1], 0))
            memory[kind, precision] = peak_memory(lambda: way.step(way.collate(rows[-1], 0)), device)  # noqa: B023
    for turn in range(args.rounds):
        for kind, precision in cells:
            with products_at(precision):
                way = ways[kind, precision]
                way.step(way.collate(rows[-1], turn))  # untimed: it allocates the memory that another variant freed
                times[kind, precision].append(step_seconds(way, rows[turn], turn))
    results = []
    masked = args.batch * round(0.15 * BLOCK)
    for kind, precision in cells:
        way, step = ways[kind, precision], median(times[kind, precision])
        with products_at(precision):
            profiled = profile(way, rows[0], device)
            splits = [] if kind in ("compiled", "graphs") else [split(way, rows[0], 0) for _ in range(3)]
            parts = {part: median(s[part] for s in splits) for part in PARTS} if splits else {}
        flops = model_flops(way.teacher, way.student, way.objectives, args.batch, masked)
        row = {
            "teacher": teacher_size if way.objectives else None, "student": size, "objectives": name, "way": kind,
            "precision": precision, "seconds": step, "all_seconds": times[kind, precision],
            "tokens_per_second": args.batch * (BLOCK + 2) / step, "step_memory": memory[kind, precision],
            "model_flops": flops, "share_of_peak": flops / step / args.peaks[precision], **profiled, "parts": parts,
        }  # fmt: skip
        results.append(row)
        print(line(row), flush=True)
    return results


HEADER = (
    "| student | objectives | variant | precision | ms per step | tokens/s | MiB | share of peak | in products | "
    + " | ".join(PARTS)
    + " |\n|"
    + "---|" * (9 + len(PARTS))
)


def line(row: dict) -> str:
    memory = "" if row["step_memory"] is None else f"{row['step_memory'] / 2**20:.0f}"
    parts = [f"{1000 * row['parts'][p]:.1f}" if row["parts"] else "" for p in PARTS]
    cells = [row["student"], row["objectives"], row["way"], row["precision"], f"{1000 * row['seconds']:.1f}",
             f"{row['tokens_per_second']:.0f}", memory, f"{100 * row['share_of_peak']:.0f} %",
             f"{100 * row['matmul_share']:.0f} %", *parts]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def ratios(rows: list[dict]) -> dict[str, float]:
    """Speed-up of `ours` over the variants it is compared with."""
    by = {(r["student"], r["objectives"], r["way"], r["precision"]): r["seconds"] for r in rows}
    found = {}
    for (student, objectives, way, precision), slow in by.items():
        ours = by.get((student, objectives, "ours", precision))
        if way in ("original", "stock") and ours:
            found[f"{student} {objectives}: {way} {precision} / ours {precision}"] = slow / ours
        bf16 = by.get((student, objectives, "ours", "bf16"))
        if way == "original" and precision == "fp32" and bf16:
            found[f"{student} {objectives}: original fp32 / ours bf16"] = slow / bf16
    return found


def draw(rows: list[dict], machine: dict, path: Path) -> None:
    """Draws the parts of a step of each variant as stacked bars; the number is the time of the timed step."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("No figure: matplotlib is not installed.")
        return

    rows = [row for row in rows if row["parts"] and row["objectives"] == rows[-1]["objectives"]]
    sizes = list(dict.fromkeys(row["student"] for row in rows))
    names = [
        (f"{row['student']}: " if len(sizes) > 1 else "") + f"{LABELS[row['way']]}, {row['precision']}" for row in rows
    ]
    figure = Figure(figsize=(9.5, 0.36 * len(rows) + 1.8), layout="constrained")
    axis, left = figure.subplots(), np.zeros(len(rows))
    for part, color in zip(PARTS, ("#3e4c59", "#c98a1b", "#2f6fab", "#7fb2e5", "#3f9d6b", "#8d6cab")):
        width = np.array([1000 * row["parts"][part] for row in rows])
        axis.barh(names, width, left=left, label=part, color=color)
        left += width
    for i, row in enumerate(rows):
        axis.text(1.02, i, f"{1000 * row['seconds']:,.0f} ms", va="center", fontsize=9,
                  transform=axis.get_yaxis_transform())  # fmt: skip
    axis.set_title("step", loc="right", fontsize=9, x=1.08)
    axis.set_title(f"{' and '.join(sizes)} student, {machine['processor']}", fontsize=11)
    axis.set(ylim=(len(rows) - 0.5, -0.5), xlabel="ms per step, parts timed one by one")
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(fontsize=9, loc="outside lower center", ncols=len(PARTS), frameon=False)
    figure.savefig(path, dpi=120)


def make_tokenizer() -> BertTokenizer:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(VOCABULARY - 5))]
    return BertTokenizer(vocab={word: i for i, word in enumerate(words)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["small"], help="sizes of the student: tiny, small, base")
    parser.add_argument("--teacher", help="size of the teacher (default: the student's)")
    parser.add_argument(
        "--model_type", choices=("bert", "modernbert"), default="bert", help="model type of the student"
    )
    parser.add_argument("--objectives", nargs="+", choices=OBJECTIVES, default=["both"])
    parser.add_argument(
        "--ways", nargs="+", choices=WAYS, default=["original", "stock", "ours", "alone"], help="variants to time"
    )
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--batch", type=int, default=8, help="sequences of 128 tokens per step (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="timed steps per variant (default: %(default)s)")
    parser.add_argument("--output_dir", type=Path, help="folder for step.json, .md and .png (default: only print)")
    parser.add_argument("--floors", type=Path, help="JSON file of minimum ratios; the run fails below one")
    args = parser.parse_args()
    floors = json.loads(args.floors.read_text()) if args.floors else {}

    device = "cuda" if torch.cuda.is_available() else "cpu"
    machine = describe_machine(device)
    print(json.dumps(machine, indent=1))
    side = 8192 if device == "cuda" else 2048
    args.peaks = {precision: peak_rate(precision, device, side) for precision in args.precisions}
    print("Peak of matrix products:", {p: f"{rate / 1e9:.0f} GFLOP/s" for p, rate in args.peaks.items()})
    tokenizer = make_tokenizer()

    rows = []
    for size in args.sizes:
        for name in args.objectives:
            rows += measure(args, size, name, tokenizer, device)
    compared = ratios(rows)
    table = "\n".join([HEADER, *map(line, rows)])
    print(f"\n{table}\n")
    for what, ratio in compared.items():
        print(f"{ratio:5.2f}x  {what}")
    if args.output_dir:
        args.output_dir.mkdir(parents=True, exist_ok=True)
        peaks = {precision: rate for precision, rate in args.peaks.items()}
        content = {"command": " ".join(sys.argv), "machine": machine, "peaks": peaks, "rows": rows, "ratios": compared}
        (args.output_dir / "step.json").write_text(json.dumps(content, indent=1) + "\n")
        (args.output_dir / "step.md").write_text(table + "\n")
        draw(rows, machine, args.output_dir / "step.png")
        print(f"Written: {args.output_dir}/step.json, step.md, step.png")
    slow = [f"{what} is {compared.get(what, 0):.2f}, at least {least} is required" for what, least in floors.items()
            if compared.get(what, 0) < least]  # fmt: skip
    if slow:
        raise SystemExit("too slow, or not timed: " + "; ".join(slow))
    if floors:
        print(f"All {len(floors)} ratios are above their floors ({args.floors}).")


if __name__ == "__main__":
    main()

"""Times each objective: time and memory of one step of a small student with a small teacher, compared with MLM only.

    python benchmarks/objectives.py --output_dir outputs/objectives

A step is teacher forward, student forward and backward, and AdamW, on random token ids. Objectives are interleaved.
Memory is the peak of a step.
"""

import argparse
import json
from pathlib import Path
from statistics import median

import torch
from measuring import describe_machine, peak_memory, seconds
from tqdm.auto import tqdm

from vidlankd_hf import VidLanKDStudent, VidLanKDTeacher, VidLanKDTeacherConfig, bert_config
from vidlankd_hf.models.losses import OBJECTIVES

VOCABULARY = 30_522


def step_of(name: str, teacher: VidLanKDTeacher, batch: dict, device: str):
    """Returns a function that takes one step, the number of extra parameters, and the student."""
    torch.manual_seed(0)
    student = VidLanKDStudent(bert_config("small", vocab_size=VOCABULARY))
    before = sum(p.numel() for p in student.parameters())
    if name in OBJECTIVES:
        student.add_objectives({name: 1.0}, teacher.config.hidden_size)
    student.to(device).train()
    extra = sum(p.numel() for p in student.parameters()) - before
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        inputs = {key: value for key, value in batch.items() if key != "voken_ids" or "vokens" in student.needs}
        if student.teacher_needs:
            asked = {"masked_positions": batch["masked_positions"]} if "logits" in student.teacher_needs else {}
            with torch.inference_mode():
                output = teacher(input_ids=batch["input_ids"], **asked)
            inputs |= {"teacher_states": output.last_hidden_state, "teacher_logits": output.logits}
        student(**inputs).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step, extra, student


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8, help="sequences of 128 tokens per step (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="timed steps per objective (default: %(default)s)")
    parser.add_argument(
        "--output_dir", type=Path, default=Path("outputs/objectives"), help="folder for objectives.json"
    )
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"

    generator = torch.Generator().manual_seed(0)
    draw = lambda high, *shape: torch.randint(0, high, shape, generator=generator)  # noqa: E731
    batch = {
        "input_ids": draw(VOCABULARY, args.batch, 128),
        "masked_positions": draw(126, args.batch, 19) + 1,
        "masked_labels": draw(VOCABULARY, args.batch, 19),
        "voken_ids": draw(50_000, args.batch, 128),
    }
    batch = {name: tensor.to(device) for name, tensor in batch.items()}
    teacher = VidLanKDTeacher(VidLanKDTeacherConfig(text_config=bert_config("small", vocab_size=VOCABULARY)))
    teacher.eval().to(device).requires_grad_(False)

    names, times, memory, rows = ["MLM alone", *OBJECTIVES], {}, {}, []
    variants = {name: step_of(name, teacher, batch, device) for name in names}
    for _ in tqdm(range(args.rounds + 1), desc="rounds"):
        for name, (step, _, _) in variants.items():
            times.setdefault(name, []).append(seconds(step, device))
    for name, (step, _, _) in variants.items():
        memory[name] = peak_memory(step, device)
    for name, (_, extra, student) in variants.items():
        objective = student.objectives[name] if name in OBJECTIVES else None
        rows.append(
            {
                "objective": name,
                "needs": sorted(student.needs),
                "same_width": bool(getattr(objective, "same_width", False)),
                "extra_parameters": extra,
                "ms": 1000 * median(times[name][1:]),
                "memory": memory[name],
            }
        )
    args.output_dir.mkdir(parents=True, exist_ok=True)
    result = {"machine": describe_machine(device), "rows": rows}
    (args.output_dir / "objectives.json").write_text(json.dumps(result, indent=1) + "\n")
    print("| objective | needs | extra parameters | ms per step | relative to MLM only | memory (MiB) |")
    print(f"|{'---|' * 6}")
    for row in rows:
        held = "" if row["memory"] is None else f"{row['memory'] / 2**20:.0f}"
        needs, extra = ", ".join(row["needs"]), row["extra_parameters"] / 1e6
        ratio = row["ms"] / rows[0]["ms"]
        print(f"| {row['objective']} | {needs} | {extra:.2f} M | {row['ms']:.0f} | {ratio:.2f} x | {held} |")
    print(f"\nWritten to {args.output_dir / 'objectives.json'}.")


if __name__ == "__main__":
    main()

"""Rehearses HowTo100M and Wikipedia at growing fractions of their size: time, memory and open files of each stage.

    OMP_NUM_THREADS=1 python benchmarks/scale.py --text MY_TEXT.txt.xz --fractions 1/10000 1/1000 1/100 \
        --work_dir outputs/scale --output_dir docs/evidence/scale

Each stage runs in its own process, on a tree that scale_tree.py makes:

  convert   published features and caption.json to shards
  captions  captions to windows
  text      text to blocks of tokens
  order     the order of an epoch, of windows and of blocks
  teacher   half of the steps of a tiny teacher, then SIGKILL
  resume    the rest of the steps, and retrieval over 50 held-out videos
  distill   a tiny student
  vokenize  200 clips, and a voken for each token of --voken_share of the text
  ground    one sentence, over 200 clips
  reproduce `vidlankd reproduce` starts from the published files in a new folder; SIGKILL halfway through the teacher
  table     the same command continues: it finishes the teacher, trains and fine-tunes three students, fills a table

Measured are CPU seconds; the peak of anonymous memory of a process and its workers, which excludes mapped files; the
resident memory of the largest process; files open in one process; and the size and number of files written. A finished
stage is kept: the same command again continues. `full_size` extrapolates in a straight line from the two largest
fractions. Models are tiny and features narrow, so that nothing but the amount of data grows: the figures tell how
preparation and data handling scale, not how long the training of a model takes.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import psutil
import yaml
from scale_tree import CAPTIONS, TOKENS, VIDEOS, make_tree

ROOT = Path(__file__).resolve().parents[1]
POLL_SECONDS = 0.1
STAGES = ("convert", "captions", "text", "order", "teacher", "resume", "distill", "vokenize", "ground",
          "reproduce", "table")  # fmt: skip
UNITS = {"convert": "videos", "captions": "captions", "text": "tokens", "vokenize": "tokens"}
FULL = {"videos": VIDEOS, "captions": CAPTIONS, "tokens": TOKENS}
WRITES = {"convert": ["features"], "captions": ["cache/windows-*"], "text": ["cache/blocks-*"], "teacher": ["teacher"],
          "distill": ["student"], "vokenize": ["vokens", "voken-cache"], "ground": ["grounding"],
          "reproduce": ["experiment"]}  # fmt: skip
SENTENCE = "put the water in the glass"
CLIPS = 200


def command_of(stage: str, tree: Path, args: argparse.Namespace) -> list[str]:
    """The command of a stage."""
    config, settings = tree / "settings.yaml", yaml.safe_load((tree / "settings.yaml").read_text())
    conversion, teacher, student = settings.values()
    part = tree / f"{stage}.yaml"
    if stage == "convert":
        part.write_text(yaml.safe_dump({"convert_howto100m": conversion}))
    if stage == "captions":
        part.write_text(yaml.safe_dump({"pretrain_teacher": teacher}))
    if stage == "text":
        later = {"tokenizer": teacher["tokenizer"], "output_dir": teacher["output_dir"]}
        part.write_text(yaml.safe_dump({"pretrain_teacher": later, "distill": student}))
    if stage in ("convert", "captions", "text"):
        return example("prepare", "--config", part, "--num_proc", args.num_proc)
    if stage == "order":
        return [sys.executable, __file__, "--order_of", str(tree)]
    if stage in ("teacher", "resume"):
        steps = ["--max_steps", args.steps, "--save_steps", args.steps // 2]
        return example("pretrain_teacher", "--config", config, *steps)
    if stage == "distill":
        return example("distill", "--config", config)
    if stage in ("reproduce", "table"):
        whole = experiment(tree, args.steps, args.num_proc)
        return example("reproduce", "--config", whole, "--tables", 8, "--jobs", 1)
    captioned = ["--features", teacher["features"], "--captions", teacher["captions"], "--streaming", "true"]
    captioned += ["--cache_dir", teacher["cache_dir"]]
    if stage == "vokenize":
        text = voken_text(tree, args.voken_share)
        words = ["--vokenizer", teacher["output_dir"], "--text", text, "--num_vokens", CLIPS, "--max_video_length", 64]
        return example("vokenize", *captioned, *words, "--output_dir", tree / "vokens")
    words = ["--teacher", teacher["output_dir"], "--no_student", "--sentences", SENTENCE, "--num_clips", CLIPS]
    return example("ground", *captioned, *words, "--output_dir", tree / "grounding")


def experiment(tree: Path, steps: int, num_proc: int) -> Path:
    """Settings of the whole experiment, from the published files to a table; it shares no output with other stages."""
    folder = tree / "experiment"
    folder.mkdir(exist_ok=True)
    conversion, teacher, student = yaml.safe_load((tree / "settings.yaml").read_text()).values()
    made = {"features": f"{folder}/features", "cache_dir": f"{folder}/cache"}
    captions = f"{folder}/features/captions.jsonl"
    lines = ["text\tlabel", *(f"put the water in glass {i}\t{'ab'[i % 2]}" for i in range(64))]
    (folder / "task.tsv").write_text("\n".join(lines))
    files, kind = {"train": "task.tsv", "dev": "task.tsv"}, {"kind": "classification", "labels": ["a", "b"]}
    (folder / "task.yaml").write_text(yaml.safe_dump({**kind, "files": files}))
    sections = {
        "prepare": {"num_proc": num_proc},
        "convert_howto100m": {**conversion, "output_dir": f"{folder}/features"},
        "pretrain_teacher": {**teacher, **made, "captions": captions, "max_steps": steps, "save_steps": steps // 2},
        "distill": {**student, "cache_dir": f"{folder}/cache"},
        "evaluate_all": {
            "task_file": [f"{folder}/task.yaml"], "seeds": 1, "finetune_options": {"max_steps": 10, "use_cpu": True},
        },
        "reproduce": {"output_dir": f"{folder}/out"},
    }  # fmt: skip
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump(sections, sort_keys=False))
    return path


def example(name: str, *arguments) -> list[str]:
    return [sys.executable, str(ROOT / "examples" / f"{name}.py"), *map(str, arguments)]


def voken_text(tree: Path, share: float) -> Path:
    """A part of the tree's text."""
    path = tree / "voken-text.txt"
    if not path.exists():
        files = sorted((tree / "text").iterdir())
        wanted, written = share * sum(file.stat().st_size for file in files), 0
        with open(path.with_suffix(".part"), "w", encoding="utf-8") as out:
            for file in files:
                for line in open(file, encoding="utf-8"):
                    if written < wanted:
                        written += out.write(line)
        path.with_suffix(".part").rename(path)
    return path


def measured(command: list[str], log: Path, until: Path | None = None) -> dict:
    """Runs a command and measures it and its descendants; kills them as soon as the file `until` exists."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    peak = {"anonymous": 0, "open_files": 0, "mapped_files": 0}
    began, polls = time.perf_counter(), 0
    with open(log, "w") as out:
        child = subprocess.Popen(command, stdout=out, stderr=out, env=environment, start_new_session=True)
        process, killed = psutil.Process(child.pid), False
        while True:
            pid, status, usage = os.wait4(child.pid, os.WNOHANG)
            if pid:
                break
            if until is not None and until.exists():
                os.killpg(child.pid, signal.SIGKILL)
                until, killed = None, True
            observe(process, peak, with_maps=polls % 10 == 0)
            polls += 1
            time.sleep(POLL_SECONDS)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode and not killed:
        raise RuntimeError(f"{' '.join(command)} failed: {log.read_text()[-3000:]}")
    seconds = {"cpu_seconds": usage.ru_utime + usage.ru_stime, "seconds": time.perf_counter() - began}
    return {**seconds, "largest_resident": 1024 * usage.ru_maxrss, **peak}


def observe(process: psutil.Process, peak: dict, with_maps: bool) -> None:
    """Raises the peaks of a process and its descendants."""
    try:
        processes = [process, *process.children(recursive=True)]
    except psutil.Error:
        return
    anonymous = 0
    for one in processes:
        folder = Path(f"/proc/{one.pid}")
        try:
            status = (folder / "status").read_text()
            anonymous += 1024 * int(status.partition("RssAnon:")[2].split()[0])
            peak["open_files"] = max(peak["open_files"], len(os.listdir(folder / "fd")))
            if with_maps:
                places = {line.split()[4] for line in (folder / "maps").read_text().splitlines()} - {"0"}
                peak["mapped_files"] = max(peak["mapped_files"], len(places))
        except (OSError, IndexError):  # it has ended
            continue
    peak["anonymous"] = max(peak["anonymous"], anonymous)


def written_by(stage: str, tree: Path) -> dict:
    paths = [path for pattern in WRITES.get(stage, ()) for found in tree.glob(pattern) for path in found.rglob("*")]
    files = [path for path in paths if path.is_file()]
    return {"written_bytes": sum(path.stat().st_size for path in files), "written_files": len(paths)}


def run_stage(stage: str, tree: Path, args: argparse.Namespace) -> dict:
    for pattern in WRITES.get(stage, ()):
        for path in tree.glob(pattern):
            shutil.rmtree(path)
    if stage == "vokenize":
        voken_text(tree, args.voken_share)
    half = {"teacher": tree, "reproduce": tree / "experiment" / "out" / "seed-1"}.get(stage)
    until = half and half / "teacher" / f"checkpoint-{args.steps // 2}" / "manifest.json"
    found = measured(command_of(stage, tree, args), tree / f"{stage}.log", until)
    if until is not None and (until.parents[1] / "model.safetensors").exists():
        raise RuntimeError(f"{stage} ended before it was killed: give more --steps")
    if stage == "resume":
        history = json.loads((tree / "teacher" / "trainer_state.json").read_text())["log_history"]
        found["evaluation"] = {
            name: value for row in history for name, value in row.items() if name.startswith("eval_")
        }
    return {**found, **written_by(stage, tree)}


def report_order(tree: Path) -> None:
    """Iterates over the order of one epoch of windows and of blocks, in a separate process."""
    from vidlankd_hf import load_text_blocks, load_video_text
    from vidlankd_hf.data.vocabulary import load_tokenizer
    from vidlankd_hf.training.sampler import EpochSampler

    _, teacher, student = yaml.safe_load((tree / "settings.yaml").read_text()).values()
    tokenizer, cache = load_tokenizer(teacher["tokenizer"]), teacher["cache_dir"]
    stream = load_video_text(teacher["features"], teacher["captions"], tokenizer, streaming=True, cache_dir=cache)
    train, held_out = stream.split_by_video(teacher["held_out_videos"])
    blocks = load_text_blocks(student["text"], tokenizer, cache)
    for data, shard_sizes in ((train, train.shard_sizes), (blocks, None)):
        sampler, total, last = EpochSampler(len(data), 8, seed=0, shard_sizes=shard_sizes), 0, None
        began = time.process_time()
        for key in sampler:
            total, last = total + 1, key
        assert total == len(sampler) and last is not None
        print("ORDER", json.dumps({"samples": total, "cpu_seconds": time.process_time() - began}))
    print("WINDOWS", json.dumps({"windows": len(stream), "held_out": len(held_out), "blocks": len(blocks)}))


def skip_reason(stage: str, fraction: Fraction, done: dict, args: argparse.Namespace) -> str | None:
    """Why a stage is left out at this fraction, from what the smaller fractions needed; None if it is not."""
    smaller = [
        f for f in done if f < fraction and stage in done[f]["stages"] and "cpu_seconds" in done[f]["stages"][stage]
    ]
    if not smaller:
        return None
    nearest = max(smaller)
    needed, factor = done[nearest]["stages"][stage], float(fraction / nearest)
    hours, size = needed["cpu_seconds"] * factor / 3600, needed["written_bytes"] * factor / 1e9
    if stage in UNITS and hours > args.max_hours:
        return f"about {hours:.1f} CPU hours are needed, more than --max_hours {args.max_hours:g}"
    if stage in UNITS and size > args.max_gb:
        return f"about {size:.0f} GB are needed, more than --max_gb {args.max_gb:g}"
    return None


def full_size(results: dict) -> dict:
    """Extrapolates each stage in a straight line from the two largest fractions that were measured.

    CPU time is extrapolated for the stages whose work is proportional to the data; of the others only memory is.
    """
    found = {}
    for stage in STAGES:
        rows = [(result["tree"], result["stages"][stage]) for result in results.values()
                if "cpu_seconds" in result["stages"].get(stage, {})]  # fmt: skip
        if len(rows) < 2:
            continue
        (one, a), (two, b) = rows[-2:]
        unit = UNITS.get(stage, "videos")
        missing = (FULL[unit] - two[unit]) / (two[unit] - one[unit])

        def at_full_size(name: str, a=a, b=b, missing=missing) -> float:
            return b[name] + (b[name] - a[name]) * missing

        found[stage] = {"unit": unit, "memory_ratio": b["anonymous"] / a["anonymous"]}
        found[stage]["anonymous"] = at_full_size("anonymous")
        if stage in UNITS:
            seconds = b["cpu_seconds"] - a["cpu_seconds"]
            found[stage]["per_cpu_second"] = (two[unit] - one[unit]) / seconds
            found[stage]["cpu_hours"] = at_full_size("cpu_seconds") / 3600
            found[stage] |= {"bytes": at_full_size("written_bytes"), "files": at_full_size("written_files")}
    return found


COLUMNS = ("stage", "fraction", "CPU s", "anonymous memory, MB", "ratio", "files open", "files mapped", "written, MB",
           "files written")  # fmt: skip


def table_of(results: dict) -> str:
    rows = [COLUMNS, ["---"] * len(COLUMNS)]
    for stage in STAGES:
        before = None
        for fraction, result in results.items():
            row = result["stages"].get(stage)
            if row is None:
                continue
            if "skipped" in row:
                rows.append([stage, fraction, f"skipped: {row['skipped']}"])
                continue
            ratio = "" if before is None else f"{row['anonymous'] / before:.3f}"
            before, memory, written = row["anonymous"], row["anonymous"] / 1e6, row["written_bytes"] / 1e6
            places = row["open_files"], row["mapped_files"], f"{written:.1f}", row["written_files"]
            rows.append([stage, fraction, f"{row['cpu_seconds']:.1f}", f"{memory:.0f}", ratio, *places])
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, nargs="+", help="text files to take words from")
    parser.add_argument("--fractions", type=Fraction, nargs="+", default=[Fraction(1, 10_000), Fraction(1, 1000)])
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--again", nargs="*", choices=STAGES, default=[], help="stages to measure once more")
    parser.add_argument("--work_dir", type=Path, default=Path("outputs/scale"))
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/scale_results"))
    parser.add_argument("--width", type=int, default=8, help="of both streams; the published features have 2048")
    parser.add_argument("--steps", type=int, default=200, help="of the teacher, even")
    parser.add_argument("--num_proc", type=int, default=1, help="processes that prepare")
    parser.add_argument("--voken_share", type=float, default=0.05, help="share of the text that gets vokens")
    parser.add_argument("--max_hours", type=float, default=2.0, help="skip stages that need more CPU time")
    parser.add_argument("--max_gb", type=float, default=15.0, help="skip stages that write more")
    parser.add_argument("--order_of", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.order_of is not None:
        return report_order(args.order_of)
    if not args.text:
        parser.error("--text is missing: give text files, such as books or Wikipedia paragraphs")
    args.output_dir.mkdir(parents=True, exist_ok=True)
    results, tokenizer = {}, None
    for fraction in sorted(args.fractions):
        tree = args.work_dir / str(fraction).replace("/", "-")
        about = make_tree(tree, fraction, args.text, args.width, False, tokenizer)
        tokenizer = tree / "tokenizer"
        results[fraction] = {"tree": about, "stages": {}}
        for stage in STAGES:
            kept = tree / f"{stage}.result.json"
            if kept.exists() and stage not in args.again:
                results[fraction]["stages"][stage] = json.loads(kept.read_text())
            elif stage in args.stages:
                reason = skip_reason(stage, fraction, results, args)
                print(f"{fraction} {stage}: {'skipped, ' + reason if reason else 'running'}", flush=True)
                found = {"skipped": reason} if reason else run_stage(stage, tree, args)
                results[fraction]["stages"][stage] = found
                if not reason:
                    kept.write_text(json.dumps(found, indent=1) + "\n")
        order = tree / "order.log"
        if order.exists():
            words = [line.partition(" ") for line in order.read_text().splitlines()]
            about["windows"] = next(json.loads(rest)["windows"] for name, _, rest in words if name == "WINDOWS")
    machine = [sys.executable, "-c", "import json, measuring; print(json.dumps(measuring.describe_machine('cpu')))"]
    report = {
        "arguments": {name: getattr(args, name) for name in ("width", "steps", "num_proc", "voken_share")},
        "machine": json.loads(subprocess.check_output(machine, cwd=Path(__file__).parent, text=True)),
        "fractions": {str(fraction): result for fraction, result in results.items()},
        "full_size": full_size(results),
    }
    (args.output_dir / "scale.json").write_text(json.dumps(report, indent=1) + "\n")
    print(table_of(results))
    print(json.dumps(report["full_size"], indent=1))


if __name__ == "__main__":
    main()

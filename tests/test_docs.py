"""Code blocks of README and docs run, or are parsed by the parser they are meant for; links lead somewhere.

A block that cannot run has `<!-- not run: why -->` on the line before it. The Python blocks of a page run in order, in
a folder with what earlier commands would have left. Commands are parsed by their example's parser, not executed.
"""

import json
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from helpers import example, parse_command
from markdown.extensions.toc import slugify

from vidlankd_hf.utils.io import sha256_of

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
# Pages that docs/hooks.py makes when the site is built, and what it makes them from.
GENERATED = {DOCS / "notebook.md": ROOT / "examples" / "notebook.ipynb"}
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[^\n]*)\n(?P<code>.*?)^(?P=indent)```$", re.DOTALL | re.MULTILINE)
NOT_RUN = re.compile(r"<!-- not run: .{5,} -->\n\s*\Z")
INLINE = re.compile(r"`((?:(?:(?:python|accelerate launch) )?examples/\w+\.py|vidlankd [\w-]+(?= --)) [^`]*)`")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
LANGUAGES = ("python", "bash", "yaml", "text")
# First words of commands whose arguments are not checked.
OTHERS = ("bash", "git", "cd", "pip", "export", "srun", "sbatch", "tensorboard", "hf", "source")

# Options of pip, pytest, Slurm and the launchers that the text names.
OTHER_OPTIONS = {"--num_processes", "--config_file", "--index-url", "--signal", "--signals-to-handle"}


@dataclass
class Block:
    page: str
    language: str
    code: str
    runs: bool


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks_of(page: Path) -> list[Block]:
    text = text_of(page)
    return [
        Block(name_of(page), found["language"], found["code"], not NOT_RUN.search(text, 0, found.start()))
        for found in FENCE.finditer(text)
    ]


BLOCKS = {name_of(page): blocks_of(page) for page in PAGES}


def pages_with(language: str) -> list[str]:
    return [name for name, blocks in BLOCKS.items() if any(b.language == language and b.runs for b in blocks)]


def test_every_fence_is_closed_and_says_its_language():
    for page in PAGES:
        assert len(re.findall(r"^ *```", text_of(page), re.MULTILINE)) == 2 * len(BLOCKS[name_of(page)]), page.name
        for block in BLOCKS[name_of(page)]:
            assert block.language in LANGUAGES, f"{page.name}: {block.language!r}"
            code = re.search(r"^(import |from \w+ import|python |accelerate |make |pip )", block.code, re.MULTILINE)
            assert block.language in ("python", "bash") or not code, f"{page.name}: a block of code without language"


# ---- links ----


def anchors_of(page: Path) -> list[str]:
    text = FENCE.sub("", text_of(page))
    return [slugify(re.sub(r"[`*]|\]\([^)]*\)|\[", "", title), "-") for title in re.findall(r"^#+ (.+)$", text, re.M)]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files_and_headings(page):
    for target in LINK.findall(FENCE.sub("", text_of(page))):
        if "://" in target:
            assert re.fullmatch(r"https://[\w.-]+\.[a-z]+(/\S*)?", target), target
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert GENERATED.get(found, found).exists(), f"{target}: there is no such file"
        assert page.parent == ROOT or found.is_relative_to(DOCS), f"{target} leads out of the documentation"
        if anchor:
            assert anchor in anchors_of(found), f"{target}: {', '.join(anchors_of(found))}"
    assert len(set(anchors_of(page))) == len(anchors_of(page)), "two headings of one name"


def test_every_page_is_in_the_navigation():
    nav = re.findall(r"^ +- (?:.+: )?(\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M)
    pages = [*(page for page in PAGES if page.is_relative_to(DOCS)), *GENERATED]
    assert sorted(nav) == sorted(page.relative_to(DOCS).as_posix() for page in pages)


def test_files_and_names_of_the_paper_index_exist():
    rows = [row.split("|")[3] for row in text_of(DOCS / "paper.md").splitlines() if row.startswith("| ")]
    names = 0
    for cell in rows:
        for path, name in re.findall(r"`([\w/]+\.py)`(?: `(\w+))?", cell):
            found = ROOT / "vidlankd_hf" / path
            assert found.exists(), f"there is no {path}"
            assert not name or re.search(rf"^(class |def )?{name}\b", found.read_text(), re.M), f"{path}: {name}"
            names += bool(name)
    assert names > 10


# ---- around the code ----


def test_citation_is_a_citation_file_of_version_1_2():
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cff["cff-version"] == "1.2.0" and {"message", "title", "authors"} <= set(cff)
    assert set(cff) <= {"cff-version", "message", "title", "authors", "abstract", "type", "version", "license", "doi",
                        "keywords", "preferred-citation", "references", "url", "repository-code", "date-released",
                        "identifiers", "contact", "commit", "license-url", "repository",
                        "repository-artifact"}  # fmt: skip
    assert cff["type"] in ("software", "dataset") and cff["license"] == "Apache-2.0"
    assert f'__version__ = "{cff["version"]}"' in (ROOT / "vidlankd_hf" / "__init__.py").read_text()
    paper = cff["preferred-citation"]
    assert paper["type"] == "conference-paper" and paper["year"] == 2021 and paper["conference"]["name"]
    for entry in (cff, paper):
        assert entry["title"] and entry["authors"]
        for author in entry["authors"]:
            assert set(author) <= {"name"} or set(author) <= {"family-names", "given-names", "orcid", "affiliation"}
    assert all(entry["type"] in ("doi", "url", "swh", "other") for entry in paper["identifiers"])


def test_workflow_has_the_steps_of_continuous_integration():
    script = (ROOT / ".ci" / "run").read_text()
    job = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]["ci"]
    steps = [step["run"] for step in job["steps"] if "run" in step]
    assert steps and steps == re.findall(r"^make .+$", script, re.M)
    for name, value in job["env"].items():
        assert f"{name}={value}" in script


# ---- commands ----


def commands_in(code: str) -> list[list[str]]:
    """The commands of a block as words; of `srun` and `sbatch` also what they start."""
    code = re.sub(r"\$\(\([^)]*\)\)|\$\([^)]*\)|\$\w+", "1", code.replace("\\\n", " "))
    code = re.sub(r"<[^>]*>", "PLACE", code)
    lines = [words for line in code.splitlines() if (words := shlex.split(line, comments=True))]
    lines = [part for words in lines for part in split_at(words, "&&")]
    started = [word for words in lines if words[0] in ("srun", "sbatch") for word in words]
    inner = [word for word in started if re.search(r"examples/|vidlankd ", word)]
    return [*lines, *(command for word in inner for command in commands_in(word))]


def split_at(words: list[str], mark: str) -> list[list[str]]:
    parts = [[]]
    for word in words:
        parts = [*parts, []] if word == mark else [*parts[:-1], [*parts[-1], word]]
    return parts


def check_command(monkeypatch, words: list[str]) -> None:
    from accelerate.commands.launch import launch_command_parser

    while "=" in words[0] and len(words) > 1:  # variables of the environment
        words = words[1:]
    for word in words:
        if re.match(r"(examples|accelerate_configs|benchmarks|tests|docs)/.*\.\w+$", word):
            assert (ROOT / word).exists(), f"there is no {word}"
    if words[:2] == ["accelerate", "launch"]:
        options = launch_command_parser().parse_args(words[2:])
        script = options.training_script
        if options.module:
            script = script.removeprefix("vidlankd_hf.").replace(".", "/") + ".py"
            assert script.startswith("examples/") and (ROOT / script).exists(), f"there is no {script}"
        words = ["python", script, *options.training_script_args]
    if words[0] == "vidlankd":
        from vidlankd_hf.cli import COMMANDS

        assert words[1] in COMMANDS, f"vidlankd has no command {words[1]!r}"
        words = ["python", f"examples/{COMMANDS[words[1]]}.py", *words[2:]]
    if words[0].startswith("examples/"):
        words = ["python", *words]
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
        unknown = [word for word in words[1:] if "=" not in word and word not in targets]
        assert not unknown, f"make has no target {unknown}"
    elif words[0] == "python" and words[1].startswith("examples/"):
        options = words[2:]
        if {"--help", "--help_all"} & set(options):
            return
        try:
            parsed, parser = parse_command(monkeypatch, Path(words[1]).stem, options)
        except SystemExit as error:
            raise AssertionError(f"{shlex.join(words)}: see the error above") from error
        if isinstance(parsed, tuple):  # for later commands that name this run's settings
            parser.save_settings(parsed[0].output_dir)
    else:
        assert words[0] in ("python", *OTHERS), f"what is {words[0]!r}?"


@pytest.fixture
def workplace(monkeypatch, tmp_path):
    """An empty folder in which the repository's own folders are found."""
    for name in ("examples", "accelerate_configs", "benchmarks"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_are_such_as_the_examples_parse(page, workplace, monkeypatch):
    for block in BLOCKS[name_of(page)]:
        named = re.match(r"# (\w+\.yaml)\n", block.code)
        if block.language == "yaml":
            assert yaml.safe_load(block.code)
            if named:
                (workplace / named[1]).write_text(block.code)
    blocks = [block.code for block in BLOCKS[name_of(page)] if block.language == "bash" and block.runs]
    for code in [*blocks, *INLINE.findall(FENCE.sub("", text_of(page)))]:
        for words in commands_in(code):
            check_command(monkeypatch, words)


@pytest.mark.parametrize(
    "code, message",
    [
        ("python examples/distill.py --lerning_rate 1", "see the error"),
        ("accelerate launch --config_file accelerate_configs/gpus.yaml examples/distill.py", "no accelerate_configs"),
        ("make demos", "no target"),
        ("python examples/distil.py", "there is no examples/distil.py"),
        ("pyhton examples/distill.py", "what is 'pyhton'"),
        ("vidlankd destill --seed 1", "no command 'destill'"),
        ("vidlankd distill --lerning_rate 1", "see the error"),
        ("accelerate launch -m vidlankd_hf.examples.distil", "there is no examples/distil.py"),
        ("sbatch --wrap 'python examples/distill.py --seed x'", "see the error"),
        ("sbatch --wrap 'vidlankd distill --seed x'", "see the error"),
    ],
)
def test_wrong_commands_are_noticed(workplace, monkeypatch, code, message):
    with pytest.raises(AssertionError, match=message):
        for words in commands_in(code):
            check_command(monkeypatch, words)


def options_of(monkeypatch, name: str) -> set[str]:
    """All options of an example."""
    from vidlankd_hf.cli import CommandLine

    made = []

    def stop(parser, *args, **kwargs):
        made.append(parser)
        raise SystemExit

    with monkeypatch.context() as patched:
        patched.setattr("sys.argv", [f"examples/{name}.py"])
        patched.setattr(CommandLine, "parse", stop)
        with pytest.raises(SystemExit):
            example(name).main()
    return {option for action in made[0]._actions for option in action.option_strings}


def test_options_in_the_text_exist(monkeypatch):
    from vidlankd_hf.cli import COMMANDS

    benchmarks = "".join(path.read_text() for path in (ROOT / "benchmarks").rglob("*.py"))
    known = OTHER_OPTIONS.union(re.findall(r'"(--\w+)"', benchmarks))
    known |= set().union(*(options_of(monkeypatch, name) for name in COMMANDS.values()))
    named = set()
    for page in sorted({*PAGES} - {ROOT / "CHANGELOG.md"}):  # which names removed options
        text = text_of(page)
        codes = re.findall(r"`([^`\n]+)`", FENCE.sub("", text))
        codes += re.findall(r"^.*python benchmarks/.*$", text.replace("\\\n", " "), re.M)
        named |= {(name_of(page), option) for code in codes for option in re.findall(r"(?<!\S)--[a-z][\w-]*", code)}
    assert len(named) > 60
    assert not [f"{page}: {option}" for page, option in sorted(named) if option not in known]


def test_the_page_of_commands_lists_all_of_them():
    from vidlankd_hf.cli import COMMANDS

    rows = re.findall(r"^\| `vidlankd ([\w-]+)` \|.*\| `(\w+)\.py` \|$", text_of(DOCS / "commands.md"), re.M)
    assert dict(rows) == COMMANDS
    named = {name for page in PAGES for name in re.findall(r"`vidlankd ([a-z][\w-]*)`", text_of(page))}
    assert named <= set(COMMANDS)


# ---- Python ----


def make_models(folder: Path) -> None:
    """What `outputs/` holds after the commands of the pages: small models with random weights, and their data."""
    from downstream_data import make_data, make_pair_tokenizer
    from helpers import MINI, make_student, make_teacher

    tokenizer = make_pair_tokenizer()
    shape = {**MINI, "max_position_embeddings": 128}
    models = {
        "student": make_student(tokenizer, shape=shape),
        "my_roberta": make_student(tokenizer, model_type="roberta", shape=shape),
        "teacher": make_teacher(tokenizer, shape=shape),
    }
    models["students/crd"] = models["student"]
    for name, model in models.items():
        model.save_pretrained(folder / "outputs" / name)
        tokenizer.save_pretrained(folder / "outputs" / name)
    make_data(folder / "tasks")


def make_features(folder: Path, world: Path) -> None:
    """The grounded world, and its features with a video `clip.mp4`."""
    shutil.copytree(world, folder / "outputs" / "world", symlinks=True)
    features = shutil.copytree(world / "features", folder / "outputs" / "features")
    index = features / "index.jsonl"
    first, _, rest = index.read_text().partition("\n")
    index.write_text(re.sub(r'"video": "[^"]*"', '"video": "clip.mp4"', first) + "\n" + rest)
    manifest = json.loads((features / "manifest.json").read_text())
    manifest["index_sha256"] = sha256_of(index)
    (features / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("name", pages_with("python"))
def test_python_blocks_run(name, workplace, monkeypatch, request):
    import downstream_data

    from vidlankd_hf.evaluation import TASKS
    from vidlankd_hf.models.losses import OBJECTIVES

    blocks = [block.code for block in BLOCKS[name] if block.language == "python" and block.runs]
    if re.search("outputs/(world|features)", "".join(blocks)):
        make_features(workplace, request.getfixturevalue("tiny_world"))
    monkeypatch.setitem(downstream_data.ROWS, "train", 40)  # more than a batch
    make_models(workplace)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    space = {"__name__": "docs"}
    before = set(TASKS), set(OBJECTIVES)
    try:
        for i, code in enumerate(blocks):
            exec(compile(code, f"{name}, block {i + 1}", "exec"), space)
    finally:  # what a block adds is taken back
        for known, keys in zip((TASKS, OBJECTIVES), before):
            for key in set(known) - keys:
                del known[key]


# ---- numbers ----


def test_days_of_the_papers_runs_follow_from_their_tokens_and_the_throughput():
    page = text_of(DOCS / "scaling.md")
    rows = re.findall(r"^\| (\w+) student, .*>([\d,]+) tokens/s<.*: (\d+) days \|$", page, re.M)
    tokens = dict(re.findall(r"[Tt]he (small|base) student [^|]*?([\d.]+) G tokens", page.replace("\n", " ")))
    assert {size for size, _, _ in rows} == set(tokens) == {"small", "base"}
    for size, throughput, days in rows:
        assert round(float(tokens[size]) * 1e9 / int(throughput.replace(",", "")) / 86_400) == int(days)


# ---- logged metrics ----


def metrics_of(kind: str) -> set[str]:
    """The names in the first column of a model's table of logged metrics, and of the table of both models."""
    page = text_of(DOCS / "metrics.md")
    sections = [page.partition(f"\n## {title}\n")[2].partition("\n## ")[0] for title in (kind.capitalize(), "Both")]
    rows = re.findall(r"^\| (.+?) \|", "\n".join(sections), re.M)
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


@pytest.mark.parametrize("kind", ["student", "teacher"])
def test_all_that_a_run_logs_is_in_the_table(kind, tmp_path):
    from helpers import train

    from vidlankd_hf.models.losses import OBJECTIVES

    trainer = train(kind, tmp_path, objectives={"nst": 1.0, "crd": 1.0}, eval_strategy="steps", eval_steps=2)
    logged = {name for entry in trainer.state.log_history for name in entry} | set(trainer.evaluate())
    names = metrics_of(kind)
    assert {"loss", "grad_norm", "mlm_loss", "eval_mlm_loss", "eval_perplexity", "learning_rate"} <= logged
    assert not logged - names, f"not in the tables of metrics.md: {sorted(logged - names)}"
    if kind == "student":
        assert {f"{start}{name}_loss" for name in OBJECTIVES for start in ("", "eval_")} <= names

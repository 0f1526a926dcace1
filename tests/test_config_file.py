"""Settings from a YAML file: sections, precedence, and the included recipes."""

from argparse import Namespace
from pathlib import Path

import pytest
import yaml
from helpers import example, parse_command

from vidlankd_hf.cli import CommandLine, read_config
from vidlankd_hf.evaluation.comparison import options_in
from vidlankd_hf.utils.yaml_files import read_yaml

RECIPE = {"learning_rate": 0.5, "max_steps": 7}
ROOT = Path(__file__).parent.parent
CONVERSION = example("prepare").CONVERSION
RECIPES = sorted((ROOT / "examples" / "recipes").glob("*.yaml"))


def parse(monkeypatch, script, *arguments, recipe=RECIPE):
    name = Path(script).stem
    monkeypatch.setattr(
        example(name), {"distill": "STUDENT_RECIPE", "pretrain_teacher": "TEACHER_RECIPE"}[name], recipe
    )
    return parse_command(monkeypatch, name, arguments)[0]


def test_command_line_overrides_file_and_file_overrides_the_worlds_recipe(monkeypatch, tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(
        "learning_rate: 2e-4\nweight_decay: 0.5\nobjectives: {nst: 3, crd: {weight: 1, temperature: 0.2}}\n"
    )
    args, _ = parse(monkeypatch, "distill.py", "--config", path, "--weight_decay", "0.25")
    assert (args.learning_rate, args.weight_decay, args.max_steps) == (2e-4, 0.25, 7)
    assert args.objectives == {"nst": 3, "crd": {"weight": 1, "temperature": 0.2}}
    path.write_text("max_steps: 9\n")
    args, _ = parse(monkeypatch, "distill.py", "--config", path, "--num_train_epochs", "2")
    assert (args.max_steps, args.num_train_epochs) == (-1, 2.0), "epochs on the command line override a file's steps"
    path.write_text("num_train_epochs: 2\n")
    args, _ = parse(monkeypatch, "distill.py", "--config", path)
    assert (args.max_steps, args.num_train_epochs) == (-1, 2.0), "and epochs of a file override the recipe's steps"
    path.write_text("streams: frame\nseed: '7'\n")
    args, data = parse(monkeypatch, "pretrain_teacher.py", "--config", path)
    assert (data.streams, args.seed) == (["frame"], 7)
    path.write_text("text: my.txt\nteacher: my_teacher\n")
    args, data = parse(monkeypatch, "distill.py", "--config", path)
    assert (data.text, args.max_steps) == ("my.txt", -1), "the world's recipe is never used with own data"


def test_section_of_the_script_is_read(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("distill: {learning_rate: 0.01}\npretrain_teacher: {learning_rate: 0.02}\n")
    assert read_config(path, "distill", ["learning_rate"]) == {"learning_rate": 0.01}
    path.write_text("distill: {learning_rate: 0.01}\n")
    with pytest.raises(ValueError, match="no section 'pretrain_teacher'.*distill"):
        read_config(path, "pretrain_teacher", ["learning_rate"])


@pytest.mark.parametrize(
    "content, message",
    [
        ("learning_rat: 1", "'learning_rat'.*--help.*did you mean learning_rate"),
        ("- 1", "holds no settings"),
        ("!!python/object/apply:os.system ['true']", "could not determine a constructor"),
    ],
)
def test_bad_file_is_an_error(tmp_path, content, message):
    path = tmp_path / "a.yaml"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        read_config(path, "distill", ["learning_rate"])
    with pytest.raises(ValueError, match="is not a file"):
        read_config(tmp_path / "b.yaml", "distill", [])


def test_there_is_a_recipe_and_one_with_the_papers_settings_for_each_size():
    assert [path.stem for path in RECIPES] == ["base", "clip_base", "paper_base", "paper_small", "small"]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_bound_what_is_kept_and_held_out_and_load_in_other_processes(monkeypatch, path):
    for script, held_out in (("pretrain_teacher.py", "held_out_videos"), ("distill.py", "held_out_text")):
        args, data = parse(monkeypatch, script, "--config", path)
        assert args.save_total_limit == 2 and args.dataloader_num_workers >= 2 and args.bf16 != args.fp16
        assert getattr(data, held_out) >= 1, "a share of HowTo100M or Wikipedia would take hours to evaluate"
    args, data = parse(monkeypatch, "pretrain_teacher.py", "--config", path)
    if path.stem == "clip_base":
        made = vars(parse_command(monkeypatch, "extract_features", ["--config", path])[0])["output_dir"]
    else:
        made = read_config(path, "convert_howto100m", CONVERSION)["output_dir"]
        assert data.captions == f"{data.features}/captions.jsonl"
    assert data.streaming and data.features == made
    teacher = args.output_dir
    args, data = parse(monkeypatch, "distill.py", "--config", path)
    assert data.teacher == teacher and data.student in ("small", "base") and path.stem.endswith(data.student)


@pytest.mark.parametrize("size", ["small", "base"])
def test_recipes_with_the_papers_settings_have_them(monkeypatch, size):
    path, base = RECIPES[0].parent / f"paper_{size}.yaml", size == "base"
    args, data = parse(monkeypatch, "pretrain_teacher.py", "--config", path)
    assert (args.learning_rate, args.warmup_steps, args.max_grad_norm) == (5e-5, 0, 1.0)
    assert (args.weight_decay, args.adam_epsilon, args.max_length, args.max_video_length) == (0.01, 1e-6, 128, 384)
    assert args.per_device_train_batch_size * 4 == (64 if base else 128)  # on the paper's four GPUs
    assert (data.text_model, data.contrast, data.margin) == (size, "hinge", 1.0)
    args, data = parse(monkeypatch, "distill.py", "--config", path)
    assert (args.learning_rate, args.warmup_steps) == (2e-4, 5000 if base else 10_000)
    assert args.per_device_train_batch_size * 4 == 256 and args.objectives == {"nst": 1, "crd": 1}
    assert (args.max_steps, args.num_train_epochs) == ((500_000, 3.0) if base else (-1, 40))


@pytest.mark.parametrize("size", ["small", "base"])
def test_other_recipes_differ_from_the_papers_where_its_settings_failed(monkeypatch, size):
    ours, papers = (read_yaml(RECIPES[0].parent / f"{name}{size}.yaml") for name in ("", "paper_"))
    assert ours["convert_howto100m"] == papers["convert_howto100m"]
    differ = {name for part in ours for name in {*ours[part], *papers[part]}
              if ours[part].get(name) != papers[part].get(name)}  # fmt: skip
    allowed = {"contrast", "margin", "per_device_train_batch_size", "learning_rate", "warmup_steps", "objectives"}
    assert differ <= {*allowed, "bf16", "fp16", "output_dir", "teacher"}
    names = {name for name in ours["distill"] if ours["distill"][name] != papers["distill"].get(name)}
    assert names == {"teacher", "output_dir", "objectives", "bf16"}
    if size == "base":
        clip = read_yaml(RECIPES[0].parent / "clip_base.yaml")
        places = {"features", "captions", "max_unpaired", "output_dir", "teacher"}
        for part in ("pretrain_teacher", "distill"):
            assert {
                name for name in {*ours[part], *clip[part]} if ours[part].get(name) != clip[part].get(name)
            } <= places
    assert ours["pretrain_teacher"]["contrast"] == "infonce" and ours["distill"]["objectives"]["nst"] == 1000


def test_saved_settings_repeat_a_run_even_if_the_recipe_has_changed(monkeypatch, tmp_path):
    words = ["--objectives", '{"nst": 5}', "--warmup_steps", "0", "--output_dir", "out", "--num_train_epochs", "2",
             "--hub_token", "secret"]  # fmt: skip
    recipe = {**RECIPE, "warmup_steps": 50}
    monkeypatch.setattr(example("distill"), "STUDENT_RECIPE", recipe)
    (args, data), parser = parse_command(monkeypatch, "distill", words)
    parser.save_settings(tmp_path)
    saved = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert saved == {"output_dir": "out", "num_train_epochs": 2.0, "max_steps": -1, "learning_rate": 0.5,
                     "warmup_steps": 0.0, "objectives": {"nst": 5}}  # fmt: skip
    monkeypatch.setattr(example("distill"), "STUDENT_RECIPE", {**recipe, "learning_rate": 0.9, "warmup_steps": 7})
    (again, data_again), _ = parse_command(monkeypatch, "distill", ["--config", tmp_path / "config.yaml"])
    assert data_again == data and again.to_dict() == args.to_dict()


def command_line():
    parser = CommandLine("Tries.")
    parser.add_argument("--model", required=True, help="a model")
    parser.add_argument("--fast", action="store_true", help="whether")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="seeds")
    parser.add_argument("--kind", choices=["a", "b"], default="a", help="kind")
    return parser


def test_values_in_a_file_are_checked_like_those_on_the_command_line(monkeypatch, tmp_path, capsys):
    path = tmp_path / "a.yaml"

    def parsed(content, *words):
        path.write_text(content)
        monkeypatch.setattr("sys.argv", ["tries.py", "--config", str(path), *words])
        return command_line().parse()

    assert parsed("{model: m, fast: true, seeds: [2, 3]}") == Namespace(model="m", fast=True, seeds=[2, 3], kind="a")
    assert parsed("{model: m, seeds: 2}", "--model", "n", "--seeds", "4") == Namespace(
        model="n", fast=False, seeds=[4], kind="a"
    )
    for content, message in (
        ("{model: m, seeds: [x]}", "invalid int value: 'x'"),
        ("{model: m, kind: c}", "invalid choice: 'c'"),
        ("{seeds: [2]}", "required: --model"),
    ):
        with pytest.raises(SystemExit):
            parsed(content)
        assert message in capsys.readouterr().err
    with pytest.raises(ValueError, match="fast is 'yes please'"):
        parsed("{model: m, fast: yes please}")
    with pytest.raises(SystemExit):
        parsed("model: m", "--sedes", "4")
    assert "no option --sedes; did you mean --seeds?" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        parsed("model: m", "outputs/student", "--fast")
    assert "'outputs/student' belongs to no option: write --OPTION VALUE" in capsys.readouterr().err


def test_ablations_take_recipes_and_their_own_options_from_one_file(monkeypatch, tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("pretrain_teacher: {features: f}\ndistill: {text: t}\nablate: {seeds: [1, 2], table: [heads]}\n")
    (args,), parser = parse_command(monkeypatch, "ablate", ["--config", path, "--seeds", "3"])
    assert (args.seeds, args.table) == ([3], ["heads"])
    path.write_text("pretrain_teacher: {features: f}\ndistill: {text: t}\n")
    assert parse_command(monkeypatch, "ablate", ["--config", path])[0][0].table is None
    parser.save_settings(tmp_path, sections={"distill": {"text": "t"}})
    saved = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert saved == {"distill": {"text": "t"}, "ablate": {"seeds": [3], "table": ["heads"]}}


def test_evaluate_all_keeps_what_it_passes_on(monkeypatch):
    words = ["--models", "m", "--tasks", "rte", "--num_train_epochs", "1", "--bf16", "--learning_rate=1e-4"]
    _, parser = parse_command(monkeypatch, "evaluate_all", words)
    assert "finetune_options" not in parser.settings
    assert options_in(parser.unknown) == {"num_train_epochs": ["1"], "bf16": [], "learning_rate": ["1e-4"]}


@pytest.mark.parametrize("given", ["{fp16: true", "[1]", "3", "[" * 100_000, "{'bf16': 1}"])
def test_finetune_options_that_are_no_json_object_are_refused(monkeypatch, capsys, tmp_path, given):
    words = ["--models", str(tmp_path), "--tasks", "rte", "--finetune_options", given]
    monkeypatch.setattr("sys.argv", ["evaluate_all.py", *words])
    with pytest.raises(SystemExit):
        example("evaluate_all").main()
    said = capsys.readouterr().err
    assert f"--finetune_options {given[:60]} is not JSON of options" in said and "--warmup_ratio 0.1" in said
    assert len(said) < 3000

"""Converts a checkpoint of VidLanKD's original release for this package.

    vidlankd convert --output_dir outputs/original \\
        --checkpoint snap/teacher/checkpoint-epoch0019

The folder holds pytorch_model.bin and config.json. With visn_model.chkpt, the
result is a teacher, otherwise a plain BERT. The command prints what was mapped
and what was dropped. Files that hold more than tensors are refused: no code in
them is run.
"""

from pathlib import Path

from vidlankd_hf.cli import CommandLine, run_example
from vidlankd_hf.hub.convert import convert


def main() -> None:
    parser = CommandLine(__doc__)
    parser.add_argument("--checkpoint", required=True, help="folder of the released checkpoint")
    parser.add_argument("--output_dir", required=True, help="new folder")
    parser.add_argument("--tokenizer", help="folder or Hub id, such as google-bert/bert-base-uncased; default: the "
                        "checkpoint's, if it has one")  # fmt: skip
    args = parser.parse()
    conversion = convert(args.checkpoint, args.output_dir, args.tokenizer)
    print(f"{conversion}\n")
    load = "vidlankd_hf.load_teacher" if conversion.kind == "teacher" else "AutoModelForMaskedLM.from_pretrained"
    print(f'It is in {args.output_dir}: load it with {load}("{args.output_dir}")')
    if not (Path(args.output_dir) / "tokenizer_config.json").exists():
        print("The checkpoint has no tokenizer: to train from it, convert it again with --tokenizer.")


if __name__ == "__main__":
    run_example(main)

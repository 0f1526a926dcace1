"""Makes a checkpoint of the original release one of this package, and says what was mapped and what was dropped.

    python examples/convert_original.py --output_dir outputs/original \\
        --checkpoint snap/teacher/checkpoint-epoch0019

The folder holds pytorch_model.bin and config.json; with visn_model.chkpt it becomes a teacher, else a plain BERT.
Files that hold more than tensors are refused: nothing in them is run.
"""

from pathlib import Path

from vidlankd_hf.cli import CommandLine
from vidlankd_hf.hub.convert import convert


def main() -> None:
    parser = CommandLine(__doc__)
    parser.add_argument("--checkpoint", required=True, help="folder of the released checkpoint")
    parser.add_argument("--output_dir", required=True, help="a new folder")
    parser.add_argument("--tokenizer", help="folder or Hub id, such as google-bert/bert-base-uncased; default: the "
                        "one in --checkpoint, if it has one")  # fmt: skip
    args = parser.parse()
    conversion = convert(args.checkpoint, args.output_dir, args.tokenizer)
    print(f"{conversion}\n")
    load = "vidlankd_hf.load_teacher" if conversion.kind == "teacher" else "AutoModelForMaskedLM.from_pretrained"
    print(f'It is in {args.output_dir}: load it with {load}("{args.output_dir}")')
    if not (Path(args.output_dir) / "tokenizer_config.json").exists():
        print("The checkpoint held no tokenizer: to train from it, convert it again with --tokenizer.")


if __name__ == "__main__":
    main()

"""Vokenizes a text corpus, for the baseline of Tan and Bansal 2020: gives every token the clip nearest to it.

Train a vokenizer first: accelerate launch examples/pretrain_teacher.py --joint_size 64 --output_dir outputs/vokenizer
Without further arguments the clips and the text are the grounded world's. Run it again to go on where it was stopped.
"""

from datetime import timedelta
from pathlib import Path

import torch
from accelerate import PartialState
from transformers import AutoTokenizer
from transformers.hf_argparser import string_to_bool

from vidlankd_hf import VidLanKDTeacher, load_text_blocks, load_video_text
from vidlankd_hf.cli import CommandLine
from vidlankd_hf.data.caption_formats import READERS
from vidlankd_hf.experiments.vokenization import vokenize
from vidlankd_hf.experiments.world.recipe import LENGTH


def main() -> None:
    parser = CommandLine(__doc__)
    parser.add_argument("--vokenizer", default="outputs/vokenizer", help="trained teacher")
    parser.add_argument(
        "--num_vokens", type=int, help="clips to choose from; default: 50000, or all if there are fewer"
    )
    parser.add_argument("--output_dir", default="outputs/vokens", help="new folder of vokens, or one to go on with")
    parser.add_argument("--features", help="folder that extract_features.py wrote; default: the world's")
    parser.add_argument("--captions", help="of these videos; default: the world's")
    parser.add_argument("--max_unpaired", type=float, default=0.0, help="as for pretrain_teacher.py")
    parser.add_argument("--caption_format", choices=list(READERS), help="default: found from suffix and content")
    parser.add_argument(
        "--remove_overlap",
        type=string_to_bool,
        help="whether text that rolls is read once; default: for YouTube's speech and HowTo100M",
    )
    parser.add_argument(
        "--streams", nargs="+", help="the feature streams that the vokenizer was trained with, if not all"
    )
    parser.add_argument("--text", help="as for distill.py; default: the world's")
    parser.add_argument("--block_tokens", type=int, help="as for distill.py; default: 126, for the world 30")
    parser.add_argument("--max_length", type=int, help="tokens of a clip's window; default: 128, for the world 32")
    parser.add_argument("--max_video_length", type=int, default=384, help="steps of a clip")
    parser.add_argument("--world", default="outputs/world", help="used where --text is not given")
    parser.add_argument("--cache_dir", default="outputs/cache", help="of tokenised text")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of clips")
    parser.add_argument("--batch_size", type=int, default=64, help="blocks at a time")
    args = parser.parse()
    length = 128
    if args.text is None:
        if args.features or args.captions:
            parser.error("--features and --captions need --text beside them")
        world, length = Path(args.world), LENGTH
        if not (world / "world.json").exists():
            parser.error(f"{world} holds no world: make it with examples/make_world.py, or give --text")
        args.text = str(world / "text")
        args.features, args.captions = str(world / "features"), str(world / "captions.jsonl")
    elif not args.features or not args.captions:
        parser.error("--text needs --features and --captions beside it")

    # The others wait while one process tokenises and encodes the clips.
    state = PartialState(cpu=not torch.accelerator.is_available(), timeout=timedelta(days=1))
    tokenizer = AutoTokenizer.from_pretrained(args.vokenizer)
    vokenizer = VidLanKDTeacher.from_pretrained(args.vokenizer)
    clips = load_video_text(
        args.features,
        args.captions,
        tokenizer,
        max_length=args.max_length or length,
        streams=args.streams,
        max_unpaired=args.max_unpaired,
        caption_format=args.caption_format,
        remove_overlap=args.remove_overlap,
    )
    with state.main_process_first():
        blocks = load_text_blocks(args.text, tokenizer, args.cache_dir, block_tokens=args.block_tokens or length - 2)
    info = vokenize(
        vokenizer,
        tokenizer,
        blocks,
        clips,
        args.output_dir,
        num_vokens=args.num_vokens or min(50_000, len(clips)),
        seed=args.seed,
        max_video_length=args.max_video_length,
        batch_size=args.batch_size,
    )
    if state.is_main_process:
        parser.save_settings(args.output_dir)
    state.print(
        f"The vokens of {len(blocks)} blocks are in {args.output_dir}: {info['used']} of {info['num_vokens']} clips "
        f"are some token's, the most frequent one is that of {100 * info['largest_share']:.1f} % of the tokens.\n"
        f"Next: accelerate launch examples/distill.py --vokens {args.output_dir} --teacher {args.vokenizer} "
        """--objectives '{"voken": 1}'"""
    )
    if state.num_processes > 1:
        state.destroy_process_group()


if __name__ == "__main__":
    main()

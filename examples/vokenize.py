"""Vokenizes a text corpus: assigns the nearest video clip to every token.

This is the baseline of Tan and Bansal (2020). Train a vokenizer first:

    vidlankd teacher --joint_size 64 --output_dir outputs/vokenizer

Without further arguments, clips and text are the grounded world's. Processes
that are started with the same --output_dir share the work. Run the command
again to continue after an interruption.
"""

import torch
from accelerate import PartialState

from vidlankd_hf import VidLanKDTeacher, load_text_blocks
from vidlankd_hf.cli import CommandLine, run_example
from vidlankd_hf.data.text_blocks import BLOCK_TOKENS
from vidlankd_hf.data.vocabulary import load_tokenizer
from vidlankd_hf.experiments.script_arguments import VokenizationArguments
from vidlankd_hf.experiments.vokenization import vokenize
from vidlankd_hf.experiments.world.bootstrap import use_existing_world
from vidlankd_hf.models.teacher import check_path
from vidlankd_hf.utils.messages import number_of


def main() -> None:
    parser = CommandLine(__doc__, VokenizationArguments)
    (args,) = parser.parse()
    check_path(args.vokenizer, "a trained teacher")
    if args.text is None:
        if args.features or args.captions:
            parser.error("--features and --captions need --text: give all three")
        use_existing_world(args, parser, "--text")
    elif not args.features or not args.captions:
        parser.error("--text needs --features and --captions: give all three")

    state = PartialState(cpu=not torch.accelerator.is_available())
    tokenizer = load_tokenizer(args.vokenizer)
    vokenizer = VidLanKDTeacher.from_pretrained(args.vokenizer, trust_remote_code=False)
    clips = args.load(
        tokenizer, args.max_length or 128, streams=args.streams, max_unpaired=args.max_unpaired,
        streaming=args.streaming, cache_dir=args.cache_dir,
    )  # fmt: skip
    blocks = load_text_blocks(args.text, tokenizer, args.cache_dir, block_tokens=args.block_tokens or BLOCK_TOKENS)
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
        f"The vokens of {number_of(len(blocks), 'block')} are in {args.output_dir}: {info['used']} of "
        f"{info['num_vokens']} clips "
        f"are used, the most frequent one for {100 * info['largest_share']:.1f} % of the tokens.\n"
        f"Next: vidlankd distill --vokens {args.output_dir} "
        f"""--teacher {args.vokenizer} --objectives '{{"voken": 1}}'"""
    )
    if state.num_processes > 1:
        state.destroy_process_group()


if __name__ == "__main__":
    run_example(main)

"""Builds the grounded world: videos, captions, text, tokenizer, vision backbones and features, offline from a seed.

    python examples/make_world.py --output_dir outputs/world --seed 0

What things look like is in its videos and never in its text; docs and sizes:
`vidlankd_hf.experiments.world.build_world`. Run it again to go on with a build that was interrupted.
"""

import inspect
import time

from vidlankd_hf.cli import CommandLine
from vidlankd_hf.experiments.world import build_world
from vidlankd_hf.experiments.world.recipe import WORLD_SEED


def main() -> None:
    defaults = {name: p.default for name, p in inspect.signature(build_world).parameters.items()}
    defaults["seed"] = WORLD_SEED
    parser = CommandLine(__doc__)
    parser.add_argument("--output_dir", default="outputs/world", help="a new folder, or one begun with these settings")
    for name, what in {
        "seed": "of the whole world",
        "num_nouns": "a multiple of 48, so that attributes balance",
        "num_videos": "of 4 to 6 seconds, with one to three objects",
        "num_sentences": "of the text corpus",
        "vocab_size": "of the WordPiece tokenizer, at most",
        "num_pretrain_scenes": "rendered for the backbones' pre-training",
        "frame_pretrain_steps": "of the ResNet, 32 pictures each",
        "clip_pretrain_steps": "of the VideoMAE, 32 clips each",
    }.items():
        parser.add_argument(f"--{name}", type=int, default=defaults[name], help=what)
    args = parser.parse()

    begin = time.monotonic()
    world = build_world(**vars(args))
    parser.save_settings(world)
    print(f"The world is in {world}, after {time.monotonic() - begin:.0f} s.")
    print("Next: accelerate launch examples/pretrain_teacher.py, then accelerate launch examples/distill.py")


if __name__ == "__main__":
    main()

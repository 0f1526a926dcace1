"""Generates the grounded world from a seed: videos, captions, text, features.

    vidlankd make-world --output_dir outputs/world --seed 0

Its videos show what things look like; its text never says it. It includes a
tokenizer and vision backbones, and needs no network. Run the command again to
continue an interrupted build.
"""

import inspect
import time

from vidlankd_hf.cli import CommandLine, run_example
from vidlankd_hf.experiments.world import build_world
from vidlankd_hf.experiments.world.recipe import WORLD_SEED


def main() -> None:
    defaults = {name: p.default for name, p in inspect.signature(build_world).parameters.items()}
    defaults["seed"] = WORLD_SEED
    parser = CommandLine(__doc__)
    parser.add_argument("--output_dir", default="outputs/world", help="new folder, or an unfinished one to continue")
    for name, what in {
        "seed": "seed of everything in the world",
        "num_nouns": "number of nouns, a multiple of 48",
        "num_videos": "videos of 4 to 6 seconds, with one to three objects",
        "num_sentences": "sentences of the text corpus",
        "vocab_size": "maximum size of the WordPiece vocabulary",
        "num_pretrain_scenes": "scenes rendered to pre-train the backbones",
        "frame_pretrain_steps": "training steps of the ResNet, 32 pictures each",
        "clip_pretrain_steps": "training steps of the VideoMAE, 32 clips each",
    }.items():
        parser.add_argument(f"--{name}", type=int, default=defaults[name], help=what)
    args = parser.parse()

    begin = time.monotonic()
    world = build_world(**vars(args))
    parser.save_settings(world)
    print(f"The world is in {world}, after {time.monotonic() - begin:.0f} s.")
    print(f"Next: vidlankd teacher --world {world}, then vidlankd distill --world {world}")


if __name__ == "__main__":
    run_example(main)

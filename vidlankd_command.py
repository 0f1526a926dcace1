"""The console script `vidlankd COMMAND ...`.

It is outside the package, because importing that takes seconds, and the list of commands should not.
"""

import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path


def main() -> None:
    """Lists the commands, or runs the one that `sys.argv` names."""
    words = sys.argv[1:]
    spec = spec_from_file_location("examples", Path(find_spec("vidlankd_hf").origin).parent / "utils" / "examples.py")
    examples = module_from_spec(spec)
    spec.loader.exec_module(examples)
    if not words or words[0] in ("-h", "--help"):
        print(examples.overview())
    elif words[0] not in examples.COMMANDS:
        near = examples.nearest(words[0], examples.COMMANDS)
        sys.exit(f"vidlankd: there is no command {words[0]!r}{near}; `vidlankd` lists them")
    else:
        from vidlankd_hf.cli import main as run_command

        run_command()


if __name__ == "__main__":
    main()

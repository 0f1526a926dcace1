"""Links names in docstrings to the API pages, and adds the notebook as a page.

MkDocs loads this file as a hook, and griffe loads it as an extension; see mkdocs.yml.
"""

import base64
import json
import logging
import re
from pathlib import Path

import griffe
from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent
PACKAGE = "vidlankd_hf"
LIBRARIES = ("accelerate", "datasets", "torch", "transformers")
NAME = re.compile(r"\[`([\w.]+)`\](?![\[(])")
log = logging.getLogger("mkdocs.hooks.links")


class LinkNames(griffe.Extension):
    """Turns [`name`] in a docstring into a link; an unknown name is a warning, which `--strict` makes an error."""

    def on_package(self, *, pkg: griffe.Module, **kwargs) -> None:
        objects = list(walk(pkg))
        known: dict[str, list[griffe.Object]] = {}
        for found in objects:
            known.setdefault(found.name, []).append(found)
        for found in objects:
            if found.docstring is not None:
                text = found.docstring.value
                found.docstring.value = NAME.sub(lambda match, found=found: link(match[1], found, known), text)


def walk(found: griffe.Object):
    yield found
    for member in found.members.values():
        if not member.is_alias:
            yield from walk(member)


def link(name: str, found: griffe.Object, known: dict[str, list[griffe.Object]]) -> str:
    first, _, rest = name.partition(".")
    path = first if rest and first in LIBRARIES else None
    for scope in (found, found.parent):
        if path is None and scope is not None:
            try:
                path = scope.resolve(first)
            except griffe.NameResolutionError:
                continue
    if path is None:
        room = found.path.split(".")[:2]
        same = [other for other in known.get(first, ()) if other.path.split(".")[:2] == room] or known.get(first, ())
        path = same[0].path if len(same) == 1 else None
    if path is None:
        log.warning("%s: [`%s`] is not a name in the package", found.path, name)
        return f"`{name}`"
    if path.partition(".")[0] != PACKAGE:  # a name from another library
        return f"`{name}`"
    path = f"{path}.{rest}" if rest else path
    for target in known.get(path.rpartition(".")[2], ()):
        if target.path == path and target.docstring is None:  # not on a page: its class or module is
            path = path.rpartition(".")[0]
    return f"[`{name}`][{path}]"


def on_files(files, config):
    """Adds examples/notebook.ipynb, with its outputs, as notebook.md."""
    notebook = json.loads((ROOT / "examples" / "notebook.ipynb").read_text(encoding="utf-8"))
    parts = []
    for number, cell in enumerate(notebook["cells"]):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source.replace("](../docs/", "]("))
            continue
        parts.append(f"```python\n{source}\n```")
        for i, output in enumerate(cell["outputs"]):
            data = output.get("data", {})
            kind = next((kind for kind in ("png", "jpeg") if f"image/{kind}" in data), None)
            if kind is not None:
                name = f"notebook/{number}-{i}.{kind}"
                files.append(File.generated(config, name, content=base64.b64decode("".join(data[f"image/{kind}"]))))
                parts.append(f"![output]({name})")
            elif text := "".join(output.get("text", data.get("text/plain", ""))):
                parts.append(f"```text\n{text.rstrip()}\n```")
    files.append(File.generated(config, "notebook.md", content="\n\n".join(parts) + "\n"))
    return files

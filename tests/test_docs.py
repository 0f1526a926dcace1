"""Links of README and docs lead somewhere, code blocks name their language, and files around the code are valid."""

import re
from pathlib import Path

import pytest
import yaml
from docs_pages import BLOCKS, DOCS, FENCE, PAGES, ROOT, name_of, text_of
from markdown.extensions.toc import slugify

# Pages that docs/hooks.py makes when the site is built, and what it makes them from.
GENERATED = {DOCS / "notebook.md": ROOT / "examples" / "notebook.ipynb"}
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
LANGUAGES = ("python", "bash", "yaml", "text")


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


def test_every_promise_of_reliability_names_tests_or_drills_that_exist():
    drills = re.findall(r'^    "(\w+)": \(', (ROOT / "tests" / "drills" / "run.py").read_text(), re.MULTILINE)
    rows = (
        text_of(DOCS / "reliability.md").partition("| promise | tested by |")[2].partition("\n\n")[0].splitlines()[2:]
    )
    assert len(rows) > 10 and "kill" in drills
    for row in rows:
        promise, holders = row.strip("| ").rsplit(" | ", 1)
        assert promise.startswith("**"), promise
        names = re.findall(r"`([^`]+)`", holders)
        assert names and re.sub(r"`[^`]+`|drills?|[, ]", "", holders) == "", holders
        for name in names:
            assert (ROOT / name).is_file() if name.endswith(".py") else name in drills, f"{name}, named in: {promise}"


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


# ---- numbers ----


def test_days_of_the_papers_runs_follow_from_their_tokens_and_the_throughput():
    page = text_of(DOCS / "scaling.md")
    rows = re.findall(r"^\| (\w+) student, .*>([\d,]+) tokens/s<.*: (\d+) days \|$", page, re.M)
    tokens = dict(re.findall(r"[Tt]he (small|base) student [^|]*?([\d.]+) G tokens", page.replace("\n", " ")))
    assert {size for size, _, _ in rows} == set(tokens) == {"small", "base"}
    for size, throughput, days in rows:
        assert round(float(tokens[size]) * 1e9 / int(throughput.replace(",", "")) / 86_400) == int(days)

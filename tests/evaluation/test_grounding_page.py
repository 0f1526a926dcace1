"""The grounding page in a real browser, also with hostile captions and names."""

import base64
import hashlib
import json
import re
import shutil

import numpy as np
import pytest
from datasets import Dataset
from helpers import make_student, make_teacher, make_tokenizer, make_video_text
from PIL import Image

from vidlankd_hf.evaluation.grounding import encode_clips, ground
from vidlankd_hf.evaluation.grounding_page import shown_steps, write_heat_picture, write_nearest_picture, write_page
from vidlankd_hf.experiments.world.render import write_video

ATTACK = "word3 </script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
NAME = "a\"><img src=x onerror=document.title='owned'>.mp4"
SENTENCES = ["word3 word14word15 word9", "</script><b>word3</b> word20"]


@pytest.fixture(scope="module")
def grounded(tmp_path_factory):
    """Folder, clips and groundings of two sentences by a teacher and a student with a head, with hostile names."""
    folder = tmp_path_factory.mktemp("grounding")
    (folder / "videos").mkdir()
    rows = [{**row, "start": 0.0, "end": 1.0} for row in make_video_text(10)]
    for i, row in enumerate(rows):
        row["video"], row["id"] = (NAME, f"{NAME}#0") if i == 0 else (f"v{i}.mp4", f"v{i}.mp4#0")
        row["text"] = ATTACK if i == 0 else row["text"]
        frames = np.random.default_rng(i).integers(0, 255, (12, 64, 64, 3), dtype=np.uint8)
        write_video(folder / "videos" / row["video"], frames)
    (folder / "videos" / "v9.mp4").unlink()
    clips, tokenizer = Dataset.from_list(rows), make_tokenizer()
    teacher, student = make_teacher(tokenizer), make_student(tokenizer)
    student.add_objectives({"crd": 1.0}, teacher_hidden_size=32)
    bank = encode_clips(teacher, tokenizer, clips)
    options = {"num_nearest": 10, "heat_clip": 0}
    found = [ground(text, teacher, tokenizer, clips, bank, student=student, **options) for text in SENTENCES]
    write_page(folder / "page.html", "Pointing <to>", found, clips, folder / "videos")
    headless = [ground(text, teacher, tokenizer, clips, bank, student=make_student(tokenizer)) for text in SENTENCES]
    write_page(folder / "headless.html", "No head", headless, clips)
    return folder, clips, found


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if not shutil.which("chromium") or not shutil.which("chromedriver"):
        pytest.skip("needs chromium and chromedriver")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in ("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync",
                 "disable-background-networking", "disable-component-update", "disable-dev-shm-usage",
                 f"user-data-dir={tmp_path_factory.mktemp('chromium')}", "window-size=1280,900"):  # fmt: skip
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    driver.set_page_load_timeout(300)
    yield driver
    driver.quit()


def open_page(browser, path):
    browser.get_log("browser")  # messages of an earlier page
    browser.get(path.as_uri())
    return browser


def pressed(browser):
    return browser.execute_script(
        "return [...document.querySelectorAll('.token[aria-pressed=true]')].map((b) => b.textContent)"
    )


def test_tokens_are_chosen_by_click_and_by_keys(grounded, browser):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    folder, _, found = grounded
    open_page(browser, folder / "page.html")
    tokens = browser.find_elements(By.CSS_SELECTOR, ".token")
    assert [token.text for token in tokens] == [text for grounding in found for text in grounding.tokens]
    assert all(token.tag_name == "button" for token in tokens) and len(pressed(browser)) == 1

    def scores(who):
        return [e.text for e in browser.find_elements(By.CSS_SELECTOR, f"#nearest .{who} .score b")]

    for i in (1, 0):
        tokens[i].click()
        assert pressed(browser) == [found[0].tokens[i]]
        assert found[0].tokens[i] in browser.find_element(By.ID, "chosen").text
        for who in ("teacher", "student"):
            expected = [f"{value:.2f}".replace("-", "−") for value in getattr(found[0], who).similarity[i].tolist()]
            assert scores(who) == expected
    last = (0, len(found[0].tokens) - 1)
    keys = [(Keys.ARROW_RIGHT, (0, 1)), (Keys.END, last), (Keys.ARROW_RIGHT, None), (Keys.HOME, (0, 0))]
    keys += [(Keys.ARROW_DOWN, (1, 0)), (Keys.ARROW_UP, (0, 0)), (Keys.ARROW_LEFT, None)]
    expected = found[0].tokens[0]
    for key, place in keys:
        browser.switch_to.active_element.send_keys(key)
        expected = expected if place is None else found[place[0]].tokens[place[1]]
        assert pressed(browser) == [expected] and browser.switch_to.active_element.text == expected
    heat = [e.text for e in browser.find_elements(By.CSS_SELECTOR, "#heat .teacher td")]
    shown = found[0].teacher.heat.flatten().tolist()
    assert [text for text in heat if text] == [f"{value:.2f}".replace("-", "−") for value in shown]
    assert len(browser.find_elements(By.CSS_SELECTOR, "#heat .teacher tr.chosen")) == 1


def test_every_frame_is_visible_and_the_console_is_silent(grounded, browser):
    open_page(browser, grounded[0] / "page.html")
    images = browser.execute_async_script(
        "const done = arguments[0], all = [...document.images];"
        "Promise.all(all.map((i) => i.decode().catch(() => 0))).then(() => done(all.map((i) => "
        "[i.naturalWidth, i.getBoundingClientRect().width, i.alt])))"
    )
    assert len(images) > 40 and all(natural > 0 and width > 10 for natural, width, _ in images)
    assert all("seconds" in alt for *_, alt in images)
    assert "the folder of videos does not have exactly one file of this name" in browser.page_source
    assert browser.get_log("browser") == []


def test_hostile_captions_names_and_sentences_are_text(grounded, browser):
    folder, clips, _ = grounded
    open_page(browser, folder / "page.html")
    body = browser.execute_script("return document.body.innerText")
    assert "<img src=x onerror=" in body and NAME in body and "</script><script>" in body
    assert browser.title == "Pointing <to>" and browser.get_log("browser") == []
    assert browser.execute_script("return document.scripts.length") == 2
    page = (folder / "page.html").read_text()
    assert page.count("<script") == 2 and "owned'</script>" not in page


def test_policy_lets_only_the_pages_own_script_and_style_run(grounded, browser):
    page = (grounded[0] / "page.html").read_text()
    policy = re.search('Content-Security-Policy" content="([^"]*)"', page).group(1)
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    for tag in ("style", "script"):
        inline = re.search(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL).group(1)
        assert base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode() in policy
    assert not re.search(r"(src|href)=\"?https?:", page)
    open_page(browser, grounded[0] / "page.html")
    browser.execute_script(
        "const s = document.createElement('script'); s.textContent = \"document.title = 'owned'\";"
        "document.body.append(s)"
    )
    assert browser.title == "Pointing <to>"


def test_phone_has_no_horizontal_scrolling_and_dark_mode_is_dark(grounded, browser):
    open_page(browser, grounded[0] / "page.html")
    size = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    try:
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        widths = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
        assert widths == [360, 360]
        heights = "return [...document.querySelectorAll('.token')].map((b) => b.offsetHeight)"
        assert min(browser.execute_script(heights)) >= 44
        color = "const c = getComputedStyle(document.body); return [c.backgroundColor, c.color]"
        light = browser.execute_script(color)
        dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)

        def lightness(colors):
            return [sum(map(int, re.findall(r"\d+", c)[:3])) for c in colors]

        (paper, ink), (dark_paper, dark_ink) = lightness(light), lightness(browser.execute_script(color))
        assert paper > 700 and ink < 150 and dark_paper < 150 and dark_ink > 600
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_page_says_why_there_is_no_student(grounded, browser):
    open_page(browser, grounded[0] / "headless.html")
    text = browser.execute_script("return document.body.innerText")
    assert "This checkpoint has no distillation head" in text and "the video files were not given" in text
    assert browser.get_log("browser") == []


def test_page_holds_the_scores_of_both_models(grounded):
    folder, _, found = grounded
    page = (folder / "page.html").read_text()
    data = json.loads(re.search('<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL).group(1))
    assert data["num_clips"] == 10 and [s["sentence"] for s in data["sentences"]] == SENTENCES
    assert data["clips"]["0"]["text"] == ATTACK and data["clips"]["0"]["video"] == NAME
    for grounding, sentence in zip(found, data["sentences"]):
        for name in ("teacher", "student"):
            scores, held = getattr(grounding, name), sentence["models"][name]
            assert [[e[0] for e in row] for row in held["near"]] == scores.nearest.tolist()
            for column, expected in ((1, scores.similarity), (2, scores.deviations(scores.similarity))):
                assert np.allclose([[e[column] for e in row] for row in held["near"]], expected, atol=1e-4)
            assert np.allclose([[e[0] for e in row] for row in held["heat"]], scores.heat, atol=1e-4)
    words = [[token["word"] for token in s["tokens"]] for s in data["sentences"]]
    assert words[0] == ["word3", "word14word15", "word9"] and "word3" in words[1] and "" in words[1]


def test_pictures_show_the_frames(grounded, tmp_path):
    folder, clips, found = grounded
    write_nearest_picture(tmp_path / "nearest.png", found[0], clips, folder / "videos")
    write_heat_picture(tmp_path / "heat.png", found[0], clips, folder / "videos")
    for name in ("nearest.png", "heat.png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.width > 700 and len(picture.convert("RGB").getcolors(picture.width * picture.height)) > 500
    assert shown_steps(3) == [0, 1, 2] and len(shown_steps(384)) == 24 and shown_steps(384)[-1] == 383

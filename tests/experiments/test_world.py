import json
import re
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from transformers import AutoModel, AutoTokenizer, BertTokenizerFast

from vidlankd_hf.data.features import FeatureStore
from vidlankd_hf.evaluation.probing import PROBE_TEMPLATES
from vidlankd_hf.experiments.world import build_world
from vidlankd_hf.experiments.world.backbones import render_labelled_clips
from vidlankd_hf.experiments.world.bootstrap import use_existing_world
from vidlankd_hf.experiments.world.build import num_frames, render_video
from vidlankd_hf.experiments.world.language import (
    FORBIDDEN_STEMS,
    balanced_looks,
    cast_videos,
    invent_nouns,
    narrate,
    write_sentences,
)
from vidlankd_hf.experiments.world.render import ATTRIBUTES, FPS, MOTIONS, SHAPES, Look, render_scene
from vidlankd_hf.extraction.decode import VideoReader
from vidlankd_hf.training.script_arguments import StudentArguments


def words_of(lines):
    return [re.findall(r"[a-z]+", line.lower()) for line in lines]


def world_lines(num_nouns=144, num_videos=600, num_sentences=9600, seed=0):
    """Nouns, captions and text as the world has them, without rendering."""
    nouns = invent_nouns(num_nouns, seed)
    captions = [
        text
        for i, shown in enumerate(cast_videos(list(nouns), num_videos, seed))
        for _, _, text in narrate(shown, 5.0, np.random.default_rng((seed, 4, i)))
    ]
    return nouns, captions, write_sentences(list(nouns), num_sentences, seed, "train")


@pytest.mark.parametrize("num_nouns", [48, 96, 144, 192])
def test_attributes_and_pairs_of_attributes_are_balanced(num_nouns):
    looks = list(invent_nouns(num_nouns, seed=0).values())
    assert len(looks) == num_nouns
    for names in [*[(name,) for name in ATTRIBUTES], *combinations(ATTRIBUTES, 2)]:
        counts = Counter(tuple(getattr(look, name) for name in names) for look in looks)
        possible = np.prod([len(ATTRIBUTES[name]) for name in names])
        assert len(counts) == possible and set(counts.values()) == {num_nouns // possible}, names


@pytest.mark.parametrize("num_nouns", [0, -48, 16, 100])
def test_a_number_of_nouns_that_cannot_balance_is_refused(num_nouns):
    with pytest.raises(ValueError, match=f"num_nouns is {num_nouns}.*48"):
        balanced_looks(num_nouns)


def test_looks_of_nouns_depend_only_on_the_seed():
    assert invent_nouns(144, 0) == invent_nouns(144, 0)
    assert invent_nouns(144, 0) != invent_nouns(144, 1)


def test_no_word_of_captions_or_text_names_or_hints_at_an_attribute(tiny_world):
    lines = (tiny_world / "text" / "train.txt").read_text() + (tiny_world / "text" / "validation.txt").read_text()
    captions = [json.loads(line)["text"] for line in open(tiny_world / "captions.jsonl")]
    _, more_captions, text = world_lines()
    words = {word for line in words_of([lines, *captions, *more_captions, *text]) for word in line}
    assert len(words) > 300
    attribute_words = {value for values in ATTRIBUTES.values() for value in values} | set(ATTRIBUTES)
    assert not words & attribute_words
    assert not [word for word in words if word.startswith(FORBIDDEN_STEMS)]
    # The stems cover the words that they are meant to exclude.
    assert all(value.startswith(FORBIDDEN_STEMS) for value in attribute_words)


def leave_one_out_accuracy(counts, values):
    """Ridge classifier of one-hot targets on standardized counts, each noun predicted from all others."""
    counts = (counts - counts.mean(0)) / (counts.std(0) + 1e-9)
    kernel = counts @ counts.T / counts.shape[1]
    hat = kernel @ np.linalg.inv(kernel + np.eye(len(counts)))

    def accuracy(labels):
        onehot = np.eye(labels.max() + 1)[labels]
        onehot = onehot - onehot.mean(0)
        held_out = (hat @ onehot - np.diag(hat)[:, None] * onehot) / (1 - np.diag(hat))[:, None]
        return (held_out.argmax(1) == labels).mean()

    labels = np.unique(values, return_inverse=True)[1]
    rng = np.random.default_rng(0)
    return accuracy(labels), np.array([accuracy(rng.permutation(labels)) for _ in range(200)])


def contexts(nouns, lines):
    """How often each word stands in a line with each noun, [nouns, words]; the noun itself does not count."""
    rows = {noun: i for i, noun in enumerate(nouns)}
    lines = words_of(lines)
    columns = {word: i for i, word in enumerate(sorted({word for line in lines for word in line}))}
    counts = np.zeros((len(rows), len(columns)))
    for line in lines:
        for noun in {word for word in line if word in rows}:
            for word in line:
                if word != noun:
                    counts[rows[noun], columns[word]] += 1
    return counts


@pytest.mark.parametrize("source", ["captions", "text"])
def test_a_nouns_contexts_do_not_tell_its_attributes(source):
    nouns, captions, text = world_lines()
    counts = contexts(nouns, captions if source == "captions" else text)
    for attribute in ATTRIBUTES:
        values = [getattr(look, attribute) for look in nouns.values()]
        accuracy, permuted = leave_one_out_accuracy(counts, values)
        assert (permuted >= accuracy).mean() > 0.01, f"{attribute}: {accuracy} against at most {permuted.max()}"
    # The measure sees a leak: one more word that stands with one motion a little more often.
    leak = np.random.default_rng(0).poisson([20 + 10 * (look.motion == "spins") for look in nouns.values()])
    values = [look.motion == "spins" for look in nouns.values()]
    accuracy, permuted = leave_one_out_accuracy(leak[:, None].astype(float), values)
    assert accuracy > permuted.max()


def test_every_noun_is_cast_equally_often_and_never_twice_in_a_video():
    nouns = list(invent_nouns(48, 0))
    cast = cast_videos(nouns, 240, 0)
    assert Counter(map(len, cast)) == {1: 80, 2: 80, 3: 80}
    assert all(len(set(shown)) == len(shown) for shown in cast)
    counts = Counter(noun for shown in cast for noun in shown)
    assert len(counts) == 48 and max(counts.values()) - min(counts.values()) <= 1
    with pytest.raises(ValueError, match="num_videos is 10"):
        cast_videos(nouns, 10, 0)


def test_a_videos_captions_tile_it_and_name_all_of_its_nouns_and_no_other(tiny_world):
    store = FeatureStore(tiny_world / "features")
    nouns = {entry["noun"] for entry in json.loads((tiny_world / "nouns.json").read_text())}
    captions = {}
    for line in open(tiny_world / "captions.jsonl"):
        caption = json.loads(line)
        captions.setdefault(caption["video"], []).append(caption)
    assert set(captions) == set(store.video_ids)
    cast = cast_videos(list(invent_nouns(48, 0)), 48, 0)
    for (video, lines), shown in zip(sorted(captions.items()), cast):
        assert 3 <= len(lines) <= 5
        assert lines[0]["start"] == 0 and lines[-1]["end"] == pytest.approx(store.duration(video), abs=0.01)
        assert all(one["end"] == other["start"] > one["start"] for one, other in zip(lines, lines[1:]))
        assert {word for line in lines for word in line["text"].split()} & nouns == set(shown)
        for line in lines:
            assert len(store.read(video, line["start"], line["end"])[0]) >= 1


def test_caption_text_and_probe_sentences_are_different(tiny_world):
    nouns, captions, text = world_lines()

    def templates(lines):
        return {" ".join("X" if word in nouns else word for word in line.split()) for line in lines}

    probes = {template.format(noun="X") for template in PROBE_TEMPLATES}
    assert not templates(captions) & templates(text)
    assert not probes & (templates(captions) | templates(text))


def test_the_same_seed_gives_the_same_words_and_frames_and_another_does_not(tiny_world, tmp_path):
    nouns = invent_nouns(48, 0)
    cast = cast_videos(list(nouns), 48, 0)
    captions = [
        {"video": f"video-{i:05d}.mp4", "start": start, "end": end, "text": text}
        for i, shown in enumerate(cast)
        for start, end, text in narrate(shown, num_frames(0, i) / FPS, np.random.default_rng((0, 4, i)))
    ]
    assert (tiny_world / "captions.jsonl").read_text() == "".join(json.dumps(line) + "\n" for line in captions)
    sentences = write_sentences(list(nouns), 960, 0, "train")
    assert (tiny_world / "text" / "train.txt").read_text() == "\n".join(sentences) + "\n"
    assert write_sentences(list(nouns), 960, 1, "train") != sentences
    once, again, other = (render_video(nouns, cast[3], seed, 3) for seed in (0, 0, 1))
    assert np.array_equal(once, again)
    assert once.shape != other.shape or not np.array_equal(once, other)


def test_a_video_file_holds_the_frames_that_were_rendered(tiny_world):
    nouns = invent_nouns(48, 0)
    cast = cast_videos(list(nouns), 48, 0)
    for index in (0, 17):
        frames = render_video(nouns, cast[index], 0, index)
        reader = VideoReader(tiny_world / "videos" / f"video-{index:05d}.mp4")
        decoded = np.stack([image for _, _, image in reader.sample([FPS])])
        assert decoded.shape == frames.shape
        assert np.abs(decoded.astype(float) - frames).mean() < 6


def center(visible):
    """Center of mass [T, 2] of what is visible [T, 64, 64]."""
    rows, columns = np.mgrid[:64, :64]
    mass = visible.sum(axis=(1, 2))
    return np.stack([(visible * columns).sum(axis=(1, 2)), (visible * rows).sum(axis=(1, 2))], axis=1) / mass[:, None]


@pytest.mark.parametrize("motion", MOTIONS)
def test_each_motion_moves_as_its_name_says(motion):
    for seed in range(8):
        frames, visible = render_scene([Look("blue", "triangle", motion)], 24, np.random.default_rng(seed))
        reach = np.ptp(center(visible[0]), axis=0)
        changes = np.abs(np.diff(visible[0], axis=0)).sum(axis=(1, 2)).mean()
        if motion == "rests":
            assert changes == 0 and np.abs(np.diff(frames.astype(float), axis=0)).mean() < 8
        elif motion == "slides":
            assert reach[0] > 8 and reach[0] > 2 * reach[1]
        elif motion == "bounces":
            assert reach[1] > 5 and reach[1] > 2 * reach[0]
        else:
            assert changes > 10 and reach.max() < 5


def test_shapes_and_colours_look_different_and_objects_hide_each_other():
    rng = np.random.default_rng(0)
    fill = {}
    for shape in SHAPES:
        _, visible = render_scene([Look("red", shape, "rests")], 1, rng)
        inside = visible[0, 0] > 0.5
        rows, columns = np.nonzero(inside)
        distance = np.hypot(rows - rows.mean(), columns - columns.mean())
        fill[shape] = inside.sum() / (np.pi * distance.max() ** 2)
    assert fill["disc"] > 0.85 and 0.5 < fill["square"] < 0.8
    assert 0.3 < fill["triangle"] < 0.65 and 0.25 < fill["cross"] < 0.7
    means = {}
    for colour in ATTRIBUTES["colour"]:
        frames, visible = render_scene([Look(colour, "square", "rests")], 1, rng)
        means[colour] = frames[0][visible[0, 0] > 0.99].mean(axis=0)
    red, green, blue = (means[name] for name in ("red", "green", "blue"))
    assert red.argmax() == 0 and green.argmax() == 1 and blue.argmax() == 2
    _, visible = render_scene([Look("red", "square", "slides")] * 3, 40, np.random.default_rng(1))
    assert visible.sum(axis=0).max() <= 1 + 1e-5


def test_labels_for_pre_training_say_what_shows_where():
    clips, labels = render_labelled_clips(6, seed=0)
    assert clips.shape == (6, 8, 64, 64, 3) and labels.shape == (6, 8, 4, 4, 14)
    parts = np.split(labels.astype(float), [6, 10], axis=-1)
    shares = [part.sum(axis=-1) for part in parts]
    # Each visible pixel has one colour, one shape and one motion.
    assert np.allclose(shares[0], shares[1], atol=5e-3) and np.allclose(shares[0], shares[2], atol=5e-3)
    assert shares[0].max() <= 1.01 and shares[0].mean() > 0.03
    assert [(part[0].max(axis=(0, 1, 2)) > 0).sum() for part in parts] == [1, 1, 1]


def test_the_tokenizer_is_a_bert_tokenizer_that_splits_some_nouns_and_knows_every_word(tiny_world):
    tokenizer = AutoTokenizer.from_pretrained(tiny_world / "tokenizer")
    assert isinstance(tokenizer, BertTokenizerFast)
    assert tokenizer("now")["input_ids"][0] == tokenizer.cls_token_id
    assert tokenizer("now")["input_ids"][-1] == tokenizer.sep_token_id
    assert tokenizer.convert_tokens_to_ids(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]) == [0, 1, 2, 3, 4]
    nouns = [entry["noun"] for entry in json.loads((tiny_world / "nouns.json").read_text())]
    pieces = [len(tokenizer.tokenize(noun)) for noun in nouns]
    assert min(pieces) == 1 and max(pieces) > 1
    lines = (tiny_world / "text" / "validation.txt").read_text().splitlines()
    probes = [template.format(noun=noun) for template in PROBE_TEMPLATES for noun in nouns]
    assert not any(tokenizer.unk_token_id in ids for ids in tokenizer(lines + probes)["input_ids"])
    assert all(" ".join(tokenizer.tokenize(line)).replace(" ##", "") == line for line in lines)


def test_backbones_load_anywhere_and_features_have_their_widths(tiny_world):
    frame = AutoModel.from_pretrained(tiny_world / "backbones" / "frame")
    clip = AutoModel.from_pretrained(tiny_world / "backbones" / "clip")
    store = FeatureStore(tiny_world / "features")
    assert (type(frame).__name__, type(clip).__name__) == ("ResNetModel", "VideoMAEModel")
    assert [stream["width"] for stream in store.streams.values()] == [
        frame.config.hidden_sizes[-1],
        clip.config.hidden_size,
    ]


def test_a_finished_world_is_left_alone_and_another_is_refused(tiny_world, capsys):
    settings = json.loads((tiny_world / "settings.json").read_text())
    before = {path: path.stat().st_mtime_ns for path in tiny_world.rglob("*")}
    build_world(tiny_world, **settings)
    assert "nothing to do" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"other settings.*seed was 0 and is now 1"):
        build_world(tiny_world, **{**settings, "seed": 1})
    with pytest.raises(ValueError, match="num_videos"):
        build_world(tiny_world, **{**settings, "num_videos": 60})
    assert {path: path.stat().st_mtime_ns for path in tiny_world.rglob("*")} == before


@pytest.mark.slow
def test_an_interrupted_world_continues_with_the_stage_that_was_interrupted(tiny_world, tmp_path, monkeypatch):
    import vidlankd_hf.experiments.world.build as build

    settings = json.loads((tiny_world / "settings.json").read_text())
    world = tmp_path / "world"

    def fail(folder, *args):
        (folder / "frame").mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(build, "pretrain_backbones", fail)
    with pytest.raises(KeyboardInterrupt):
        build_world(world, **settings)
    assert not (world / "backbones").exists() and not (world / "world.json").exists()
    videos = {path.name: path.stat().st_mtime_ns for path in (world / "videos").iterdir()}
    assert len(videos) == 48
    monkeypatch.undo()
    build_world(world, **settings)
    assert {path.name: path.stat().st_mtime_ns for path in (world / "videos").iterdir()} == videos
    assert (world / "world.json").read_text() == (tiny_world / "world.json").read_text()
    for name in ("captions.jsonl", "nouns.json", "tokenizer/tokenizer.json", "videos/video-00000.mp4"):
        assert (world / name).read_bytes() == (tiny_world / name).read_bytes(), name
    weights = "backbones/clip/model.safetensors"
    assert (world / weights).read_bytes() == (tiny_world / weights).read_bytes()


def test_a_folder_with_other_things_in_it_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match="is not empty and holds no world"):
        build_world(tmp_path, num_nouns=48, num_videos=48)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_student_that_starts_from_a_checkpoint_keeps_its_own_tokenizer(tiny_world):
    new, started = (StudentArguments(student=name, world=str(tiny_world)) for name in ("tiny", "outputs/teacher"))
    for own in (new, started):
        use_existing_world(own, None, "--text")
    assert new.tokenizer == f"{tiny_world}/tokenizer" and started.tokenizer is None
    assert started.text == new.text == f"{tiny_world}/text"

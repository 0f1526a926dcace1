import json

import pytest

from vidlankd_hf.data.captions import Caption, read_captions

JSON3 = {
    "wireMagic": "pb3",
    "events": [
        {"tStartMs": 0, "dDurationMs": 9000, "id": 1, "wpWinPosId": 1, "wsWinStyleId": 1},
        {"tStartMs": 1200, "dDurationMs": 2160, "segs": [{"utf8": "hello"}, {"utf8": " there", "tOffsetMs": 4}]},
        {"tStartMs": 2000, "dDurationMs": 1360, "wWinId": 1, "aAppend": 1, "segs": [{"utf8": "\n"}]},
        {"tStartMs": 3360, "dDurationMs": 1000, "segs": [{"utf8": "Tom & Jerry\nrun"}]},
    ],
}  # fmt: skip
SRV3 = """<?xml version="1.0" encoding="utf-8" ?><timedtext format="3">
<head><pen id="1"/></head><body>
<w t="0" id="1" wp="1" ws="1"/>
<p t="1200" d="2160" w="1"><s ac="0">hello</s><s t="4" ac="0"> there</s></p>
<p t="2000" w="1" a="1">
</p>
<p t="3360" d="1000">Tom &amp; Jerry
run</p>
</body></timedtext>"""
WEBVTT = "WEBVTT\n\n00:01.200 --> 00:03.360\nhello there\n\n00:03.360 --> 00:04.360\nTom &amp; Jerry\nrun\n"


def test_json3_srv3_and_webvtt_of_the_same_speech_give_the_same_captions(tmp_path):
    read = []
    for suffix, content in (("json3", json.dumps(JSON3)), ("srv3", SRV3), ("vtt", WEBVTT)):
        path = tmp_path / suffix / f"talk.en.{suffix}"
        path.parent.mkdir()
        path.write_text(content)
        read.append(read_captions(path.parent))
    assert read[0] == read[1] == read[2]
    assert read[0] == [
        Caption("talk.en", 1.2, 3.36, "hello there"),
        Caption("talk.en", 3.36, 4.36, "Tom & Jerry run"),
    ]


BOMB = (
    '<?xml version="1.0"?><!DOCTYPE b [<!ENTITY a "haha"><!ENTITY b "&a;&a;&a;&a;">]>'
    '<timedtext format="3"><body><p t="0" d="1">&b;</p></body></timedtext>'
)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("v.srv3", BOMB, "v.srv3 declares a document type"),
        (
            "v.srv3",
            SRV3.replace('d="1000"', ""),
            "paragraph 3: the text 'Tom & Jerry run' must have a start and a dur",
        ),
        ("v.srv3", SRV3.replace('d="1000"', 'd="1e3"'), "paragraph 3: '1e3' must be a whole number of milliseconds"),
        ("v.srv3", SRV3.replace('d="1000"', 'd="-10"'), "paragraph 3: start 3.36 and end 3.35 must satisfy"),
        ("v.srv3", SRV3[:-9], "v.srv3 is not srv3"),
        ("v.srv3", "<timedtext><text t='0'>a</text></timedtext>", "must start with <timedtext format="),
        ("v.json3", "[]", "v.json3 is not json3"),
        ("v.json3", '{"events": 3}', "events must be a list"),
        (
            "v.json3",
            '{"events": [{"tStartMs": 5, "segs": [{"utf8": "a"}]}]}',
            "event 1: the text 'a' must have a start",
        ),
        ("v.json3", '{"events": [{"segs": [{"utf8": 4}]}]}', "event 1: each of segs must be an object"),
        ("v.json3", '{"events": [' * 50_000, "v.json3 is not json3"),
    ],
)
def test_a_damaged_youtube_file_is_refused_by_name_and_place(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        read_captions(tmp_path / name)


def test_a_deeply_nested_srv3_file_does_not_end_the_process(tmp_path):
    path = tmp_path / "v.srv3"
    path.write_text(
        f'<timedtext format="3"><body><p t="0" d="900">a{"<s>" * 100_000}{"</s>" * 100_000}</p></body></timedtext>'
    )
    assert [caption.text for caption in read_captions(path)] == ["a"]

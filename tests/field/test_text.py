"""Schedules, tables and settings as real tools write them: read correctly, or refused with the line."""

import json
from pathlib import Path

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamingt2v import texts
from streamingt2v.cli.table import read_table
from streamingt2v.config import ModelConfig, Request
from streamingt2v.config.schedule import parse_schedule, read_schedule
from streamingt2v.errors import ModelError, RequestError

SCHEDULE = ((8, "A dog on the beach"), (40, "A cat, asleep"))
SCHEDULES = {
    "plain": b"8: A dog on the beach\n40: A cat, asleep\n",
    "a mark": b"\xef\xbb\xbf8: A dog on the beach\n40: A cat, asleep\n",
    "a mark and JSON": b'\xef\xbb\xbf{"8": "A dog on the beach", "40": "A cat, asleep"}',
    "UTF-16 of an editor": "\ufeff8: A dog on the beach\r\n40: A cat, asleep\r\n".encode("utf-16-le"),
    "UTF-16, the other way": "\ufeff8: A dog on the beach\n40: A cat, asleep".encode("utf-16-be"),
    "Windows' line ends": b"8: A dog on the beach\r\n\r\n40: A cat, asleep",
    "old line ends": b"8: A dog on the beach\r40: A cat, asleep\r",
    "floats": b"8.0: A dog on the beach\n40.0 : A cat, asleep\n",
    "comments": b"# what\n  # and why\n\n8: A dog on the beach\n40: A cat, asleep",
    "a wide colon": "8：A dog on the beach\n４０： A cat, asleep".encode(),
    "JSON of floats": b'[[8.0, "A dog on the beach"], ["40", "A cat, asleep"]]',
    "JSON without order": b'{"40": "A cat, asleep", "8.0": "A dog on the beach"}\r\n',
}
WRONG_SCHEDULES = {
    "minutes and seconds": (b"00:08: a dog", "line 1 is '00:08: a dog'; times are counted in frames"),
    "a clock": (b"1:30 a dog", "times are counted in frames"),
    "minus": (b"-8: a", "line 1"),
    "no number": (b"nan: a", "line 1"),
    "infinity": (b'[[Infinity, "a"]]', "should be a frame and a prompt"),
    "objects": (b'[{"frame": 8, "prompt": "a"}]', "should be a frame and a prompt"),
    "several JSONs": (b'[8, "a"]\n[16, "b"]', "line 2, column 1"),
    "a frame twice": (b"8: a\n\n8: b\n", "line 3: frame 8 is there twice"),
    "backwards": (b"8: a\n4: b\n", "line 2: frame 4 comes after frame 8"),
    "a key twice": (b'{\n"8": "a",\n"8": "b"}', "line 3: the key '8' is given twice, first in line 2"),
    "a key twice as numbers": (b'{"8": "a", "8.0": "b"}', "frame 8 is there twice"),
    "a trailing comma": (b'{"8": "a",\n}', "line"),
    "a comment in JSON": (b'[\n// why\n[8, "a"]]', "line 2"),
    "half a frame": (b"8.5: a", "line 1"),
    "below zero": (b"# x\n-8: a", "line 2"),
    "semicolons": (b"8: a\n16; b", "line 2"),
    "no prompt": (b"8: a\n16: \n", "line 2 has no prompt"),
    "Latin-1": (b"8: a\n16: K\xf6ln\n", "line 2 is not UTF-8 text"),
    "UTF-16 without a mark": ("8: a".encode("utf-16-le"), "line 1 has a zero byte"),
    "a giant number": (b"8: a\n" + b"9" * 5000 + b": b", "line 2"),
    "a giant number in JSON": (
        b'[[8, "a"],\n[' + b"9" * 5000 + b', "b"]]',
        "line 2: a number of 5000 digits",
    ),
    "a giant number and a letter": (b'[[8, "a"],\n[' + b"9" * 50 + b"x", "line 2: a number of 50 digits"),
    "a giant number and a point": (b"[\n-" + b"9" * 50 + b".]", "line 2: a number of 51 digits"),
    "a giant number and an e": (b"[\n" + b"9" * 50 + b"e]", "line 2: a number of 50 digits"),
    "a long fraction before a key twice": (
        b'{"8": ' + b"9" * 50 + b'.5,\n"8": "b"}',
        "line 2: the key '8' is given twice",
    ),
    "deep JSON": (b"[" * 100_000, "line 1: is nested more than 64 deep"),
    "closed deep JSON": (b"[" * 500 + b"]" * 500, "line 1: is nested more than 64 deep"),
    "nothing": (b"\xef\xbb\xbf \r\n# nothing\n", "contains no prompt"),
    "too much": (b"8: " + b"a" * texts.LARGEST, "has more than 4 MiB"),
}


def a_file(folder: Path, name: str, data: bytes) -> Path:
    (folder / name).write_bytes(data)
    return folder / name


@pytest.mark.parametrize("data", SCHEDULES.values(), ids=SCHEDULES)
def test_a_schedule_is_read_right(tmp_path, data):
    assert read_schedule(a_file(tmp_path, "s.txt", data)) == SCHEDULE


@pytest.mark.parametrize(("data", "said"), WRONG_SCHEDULES.values(), ids=WRONG_SCHEDULES)
def test_a_wrong_schedule_is_refused_with_its_line(tmp_path, data, said):
    with pytest.raises(RequestError, match="schedule") as told:
        read_schedule(a_file(tmp_path, "s.txt", data))
    assert said in told.value.fix and len(str(told.value)) < 500


@pytest.mark.parametrize("data", SCHEDULES.values(), ids=SCHEDULES)
def test_a_form_takes_what_the_file_takes(data):
    """Texts as the page and other API clients send them."""
    assert parse_schedule(texts.decoded(data)) == SCHEDULE


@pytest.mark.parametrize(
    ("typed", "code"), [("8：A dog\r\n# end\r\n", 200), ("8: a\n7: b", 400), ("[[8, 5]]", 400)]
)
def test_the_api_takes_a_schedule_as_it_is_typed(url, typed, code):
    form = {"prompt": (None, "A cat"), "num_frames": (None, "24"), "schedule": (None, typed)}
    answer = httpx2.post(f"{url}/v1/videos", files=form)
    assert answer.status_code == code, answer.text
    if code == 200:
        httpx2.delete(f"{url}/v1/videos/{answer.json()['id']}")
    else:
        assert answer.json()["error"]["param"] == "schedule"


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1e"])
def test_separators_inside_a_text_end_no_line(tmp_path, separator):
    prompt = f"A dog{separator}on the beach"
    assert read_schedule(a_file(tmp_path, "s.txt", f"8: {prompt}\n".encode())) == ((8, prompt),)
    rows = json.dumps({"prompt": prompt}, ensure_ascii=False) + "\n" + json.dumps({"prompt": "A cat"})
    made = read_table(a_file(tmp_path, "t.jsonl", rows.encode()), Request.validate)
    assert [request.prompt for _, request in made] == [prompt, "A cat"]
    made = read_table(a_file(tmp_path, "t.csv", f"prompt,frames\n{prompt},8\n".encode()), Request.validate)
    assert [request.prompt for _, request in made] == [prompt]


TWO = [("0001", Request("a cat", 8, guidance_scale=7.5)), ("0002", Request("a dog, running", 16))]
TABLES = {
    "plain.csv": b'prompt,frames,guidance_scale\na cat,8,7.5\n"a dog, running",16,\n',
    "pandas with an index.csv": b',prompt,frames,guidance_scale\n0,a cat,8,7.5\n1,"a dog, running",16,\n',
    "floats of pandas.csv": b'prompt,frames,guidance_scale\na cat,8.0,7.5\n"a dog, running",16.0,\n',
    "a mark and CRLF.csv": b"\xef\xbb\xbfprompt,frames,guidance_scale\r\n"
    b'a cat,8,7.5\r\n"a dog, running",16,\r\n',
    "semicolons.csv": b"prompt;frames;guidance_scale\na cat;8;7,5\na dog, running;16;\n",
    "Excel's first line.csv": b"\xef\xbb\xbfsep=;\r\n"
    b"prompt;frames;guidance_scale\r\na cat;8;7,5\r\na dog, running;16;\r\n",
    "tabs in UTF-16.csv": "\ufeffprompt\tframes\tguidance_scale\r\n"
    "a cat\t8\t7.5\r\na dog, running\t16\t\r\n".encode("utf-16-le"),
    "trailing commas.csv": b'prompt,frames,guidance_scale,\na cat,8,7.5,\n"a dog, running",16,,,\n',
    "comments and empty rows.csv": b'# mine\nprompt,frames,guidance_scale\n\n# first, "this\n'
    b'a cat,8,7.5\n,,\n"a dog, running",16,\n\n',
    "options' names.csv": b'Prompt, Frames ,guidance-scale\na cat,8,7.5\n"a dog, running",16,\n',
    "plain.jsonl": b'{"prompt": "a cat", "frames": 8, "guidance_scale": 7.5}\n'
    b'{"prompt": "a dog, running", "frames": 16}\n',
    "a mark and floats.jsonl": b'\xef\xbb\xbf{"prompt":"a cat","frames":8.0,"guidance-scale":7.5}\r\n'
    b'{"prompt":"a dog, running","frames":"16.0"}',
    "nulls and comments.jsonl": b'# two\n\n{"prompt":"a cat","frames":8,"guidance_scale":7.5,"steps":null}\n'
    b'{"prompt":"a dog, running","frames":16,"guidance_scale":NaN,"image":""}\n',
}
WRONG_TABLES = {
    "half a frame.csv": (
        b"prompt,frames\na cat,8.5\n",
        "row 1: frames='8.5': must be a whole number (line 2)",
    ),
    "a quoted line.csv": (
        b'prompt,frames\n"a cat\non a mat",8\na dog,x\n',
        "row 2: frames='x': must be a whole number (line 4)",
    ),
    "more cells.csv": (b"# x\nprompt,frames\na cat,8,9\n", "line 3 has more cells"),
    "fewer cells.csv": (b"prompt,frames\na cat,8\na dog\n", "line 3 has fewer cells"),
    "a column twice.csv": (
        b"prompt,frames,Frames\na cat,8,9\n",
        "line 1: the column 'frames' is there twice",
    ),
    "no name.csv": (b"prompt,,frames\na cat,x,8\n", "line 1: column 2 has no name"),
    "an open quote.csv": (b'prompt\na cat\n"a dog\n', "line 3"),
    "perhaps a comment.csv": (b"prompt\n#1 cat\n", "line 2 begins with '#'"),
    "Latin-1.csv": (b"prompt\na cat\nK\xf6ln\n", "line 3 is not UTF-8 text"),
    "a key twice.jsonl": (
        b'{"prompt": "a"}\n{"prompt": "b", "seed": 1, "seed": 2}',
        "line 2: the key 'seed' is given twice",
    ),
    "a key twice, named as an option.jsonl": (
        b'{"prompt": "b", "negative-prompt": "x", "negative_prompt": "y"}',
        "line 1: the column",
    ),
    "a trailing comma.jsonl": (b'{"prompt": "a"}\n{"prompt": "b",}\n', "line 2"),
    "deep.jsonl": (b'{"prompt": "a"}\n' + b'{"schedule":' + b"[" * 5000 + b"\n", "line 2"),
    "a list.jsonl": (b'[\n{"prompt": "a"}]', "line 1"),
    "an unknown column.jsonl": (b'{"prompt": "a"}\n{"prompt": "b", "sed": 2}', "line 2 has a column 'sed'"),
    "half a pair.jsonl": (b'{"prompt": "a \\ud800"}', "is not valid UTF-8 text (line 1)"),
    "a giant number.jsonl": (
        b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}",
        "line 1: a number of 5000 digits",
    ),
    "a long name.csv": (
        b"prompt,name\na," + b"x" * 250 + b"\n",
        "has 250 bytes; at most 200 are allowed (line 2)",
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_read_right(tmp_path, name):
    assert read_table(a_file(tmp_path, name, TABLES[name]), Request.validate) == TWO


@pytest.mark.parametrize("name", WRONG_TABLES)
def test_a_wrong_table_is_refused_with_its_line(tmp_path, name):
    data, said = WRONG_TABLES[name]
    with pytest.raises(RequestError) as told:
        read_table(a_file(tmp_path, name, data), Request.validate)
    assert said in told.value.fix and len(told.value.fix) < 1000


def test_a_table_of_parquet_may_have_pandas_index(tmp_path):
    pandas = pytest.importorskip("pandas")
    rows = pandas.DataFrame(
        {"prompt": ["a cat", "a dog, running"], "frames": [8.0, 16.0], "guidance_scale": [7.5, None]},
        index=[3, 9],
    )
    rows.to_parquet(tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet", Request.validate) == TWO
    with pytest.raises(RequestError, match="cannot be read"):
        read_table(a_file(tmp_path, "u.parquet", b"PAR1 no"), Request.validate)


def test_a_name_may_be_chinese_and_a_schedule_stand_in_the_cell(tmp_path):
    data = 'prompt,name,schedule\na cat,猫,"[[8, ""a dog""]]"\n'.encode()
    assert read_table(a_file(tmp_path, "t.csv", data), Request.validate) == [
        ("猫", Request("a cat", schedule=((8, "a dog"),)))
    ]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'{"name": "m",\n"fps": 8,\n"fps": 9}', "line 3: the key 'fps'"),
        (b"[" * 100_000, "nested"),
        (b'{"name": "m",}', "line 1"),
        (b"\xff", "line 1"),
        (b"[1]", "must be a JSON object"),
        (b'{"name": "m", "height": "64", "width": 64, "fps": 8}', "model.json"),
    ],
)
def test_a_wrong_model_json_is_refused_with_its_line(tmp_path, data, said):
    (tmp_path / "model.json").write_bytes(data)
    with pytest.raises(ModelError, match=r"model\.json") as told:
        ModelConfig.load(tmp_path)
    assert said in str(told.value)


def test_a_model_json_may_have_a_mark(tmp_path):
    config = ModelConfig("m", 32, 48, 8)
    config.save(tmp_path)
    (tmp_path / "model.json").write_bytes(
        b"\xef\xbb\xbf" + (tmp_path / "model.json").read_bytes().replace(b"\n", b"\r\n")
    )
    assert ModelConfig.load(tmp_path) == config


@settings(deadline=None)
@given(st.text())
def test_any_schedule_is_read_or_refused(text):
    try:
        entries = parse_schedule(text)
    except RequestError:
        return
    assert list(entries) == sorted(set(entries)) and all(frame >= 0 and prompt for frame, prompt in entries)


VALUES = st.none() | st.booleans() | st.integers() | st.text()
JSON = st.recursive(VALUES, lambda x: st.lists(x) | st.dictionaries(st.text(), x), max_leaves=8)


@settings(deadline=None)
@given(JSON, st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]), st.sampled_from([None, 1]))
def test_json_comes_back_whatever_wrote_it(values, encoding, indent):
    data = json.dumps(values, indent=indent, ensure_ascii=encoding == "utf-8").encode(encoding)
    assert texts.parse_json(data) == values


@pytest.mark.parametrize("text", ["", "  ", "\u3000", "\u200b", "\u200b\ufeff", "\0", "\x1b"])
def test_what_shows_nothing_is_an_empty_prompt(text):
    with pytest.raises(RequestError, match="must not be empty"):
        Request(text, 8).validate()
    with pytest.raises(RequestError, match="must not be empty"):
        Request("A cat", 8, schedule=((4, text),)).validate()


@pytest.mark.parametrize("text", ["48: 3 dogs", "8: a dog at 10:30", "8: 3d dogs", "8:2nd dog"])
def test_numbers_in_prompts_are_no_times(text):
    assert len(parse_schedule(text)) == 1

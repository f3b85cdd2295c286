"""Malformed heads and bodies of requests: each gets a 4xx without paths, and no video."""

from __future__ import annotations

import json
import time

import httpx2
import pytest

from serving import picture, raw
from streamingt2v.api import doors


def post(url: str, kind: str, body: bytes, length: int | str | None = None) -> bytes:
    said = len(body) if length is None else length
    return raw(
        url, f"POST /v1/videos HTTP/1.1\nHost: HOST\nContent-Type: {kind}\nContent-Length: {said}", body
    )


MANY = 200_000


@pytest.mark.parametrize(
    "body",
    [
        b"{" + b",".join(b'"%d":1' % n for n in range(MANY)) + b"}",
        b'{"prompt":"A cat","schedule":[' + b",".join(b'[%d,"x"]' % n for n in range(MANY)) + b"]}",
        b'{"prompt":"A cat","input_reference":{' + b",".join(b'"%d":1' % n for n in range(MANY)) + b"}}",
        b"[" * MANY,
        b'{"a":' * MANY,
    ],
    ids=["names", "list", "inner names", "deep lists", "deep objects"],
)
def test_a_body_of_many_values_is_refused_before_it_is_parsed(url, body):
    began = time.monotonic()
    assert post(url, "application/json", body).split()[1] == b"413"
    assert httpx2.get(f"{url}/health", timeout=5).status_code == 200 and time.monotonic() - began < 5


@pytest.mark.parametrize(
    "path", ["/v1/videos", "/v1/videos/extensions", "/v1/videos/ID/remix", "/v1/videos/ID/prompt"]
)
def test_too_many_names_are_one_error_and_not_one_for_each(url, video, path):
    body = json.dumps({f"n{n}": 1 for n in range(20_000)})
    answer = httpx2.post(url + path.replace("ID", video["id"]), content=body)
    assert answer.status_code == 400 and "more than 64 names" in answer.text and len(answer.text) < 1000


def test_a_large_body_that_is_no_form_is_refused_and_told_how(url):
    assert post(url, "application/json", b"", doors.PLAIN_BYTES + 1).split()[1] == b"413"
    assert "form" in httpx2.post(f"{url}/v1/videos", content=b'"' + b"x" * (doors.PLAIN_BYTES + 1)).text


@pytest.mark.parametrize(
    "body",
    [
        b'{"prompt":"A","prompt":"B"}',
        b'{"prompt":"A","guidance_scale":NaN}',
        b'{"prompt":"A","seed":' + b"9" * 5000 + b"}",
        b'{"\\ud800":1}',
        b'{"prompt":"A","model":"\\ud800"}',
        b'{"prompt":"A","video":{"id":"\\ud800"}}',
        b"\xef\xbb\xbf[]",
        b'{"prompt":["' + b"x" * 10**6 + b'"]}',
    ],
)
def test_strange_json_is_a_400_and_short(url, body):
    for path in ("/v1/videos", "/v1/videos/extensions"):
        answer = httpx2.post(url + path, content=body)
        assert answer.status_code == 400 and len(answer.text) < 3000, answer.text


def form(*parts: tuple[str, bytes], end: bytes = b"\r\n--B--\r\n") -> bytes:
    return (
        b"".join(
            b"\r\n--B\r\nContent-Disposition: form-data; %s\r\n\r\n%s" % (head.encode(), data)
            for head, data in parts
        )[2:]
        + end
    )


PROMPT = ('name="prompt"', b"A cat")


FILE = ('name="input_reference"; filename="x.png"', picture())


@pytest.mark.parametrize(
    "body",
    [
        form(PROMPT, FILE, end=b""),
        form(PROMPT, FILE, end=b"\r\n--B"),
        form(PROMPT, FILE, end=b"\r\n--B\r\n"),
        form(PROMPT, FILE, end=b"\r\n--B-"),
        form(PROMPT, FILE)[:-60],
        form(FILE, PROMPT)[:-12],
        form(PROMPT)[:-10],
        b"",
    ],
)
def test_a_form_that_is_cut_off_makes_no_video(service, url, body):
    before = service.store.ids()
    assert post(url, "multipart/form-data; boundary=B", body).split()[1] == b"400"
    assert service.store.ids() == before and not list(service.files.uploads.iterdir())


@pytest.mark.parametrize(
    "parts",
    [
        (PROMPT, ('name="prompt[a]"', b"x")),
        (('name="prompt[a]"', b"x"), PROMPT),
        (PROMPT, PROMPT),
        (PROMPT, ('name="a[b]"', b"x"), ('name="a[b]"', b"x")),
        (PROMPT, FILE, FILE),
        (PROMPT, FILE, ('name="input_reference"', b"x")),
        (('name="prompt"; filename="p.txt"', b"A cat"),),
        (PROMPT, ('name="[x]"', b"1")),
        (PROMPT, ('name="seed[x]"', b"1")),
    ],
)
def test_fields_that_contradict_each_other_are_a_400(url, parts):
    assert post(url, "multipart/form-data; boundary=B", form(*parts)).split()[1] == b"400"


EMPTY_FORM = "POST /v1/videos HTTP/1.1\nHost: HOST\nContent-Type: multipart/form-data"


MULTIPART = {"Content-Type": 'multipart/form-data; boundary="B"'}


def test_a_form_with_its_end_is_taken(service, url):
    """In pieces of any size, with an epilogue."""
    body = form(PROMPT, ('name="num_frames"', b"8"), FILE, end=b"\r\n--B--\r\nepilogue")
    for size in (1, 7, 4096):
        pieces = (body[i : i + size] for i in range(0, len(body), size))
        answer = httpx2.post(f"{url}/v1/videos", content=pieces, headers=MULTIPART, timeout=60)
        assert answer.status_code == 200, answer.text
        service.delete(answer.json()["id"])


@pytest.mark.parametrize(
    "head",
    [
        f"POST /v1/videos HTTP/1.1\nHost: HOST\nContent-Length: {'9' * 5000}",
        "POST /v1/videos HTTP/1.1\nHost: HOST\nContent-Length: -1",
        "GET /v1/videos HTTP/1.1\nHost: HOST\nOrigin: http://[",
        "GET /v1/videos HTTP/1.1\nHost: [",
        "GET /v1/videos HTTP/1.1\nHost: HOST\nOrigin: \xff\xfe",
        f"GET /v1/videos?limit={'9' * 5000} HTTP/1.1\nHost: HOST",
        "GET /v1/videos?after=%ff%fe HTTP/1.1\nHost: HOST",
        "GET /v1/videos/%ed%a0%80 HTTP/1.1\nHost: HOST",
        "GET /v1/videos/ID/content?variant=%00 HTTP/1.1\nHost: HOST",
        f"GET /v1/videos/ID/content HTTP/1.1\nHost: HOST\nRange: bytes={'9' * 5000}-",
        f"{EMPTY_FORM}\nContent-Length: 0",
        f"{EMPTY_FORM}; boundary=\nContent-Length: 0",
        f"{EMPTY_FORM}; boundary=B; charset=zlib\nContent-Length: 0",
        "POST /v1/videos HTTP/1.1\nHost: HOST\nIdempotency-Key: " + "x" * 300 + "\nContent-Length: 0",
        "BREW /v1/videos HTTP/1.1\nHost: HOST",
        "HEAD /v1/videos/ID/cancel HTTP/1.1\nHost: HOST",
    ],
)
def test_malformed_heads_are_a_4xx(url, video, head):
    assert raw(url, head.replace("ID", video["id"])).split()[1][:1] == b"4"

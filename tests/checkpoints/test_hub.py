"""Test hub access with the real client library against a local server."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import huggingface_hub
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hub_fixtures import hub_environment
from hub_server import Hub
from streamingt2v.checkpoints import hub as ours
from streamingt2v.checkpoints.download import PARTIAL
from streamingt2v.checkpoints.registry import ENTRIES, find_entry
from streamingt2v.errors import ModelError, RequestError

LARGE = bytes(range(256)) * 400  # an LFS file
FILES = {"model.safetensors": LARGE, "README.md": b"hello", "tokenizer/vocab.json": b"{}"}


def test_files_come_with_sizes_told_before_and_lie_where_every_client_finds_them(hub):
    repo, notes, counted = hub.put("owner/name", FILES, licence="mit"), [], []
    folder = ours.fetch(
        "owner/name", ours.like("*.safetensors", "tokenizer/*"), note=notes.append, on_bytes=counted.append
    )
    assert (folder / "model.safetensors").read_bytes() == LARGE and (
        folder / "tokenizer/vocab.json"
    ).read_bytes() == b"{}"
    assert not (folder / "README.md").exists() and sum(counted) == len(LARGE) + 2
    assert notes == [f"owner/name at {repo.commit}: 102 kB"] and ours.look_up("owner/name").licence == "mit"
    assert huggingface_hub.try_to_load_from_cache("owner/name", "model.safetensors") == str(
        folder / "model.safetensors"
    )
    asked = len(hub.asked)
    assert ours.fetch("owner/name", ours.like("*.safetensors"), note=notes.append) == folder
    assert len(notes) == 1 and [q for q in hub.asked[asked:] if "resolve" in q] == []


def test_revisions(hub):
    first = hub.put("owner/name", FILES, tags=("v1",))
    assert (
        ours.fetch("owner/name@v1").name
        == first.commit
        == ours.fetch("owner/name", revision=first.commit).name
    )
    second = hub.put("owner/name", FILES | {"new.txt": b"2"})
    assert ours.fetch("owner/name").name == second.commit != first.commit
    assert ours.find("owner/name", revision="v1").name == first.commit
    assert ours.find("owner/name", revision=first.commit[:8]).name == first.commit
    with pytest.raises(
        RequestError, match=r"source='owner/name@v9': there is no revision 'v9'; there are main, and commits"
    ):
        ours.fetch("owner/name@v9")
    with pytest.raises(RequestError, match=r"revision='v2': owner/name@v1 already gives one"):
        ours.fetch("owner/name@v1", revision="v2")


@pytest.mark.parametrize("by", ["argument", "variable"])
@pytest.mark.parametrize("revision", [None, "v1", "commit"])
def test_offline_finds_all_that_was_ever_fetched(hub, monkeypatch, by, revision):
    """Offline finds a download under the name it was fetched by and under none."""
    repo = hub.put("owner/name", FILES, tags=("v1",))
    asked = repo.commit if revision == "commit" else revision
    folder = ours.fetch("owner/name", ours.like("tokenizer/*"), revision=asked)
    monkeypatch.setattr(ours.constants, "HF_HUB_OFFLINE", by == "variable")
    count = len(hub.asked)
    for again in (asked, None):
        assert (
            ours.fetch("owner/name", ours.like("tokenizer/*"), revision=again, offline=by == "argument")
            == folder
        )
    with pytest.raises(
        ModelError,
        match=r"owner/name: is downloaded in part: 1 of 1 files are missing, and this run is offline",
    ):
        ours.fetch("owner/name", ours.like("*.safetensors"), offline=by == "argument")
    with pytest.raises(
        ModelError,
        match=r"owner/other: is not in the hub cache .* and this run is offline; run it once online",
    ):
        ours.fetch("owner/other", offline=by == "argument")
    assert len(hub.asked) == count


def test_offline_finds_what_another_client_fetched(hub):
    commit = hub.put("owner/name", FILES).commit
    for revision in (None, commit):
        path = huggingface_hub.hf_hub_download("owner/name", "README.md", revision=revision)
        assert ours.fetch("owner/name", ours.like("README.md"), offline=True) == Path(path).parent


def test_a_download_that_broke_off_is_known_offline(hub):
    hub.put("owner/name", FILES)
    ours.fetch("owner/name", ours.like("README.md"))
    with pytest.raises(
        ModelError, match=r"is downloaded in part: 2 of 3 files are missing, and this run is offline"
    ):
        ours.fetch("owner/name", offline=True)


# ---------------------------------------------------------------- errors


def refused(name="owner/name", **named):
    with pytest.raises((RequestError, ModelError)) as caught:
        ours.fetch(name, argument="model", **named)
    return str(caught.value)


def test_every_refusal_has_its_own_reason_and_remedy(hub, monkeypatch):
    hub.put("owner/name", FILES)
    hub.put("owner/gated", FILES, gated=True)
    hub.put("owner/private", FILES, private=True)
    hub.tokens = {"hf_good": {"owner/private"}, "hf_chosen": {"owner/gated"}}
    without = {name: refused(f"owner/{name}") for name in ("nothing", "gated", "private")}
    assert "no such repository" in without["nothing"] and "check its spelling" in without["nothing"]
    assert (
        "model='owner/private': no such repository" in without["private"]
        and "set HF_TOKEN to a token from" in without["private"]
    )
    page = f"accept its licence at {hub.url}/owner/gated"
    assert (
        page in without["gated"]
        and f"set HF_TOKEN to a token from {hub.url}/settings/tokens" in without["gated"]
    )
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    assert (
        "with the account of the token you use (HF_TOKEN)" in (waiting := refused("owner/gated"))
        and page in waiting
    )
    assert "or your token may not read it" in refused("owner/nothing")
    assert (ours.fetch("owner/private") / "README.md").is_file()
    monkeypatch.setenv("HF_TOKEN", "hf_chosen")
    assert (ours.fetch("owner/gated") / "model.safetensors").read_bytes() == LARGE
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "HF_TOKEN is not valid at" in refused() and "settings/tokens" in refused()
    assert "is no name of a repository in `streamingt2v models`" in refused("strange name")


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (429, "too many requests: wait some minutes"),
        (500, r"\(500\); try again later"),
        (503, r"\(503\); try again later"),
    ],
)
def test_a_hub_in_trouble(hub, status, words, monkeypatch):
    hub.put("owner/name", FILES)
    hub.status = status
    with pytest.raises(ModelError, match=words):
        ours.fetch("owner/name")


def test_no_network_at_all(hub, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setattr(ours.constants, "ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
    with pytest.raises(
        ModelError,
        match=r"owner/name: the hub at http://127.0.0.1:\d+ cannot be reached \(.*\); check the network",
    ):
        ours.fetch("owner/name")


def test_something_else_that_answers(hub, monkeypatch):
    monkeypatch.setattr(ours.constants, "ENDPOINT", f"{hub.url}/log-in")
    assert "no such repository" in refused()


def test_what_does_not_fit_on_the_disk_is_not_begun(hub, monkeypatch):
    hub.put("owner/name", FILES)
    monkeypatch.setattr(ours, "free_bytes", lambda folder: 1000)
    with pytest.raises(
        RequestError,
        match=r"the download of owner/name needs 102 kB, but 1 kB are free; free some space, or set HF_H",
    ):
        ours.fetch("owner/name")
    assert hub.bytes_sent == {}


def test_a_disk_that_fills_up_on_the_way_is_told_and_what_has_come_is_kept(hub, monkeypatch):
    hub.put("owner/name", {"model.safetensors": LARGE})
    came = []

    def full(count):
        came.append(count)
        if len(came) == 2:
            raise OSError(28, "No space left on device")

    with pytest.raises(ModelError, match="the disk of the hub cache is full"):
        ours.fetch("owner/name", on_bytes=full)
    ours.fetch("owner/name")


# ---------------------------------------------------------------- downloads that break


def test_a_connection_that_breaks_is_gone_on_with(hub):
    hub.put("owner/name", {"x.safetensors": LARGE * 4})
    hub.cut_after = 2 * 2**16
    folder = ours.fetch("owner/name")
    assert (folder / "x.safetensors").read_bytes() == LARGE * 4
    assert sum(hub.bytes_sent.values()) <= 1.1 * len(LARGE) * 4


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(have=st.integers(0, len(LARGE) + 5), damaged=st.booleans(), ranges=st.booleans())
def test_whatever_is_left_of_an_earlier_try_the_result_is_right(hub, have, damaged, ranges):
    content = os.urandom(8) + LARGE
    repo = hub.put("owner/name", {"x.safetensors": content})
    hub.ranges = ranges
    remote = ours.look_up("owner/name")
    part = remote.blob("x.safetensors")
    part = part.with_name(part.name + PARTIAL)
    part.parent.mkdir(parents=True, exist_ok=True)
    left = (content + bytes(9))[:have]
    part.write_bytes(bytes([left[0] ^ 1]) + left[1:] if damaged and left else left)
    counted = []
    folder = ours.fetch("owner/name", on_bytes=counted.append)
    assert folder.name == repo.commit and (folder / "x.safetensors").read_bytes() == content
    assert 0 <= sum(counted) <= 2 * len(content) and not part.exists()


def test_content_that_is_damaged_twice_is_an_error_and_nothing_is_kept(hub):
    repo = hub.put("owner/name", {"x.safetensors": LARGE})
    repo.files["x.safetensors"].__dict__["sha256"] = "0" * 64  # what it says is not what it sends
    with pytest.raises(ModelError, match=r"x\.safetensors: damaged twice"):
        ours.fetch("owner/name")
    assert list((ours.Remote("owner/name", "", {}).store / "blobs").glob("*incomplete")) == []


FETCH = (
    "import sys; from streamingt2v.checkpoints.hub import fetch; "
    "print(fetch(sys.argv[1], on_bytes=lambda n: print(n, flush=True)))"
)


def started(url: str, folder: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", FETCH, "owner/name"],
        env=hub_environment(url, folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_killed_at_three_places_it_is_gone_on_with(hub, tmp_path):
    """Resume after SIGKILL, SIGINT, SIGKILL with at most 1.1 times the file's bytes on the wire."""
    size = 20_000_000
    hub.put("owner/name", {"big.safetensors": os.urandom(1000) * (size // 1000)})
    hub.rate = 20_000_000
    for number, until in ((signal.SIGKILL, 4e6), (signal.SIGINT, 9e6), (signal.SIGKILL, 15e6)):
        process = started(hub.url, tmp_path)
        while sum(hub.bytes_sent.values()) < until:
            assert process.poll() is None, process.stderr.read().decode()
            time.sleep(0.01)
        began = time.monotonic()
        process.send_signal(number)
        process.communicate(timeout=10)
        assert time.monotonic() - began < 2 and process.returncode != 0
    hub.rate = None
    out, err = started(hub.url, tmp_path).communicate(timeout=30)
    folder = Path(out.decode().splitlines()[-1])
    assert (folder / "big.safetensors").stat().st_size == size, err.decode()
    assert sum(hub.bytes_sent.values()) <= 1.1 * size
    assert [path.name for path in (tmp_path / "hf").rglob("*.incomplete")] == []


def test_two_processes_fetch_a_file_once(hub, tmp_path):
    hub.put("owner/name", {"big.safetensors": os.urandom(1000) * 2000})
    hub.rate = 4_000_000
    both = [started(hub.url, tmp_path) for _ in range(2)]
    folders = {process.communicate(timeout=30)[0].decode().splitlines()[-1] for process in both}
    assert len(folders) == 1 and sum(hub.bytes_sent.values()) <= 1.1 * 2_000_000


def test_ctrl_c_ends_a_stalled_download_at_once(hub):
    """An exception in the calling thread leaves `fetch` while the server is silent."""
    hub.put("owner/name", {"x.safetensors": LARGE})
    hub.rate = 1
    timer = threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        ours.fetch("owner/name")
    assert time.monotonic() - began < 2


# ---------------------------------------------------------------- names


def test_what_is_meant_for_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner").mkdir()
    (tmp_path / "owner" / "name").touch()
    texts = (
        "owner/name",
        "owner/other",
        "owner/other@v1.0",
        "streaming-t2v",
        "./x",
        "/a/b",
        "x.ckpt",
        "a/b/c",
        "a/b@",
        "../b",
    )
    assert [ours.is_hub_name(text) for text in texts] == [False, True, True, True, *[False] * 6]
    assert ours.parse_id("a/b@v1") == ("a/b", "v1") and ours.parse_id("a/b") == ("a/b", None)


def test_the_registry_names_each_model_once_and_says_what_was_checked():
    names = [entry.name for entry in ENTRIES]
    assert (
        len(names) == len(set(names))
        and find_entry("PAIR/StreamingT2V").name == "streaming-t2v"
        and find_entry("x") is None
    )
    assert {
        "tiny",
        "streaming-t2v",
        "streaming-svd",
        "modelscope",
        "animatediff",
        "svd",
        "vid2vid",
        "i2vgen-xl",
    } <= set(names)
    for entry in ENTRIES:
        assert entry.licence and entry.verified.split(":")[0].split(" of ")[0] in (
            "yes",
            "no",
            "parameters",
        ), entry.name


def test_models_that_are_pipelines_say_what_they_need_and_where_they_ran():
    whole = [entry for entry in ENTRIES if entry.role == "model" and entry.steps]
    assert len(whole) >= 10 and all("run at toy size here" in entry.verified for entry in whole)
    wan = find_entry("Wan-AI/Wan2.2-T2V-A14B-Diffusers")
    assert wan.weights == {"none": 2 * sum(dict(wan.networks).values()), "model": 2 * 14_288_491_584}
    assert wan.to_json()["weights"] == wan.weights and find_entry("tiny").weights == {}


def test_the_server_speaks_to_the_hubs_own_downloader(tmp_path, hub):
    """The tests' server works as a hub for the official client."""
    assert isinstance(hub, Hub)
    hub.put("owner/name", FILES)
    folder = Path(huggingface_hub.snapshot_download("owner/name", cache_dir=tmp_path / "theirs"))
    assert {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    } == FILES

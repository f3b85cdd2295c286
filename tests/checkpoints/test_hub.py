"""The hub behind its boundary: sizes and commits before downloads, offline from the cache, clear errors; no network."""

from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from streamingt2v.checkpoints import hub
from streamingt2v.checkpoints.registry import ENTRIES, find_entry
from streamingt2v.errors import ModelError, RequestError


class Hub:
    """Stands for the hub: what it is asked, and a folder to answer with."""

    def __init__(self, folder, size=5_000):
        self.folder, self.size, self.asked = folder, size, []

    def model_info(self, hub_id, revision, files_metadata):
        self.asked.append(("info", hub_id, revision))
        files = [SimpleNamespace(rfilename=name, size=self.size) for name in ("model.safetensors", "README.md", "tokenizer/vocab.json")]
        return SimpleNamespace(sha="a" * 40, siblings=files)

    def snapshot_download(self, hub_id, revision, allow_patterns, local_files_only=False):
        self.asked.append(("cache" if local_files_only else "download", hub_id, revision, *allow_patterns))
        if not self.folder.exists():
            raise LocalEntryNotFoundError("nothing here")
        return str(self.folder)


@pytest.fixture
def remote(monkeypatch, tmp_path):
    stand_in = Hub(tmp_path)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: stand_in)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", stand_in.snapshot_download)
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
    return stand_in


def test_the_size_is_told_before_the_download_of_that_commit(remote, tmp_path):
    notes = []
    assert hub.fetch("owner/name", ("*.safetensors", "tokenizer/*"), note=notes.append) == tmp_path
    assert notes == ["owner/name at " + "a" * 40 + ": 10 kB, as far as it is not here already"]
    assert remote.asked == [("info", "owner/name", None), ("download", "owner/name", "a" * 40, "*.safetensors", "tokenizer/*")]


def test_names_and_revisions(remote):
    hub.fetch("streaming-svd", ("*.safetensors",), revision="v1")
    assert remote.asked[0] == ("info", "PAIR/StreamingSVD", "v1")
    with pytest.raises(RequestError, match=r"source='vid2vid': is not on the Hugging Face hub .* give its folder"):
        hub.fetch("vid2vid")
    with pytest.raises(ModelError, match="has no file like"):
        hub.fetch("owner/name", ("*.ckpt",))


@pytest.mark.parametrize("by", ["argument", "variable"])
def test_offline_takes_the_cache_and_asks_nothing(remote, monkeypatch, tmp_path, by):
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", by == "variable")
    offline = by == "argument"
    (tmp_path / "x.ckpt").touch()
    assert hub.fetch("owner/name", ("*.ckpt",), offline=offline) == tmp_path
    with pytest.raises(ModelError, match=r"no file like tokenizer/\*, and this is offline"):
        hub.fetch("owner/name", ("tokenizer/*",), offline=offline)
    remote.folder = tmp_path / "nowhere"
    with pytest.raises(ModelError, match=r"is not in the hub's cache .* and this is offline; run it once with a network"):
        hub.fetch("owner/name", offline=offline)
    assert {asked[0] for asked in remote.asked} == {"cache"}


def test_a_hub_that_cannot_be_asked_is_told(remote, monkeypatch):
    def broken(*arguments, **named):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(remote, "model_info", broken)
    with pytest.raises(ModelError, match=r"owner/name: cannot be got from the hub \(no route\); give its folder"):
        hub.fetch("owner/name")


def test_what_does_not_fit_on_the_disk_is_not_begun(remote):
    remote.size = 10**18
    with pytest.raises(RequestError, match=r"the download of owner/name needs 3e\+06 TB|needs 3.*TB, of which"):
        hub.fetch("owner/name")
    assert [asked[0] for asked in remote.asked] == ["info"]


def test_what_is_meant_for_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner").mkdir()
    (tmp_path / "owner" / "name").touch()
    assert [hub.is_hub_name(text) for text in ("owner/name", "owner/other", "streaming-t2v", "./x", "/a/b", "x.ckpt", "a/b/c")] == [
        False, True, True, False, False, False, False,
    ]  # fmt: skip


def test_the_registry_names_each_model_once_and_says_what_was_checked():
    names = [entry.name for entry in ENTRIES]
    assert len(names) == len(set(names)) and find_entry("PAIR/StreamingT2V").name == "streaming-t2v" and find_entry("x") is None
    assert {"tiny", "streaming-t2v", "streaming-svd", "modelscope", "animatediff", "svd", "vid2vid", "i2vgen-xl"} == set(names)
    for entry in ENTRIES:
        assert entry.licence and entry.verified.split(":")[0].split(" of ")[0] in ("yes", "no", "parameters"), entry.name

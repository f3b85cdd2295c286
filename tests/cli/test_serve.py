"""`serve`: access, and wrong settings reported before anything loads."""

from __future__ import annotations

import json
import socket
from importlib.util import find_spec

import pytest

from streamingt2v.cli import main, serve
from streamingt2v.errors import RequestError


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.2", "::", "example.org"])
def test_an_address_that_others_reach_needs_a_token(host):
    with pytest.raises(RequestError, match="set a token"):
        serve.checked_token(host, None)
    assert serve.checked_token(host, "x" * 16) == "x" * 16


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "[::1]", "localhost"])
def test_this_machine_needs_none(host):
    assert serve.checked_token(host, None) is None


@pytest.mark.parametrize(
    "token",
    ["", "short", "x" * 15, "sixteen letters and spaces", "sixteen-letters-\n", "ümlaut-ümlaut-ümlaut"],
)
def test_a_token_must_keep_people_out_and_fit_into_a_header(token):
    with pytest.raises(RequestError) as refused:
        serve.checked_token("127.0.0.1", token)
    assert not token or token not in str(refused.value), "it is a secret"


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        (["--host", "0.0.0.0"], "--host"),
        (["--model", "no-such-model"], "--model"),
        (["--max-queue", "0"], "--max-queue"),
        (["--max-upload-mb", "0"], "--max-upload-mb"),
        (["--workers", "0"], "--workers"),
        (["--keep-hours", "-1"], "--keep-hours"),
        (["--data-dir", "/dev/null/x"], "--data-dir"),
        (["--max-uploads", "0"], "--max-uploads"),
        (["--max-stored-mb", "0"], "--max-stored-mb"),
        *((["--allow-host", host], "--allow-host") for host in ("x:y", "x:99999", "a@b", "[", "x/y", "")),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_loaded(tmp_path, monkeypatch, capsys, options, argument):
    monkeypatch.delenv(serve.TOKEN, raising=False)
    monkeypatch.chdir(tmp_path)
    assert main(["serve", "--port", "0", *options]) == 2
    assert argument in capsys.readouterr().err


def test_without_the_extra_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(serve, "find_spec", lambda name: None if name == "fastapi" else find_spec(name))
    assert main(["serve"]) == 2
    assert "pip install 'streamingt2v[server]'" in capsys.readouterr().err


def test_two_models_of_one_name_are_refused(tmp_path):
    from streamingt2v.jobs.settings import Limits, Settings

    with pytest.raises(RequestError, match="same name"):
        Settings(tmp_path, ("tiny", "elsewhere/tiny"))
    settings = Settings(tmp_path, ("tiny",), keep_seconds=None, limits=Limits(queue=3))
    assert Settings.from_json(settings.to_json()) == settings and "\n" not in settings.to_json()
    assert json.loads(settings.to_json())["limits"]["queue"] == 3


@pytest.mark.parametrize("command", ["serve", "demo"])
def test_a_port_that_is_taken_is_noticed_before_a_model_is_loaded(tmp_path, monkeypatch, capsys, command):
    monkeypatch.setattr("streamingt2v.jobs.service.JobService", None)  # fails if it is started
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main([command, "--port", str(port), "--data-dir", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert f"--port {port}" in said and "loading" not in said

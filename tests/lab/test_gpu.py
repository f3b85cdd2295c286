"""Test the GPU benchmark at toy size on the CPU."""

import json
from dataclasses import asdict, replace

import pytest

from lab.benchmarks import gpu

TOY = gpu.Row("streaming-t2v", dtype="float32", device="cpu", steps=1, toy=True)


def test_rows_differ_from_the_plain_one_in_one_option():
    found = gpu.rows(list(gpu.MODELS), "cuda", None, toy=False)
    assert len(found) == len(set(found)) == 16
    for model in gpu.MODELS:
        plain, *others = [row for row in found if row.model == model]
        for row in others:
            changes = {name for name, value in asdict(row).items() if value != asdict(plain)[name]}
            assert len(changes) == 1
    assert {row.offload for row in gpu.rows(list(gpu.MODELS), "cpu", 1, toy=True)} == {"none"}


@pytest.mark.slow  # makes videos
@pytest.mark.parametrize(
    "row",
    [
        TOY,
        replace(TOY, procedure="published"),
        replace(TOY, model="streaming-svd"),
        replace(TOY, model="wan"),
    ],
    ids=lambda row: f"{row.model}-{row.procedure}",
)
def test_a_measurement(row, tmp_path):
    found = gpu.measure(row, gpu.prepare(row.model, tmp_path, "cpu", toy=True), chunks=2)
    assert found["first_chunk_seconds"] > 0 and found["chunk_seconds"] > 0 and found["frames"] > 1
    assert json.loads(json.dumps(found)) == found
    assert gpu.table([{"row": asdict(row), **found}]).count("\n") == 2


def test_a_row_that_fails_says_why_and_the_rest_goes_on(monkeypatch, tmp_path, capsys):
    class Done:
        returncode, stdout, stderr = 1, "", "Traceback\ntorch.OutOfMemoryError: CUDA out of memory"

    monkeypatch.setattr(gpu.subprocess, "run", lambda *words, **how: Done)
    out = tmp_path / "gpu.json"
    arguments = ["--toy", "--models", "streaming-t2v", "--out", str(out), "--folder", str(tmp_path)]
    gpu.main(arguments)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == 4 and {row["error"] for row in rows} == {"out of memory"}
    monkeypatch.setattr(gpu.subprocess, "run", lambda *words, **how: pytest.fail("measured again"))
    gpu.main(arguments)
    assert capsys.readouterr().out.count("| out of memory |") == 8

"""The recipe of the next model at toy size, from nothing to a model folder and its page."""

import pytest

from lab.proof import whole
from streamingt2v import LongVideoPipeline, Request
from streamingt2v.web.words import known_words, read_as


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_one_command_leads_from_nothing_to_a_model_and_its_page(tmp_path):
    command = [str(tmp_path), "--toy", "1", "--here", "1", "--minutes", "1000", "--workers", "0"]
    whole.main(command)
    model = str(tmp_path / "model")
    pipe = LongVideoPipeline.from_pretrained(model)
    assert pipe.config.extend.steps == 4 and not pipe.config.guidance
    chunks = list(pipe.stream(Request("A brown horse walking on the beach", 17, preset="full")))
    assert sum(len(chunk.frames) for chunk in chunks) == 17 and chunks[0].frames.shape[1:3] == (128, 128)
    assert {"cat", "striped", "street"} <= set(known_words(model))
    assert read_as(model, "A brown horse walking")["shown_as"] == "an orange giraffe running"
    assert "## Short memory" in (tmp_path / "results.md").read_text()
    before = (tmp_path / "results" / "items.jsonl").read_bytes()
    whole.main(command)
    assert (tmp_path / "results" / "items.jsonl").read_bytes() == before

"""Test what a package index shows and what the wheel holds."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LINK = re.compile(r"\]\(([^)\s]+)[^)]*\)|(?:src|href)=\"([^\"]+)\"")


def test_links_and_images_of_the_readme_work_on_a_package_index():
    text = re.sub(r"```.*?```", "", (ROOT / PROJECT["readme"]).read_text(), flags=re.DOTALL)
    links = [link for match in LINK.finditer(text) for link in match.groups() if link]
    assert [link for link in links if not link.startswith(("https://", "#"))] == []


def test_the_wheel_is_below_80_megabytes_and_has_what_the_package_reads():
    files = [path for path in (ROOT / "src" / "streamingt2v").rglob("*") if "__pycache__" not in path.parts]
    assert sum(path.stat().st_size for path in files if path.is_file()) < 80e6
    names = {path.name for path in files}
    assert {"registry.json", "published.json", "py.typed", "model.safetensors"} <= names
    for name in PROJECT["license-files"]:
        assert (ROOT / name).is_file()


def test_every_extra_that_an_error_names_exists():
    extras = PROJECT["optional-dependencies"]
    named = {
        extra
        for path in (ROOT / "src").rglob("*.py")
        for group in re.findall(r"streamingt2v\[([a-z,]+)\]", path.read_text())
        for extra in group.split(",")
    }
    from streamingt2v.checkpoints.packages import EXTRAS

    assert named | set(EXTRAS.values()) <= extras.keys()
    for module, extra in EXTRAS.items():
        assert extras[extra], module


@pytest.mark.slow
def test_one_command_from_nothing(capsys):
    """Run `lab/benchmarks/one_command.py` with this environment's package."""
    from lab.benchmarks import one_command

    (found,) = one_command.main(["--here", "--steps", "1", "--only", "streaming-t2v"])
    assert (found.code, found.frames, found.size, found.error) == (0, 24, "256x256", "")

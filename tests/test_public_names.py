"""`import streamingt2v` offers exactly the public names, each loaded when it is used."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import streamingt2v
from streamingt2v import errors

PUBLIC = {"LongVideoPipeline", "Request", "Chunk", "export", "resume", "__version__"}


def error_names() -> set[str]:
    return {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, errors.StreamingT2VError)
    }


def test_the_public_names_are_these():
    assert set(streamingt2v.__all__) == PUBLIC | error_names()
    assert set(dir(streamingt2v)) == set(streamingt2v.__all__)


@pytest.mark.parametrize("name", sorted(PUBLIC | error_names()))
def test_every_public_name_loads(name):
    value = getattr(streamingt2v, name)
    assert name == "__version__" or value.__name__ == name


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'VideoPipeline'"):
        streamingt2v.VideoPipeline  # noqa: B018


def test_the_version_is_the_projects():
    project = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    assert re.search(r'^version = "(.+)"$', project, re.MULTILINE).group(1) == streamingt2v.__version__


def test_the_error_tree_is_drawn_as_it_is():
    drawn = re.findall(r"^[│├└─ ]*(\w+Error|\w+Extra)", errors.__doc__, re.MULTILINE)
    assert set(drawn) == error_names()


def test_importing_the_package_imports_nothing_heavy():
    heavy = "{'torch', 'numpy', 'av', 'diffusers'} & set(sys.modules)"
    check = f"import sys, streamingt2v as s; s.Request, s.RunError; print({heavy})"
    assert (
        subprocess.run(
            [sys.executable, "-c", check], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "set()"
    )

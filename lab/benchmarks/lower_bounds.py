"""Run tests with the lowest versions that pyproject.toml allows, in their own virtual environment.

    python lab/benchmarks/lower_bounds.py FOLDER [--torch-of PYTHON] [--extra server ...] [-- ARGUMENTS]

FOLDER holds the environment and is reused. --torch-of takes torch from another environment instead of
installing the lowest, which is gigabytes with CUDA; its bound is then tested only if that is the lowest. Exit
code: pip's if the versions conflict, else pytest's.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOOLS = (
    "pytest",
    "pytest-timeout",
    "hypothesis",
    "openai",
    "schemathesis",
)  # the tests' own packages: unchanged
EXTRAS = ("bases", "client", "eval", "interpolate", "server", "web")
TESTS = tuple(
    f"tests/{name}"
    for name in ("field", "cli", "runs", "video", "samplers", "models", "stages", "api", "test_trip.py")
)
TORCH = ("torch", "torchgen", "functorch")


def lowest(extras: list[str]) -> dict[str, str]:
    """Return package -> lowest allowed version, of the dependencies and the extras'."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(line for extra in extras for line in project["optional-dependencies"][extra]),
    ]
    found: dict[str, str] = {}
    for line in wanted:
        name, _, version = re.sub(r"\[.*\]", "", line).partition(">=")
        if name != project["name"]:
            found[name] = version
    return found


def make(folder: Path, versions: dict[str, str], torch_of: Path | None) -> None:
    """Create the environment. CalledProcessError if pip cannot install the versions together."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    if torch_of is not None:
        _link_torch(_packages(torch_of), _packages(python))
        versions = {name: version for name, version in versions.items() if name != "torch"}
        wanted = [*(f"{name}=={version}" for name, version in versions.items()), *_needs_of_torch(torch_of)]
    else:
        wanted = [f"{name}=={version}" for name, version in versions.items()]
    install = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*install, *wanted, *TOOLS], check=True)
    subprocess.run([*install, "--no-deps", "-e", ROOT], check=True)


def _packages(python: Path) -> Path:
    show = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return Path(
        subprocess.run([python, "-c", show], check=True, capture_output=True, text=True).stdout.strip()
    )


def _link_torch(source: Path, target: Path) -> None:
    for place in [*(source / name for name in TORCH), *source.glob("torch-*.dist-info")]:
        if place.exists() and not (target / place.name).exists():
            (target / place.name).symlink_to(place)


def _needs_of_torch(python: Path) -> list[str]:
    show = "import importlib.metadata as m; print('\\n'.join(r for r in m.requires('torch') if ';' not in r))"
    return subprocess.run([python, "-c", show], check=True, capture_output=True, text=True).stdout.split(
        "\n"
    )[:-1]


def main() -> int:
    """Run the command."""
    own, _, rest = "\n".join(sys.argv[1:]).partition("\n--\n")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--torch-of", type=Path, help="the python of an environment whose torch is used")
    parser.add_argument(
        "--extra", action="append", choices=EXTRAS, help="only these extras; default: all of them"
    )
    options = parser.parse_args(own.splitlines())
    versions = lowest(options.extra or list(EXTRAS))
    print("\n".join(f"{name}=={version}" for name, version in versions.items()), flush=True)
    if not (options.folder / "ready").exists():
        try:
            make(options.folder, versions, options.torch_of)
        except subprocess.CalledProcessError as error:
            return error.returncode
        (options.folder / "ready").touch()
    command = [
        options.folder.absolute() / "bin" / "python",
        "-m",
        "pytest",
        "-q",
        *(rest.splitlines() or TESTS),
    ]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())

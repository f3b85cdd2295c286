"""Commands that listen, for benchmarks that are their clients."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path


def serving(model: str, folder: Path) -> list[str]:
    """Return the command that serves `model` on a free port and keeps its jobs in `folder`."""
    words = ("serve", "--port", "0", "--model", model, "--data-dir", str(folder))
    return [sys.executable, "-m", "streamingt2v", *words]


def started(
    command: list[str], log: Path, environment: Mapping[str, str] = os.environ
) -> tuple[subprocess.Popen, str]:
    """Start a server; return its process and address. Log to `log`; print that if it does not start."""
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    while process.poll() is None:
        said = re.search(r"listening on (\S+)", log.read_text())
        if said:
            return process, said[1]
        time.sleep(0.1)
    raise SystemExit(f"the server did not start: {log.read_text()}")

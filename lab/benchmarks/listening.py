"""Commands that listen, for benchmarks that are their clients."""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path


def started(command: list[str], log: Path, **environment: str) -> tuple[subprocess.Popen, str]:
    """The process and its address. What it says goes to a file, printed if it does not start."""
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=os.environ | environment)
    while process.poll() is None:
        said = re.search(r"listening on (\S+)", log.read_text())
        if said:
            return process, said[1]
        time.sleep(0.1)
    raise SystemExit(f"the server did not start: {log.read_text()}")

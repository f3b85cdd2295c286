"""A Ray that is started here listens on loopback addresses only."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import os, time
import psutil
from streamingt2v.ray_backend import Farm, Pool

def make():
    return str.upper

for crew in (Farm(make, 2), Pool(make, 1)):
    with crew:
        time.sleep(2)
        me = psutil.Process()
        open = [c for p in [me, *me.children(recursive=True)] for c in p.net_connections("inet")]
        seen = {c.laddr.ip for c in open if c.status == "LISTEN"}
        print("AT", *sorted(seen), os.environ["RAY_AUTH_MODE"])
"""


def test_a_ray_of_our_own_listens_on_this_machine_alone():
    pytest.importorskip("ray")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        timeout=200,
        env=environment,
        check=False,
    )
    said = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("AT")]
    assert len(said) == 2, done.stderr
    for *found, mode in said:
        assert found and set(found) <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"} and mode == "token", said

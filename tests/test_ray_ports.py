"""Addresses that the processes of a Ray started here listen on."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import time, ipaddress, os, sys
import psutil
from streamingt2v.ray_backend import Farm, Pool

def make():
    return str.upper

with {crew}:
    time.sleep(3)
    me = psutil.Process()
    seen = {{c.laddr.ip for p in [me, *me.children(recursive=True)] for c in p.net_connections("inet") if c.status == "LISTEN"}}
    print("AT", *sorted(seen), os.environ["RAY_AUTH_MODE"])
"""


@pytest.mark.parametrize("crew", ["Pool(make, 1)", "Farm(make, 2)"])
def test_a_ray_of_our_own_listens_on_this_machine_alone(crew):
    pytest.importorskip("ray")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    program = [sys.executable, "-c", PROGRAM.format(crew=crew)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=200, env=environment, check=False)
    *found, mode = next(line for line in done.stdout.splitlines() if line.startswith("AT")).split()[1:]
    assert found and set(found) <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"} and mode == "token", done.stdout

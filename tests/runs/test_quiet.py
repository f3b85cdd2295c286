"""Libraries at the start of a process."""

import subprocess
import sys

import pytest

LOOK = """
import gc, sys
before = list(sys.meta_path), gc.isenabled(), gc.get_freeze_count()
from streamingt2v.runs.quiet import hide_progress_bars
hide_progress_bars()
import diffusers, transformers
print(diffusers.utils.logging.is_progress_bar_enabled(), transformers.utils.logging.is_progress_bar_enabled())
ours = [finder for finder in sys.meta_path if "streamingt2v" in getattr(finder, "__module__", "")]
print(bool(ours), (gc.isenabled(), gc.get_freeze_count()) != before[1:])
levels = lambda: [library.utils.logging.get_verbosity() >= 40 for library in (diffusers, transformers)]
print(any(levels()))
hide_progress_bars(warnings=False)
print(not all(levels()))
"""


@pytest.mark.slow  # a process that imports it all
def test_bars_are_hidden_and_nothing_else_is_changed():
    done = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"] * 6

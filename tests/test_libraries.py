"""What is imported as a process begins."""

import gc
import subprocess
import sys

from streamingt2v.libraries import import_libraries

LOOK = """
import gc, sys
from streamingt2v.libraries import import_libraries
import_libraries()
import diffusers, transformers
print(gc.isenabled(), gc.get_freeze_count() > 100_000, "streamingt2v.pipeline" in sys.modules,
      diffusers.utils.logging.is_progress_bar_enabled(), transformers.utils.logging.is_progress_bar_enabled())
"""


def test_the_collector_waits_for_imports_and_no_longer():
    done = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, check=True)
    collects, frozen, imported, *bars = (word == "True" for word in done.stdout.split())
    assert collects and frozen and imported
    assert not any(bars)


def test_a_collector_that_was_off_stays_off():
    gc.disable()
    frozen = gc.get_freeze_count()
    try:
        import_libraries()
        assert not gc.isenabled() and gc.get_freeze_count() == frozen
    finally:
        gc.enable()

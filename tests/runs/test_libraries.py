"""Imports at the start of a process."""

import gc
import subprocess
import sys

from streamingt2v.runs.libraries import import_libraries

LOOK = """
import gc, sys
from streamingt2v.runs.libraries import import_libraries
import_libraries()
import diffusers, transformers
print(gc.isenabled(), gc.get_freeze_count() > 100_000, "streamingt2v.pipeline" in sys.modules,
      diffusers.utils.logging.is_progress_bar_enabled(), transformers.utils.logging.is_progress_bar_enabled())
"""


SCAN = """
import sys
from streamingt2v.runs.libraries import import_libraries
import_libraries()
from transformers import models
from transformers.utils import import_utils
found = import_utils.define_import_structure.__wrapped__(models.__file__)
look = import_utils.create_import_structure_from_path
print(not any("streamingt2v" in finder.__module__ for finder in sys.meta_path), look.cache_info().hits > 500)
import_utils.create_import_structure_from_path = look.__wrapped__
print(found == import_utils.define_import_structure.__wrapped__(models.__file__))
"""


def test_transformers_looks_at_its_sources_once():
    done = subprocess.run([sys.executable, "-c", SCAN], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True"] * 3, "no finder stays behind, and what is remembered is what would be found"


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

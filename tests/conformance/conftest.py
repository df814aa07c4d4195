"""Modules that the tests of this directory import by name: tests are no package, and not on the import path."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

if "journal_forms" not in sys.modules:
    _spec = importlib.util.spec_from_file_location(
        "journal_forms", Path(__file__).with_name("journal_forms.py")
    )
    assert _spec is not None
    assert _spec.loader is not None
    _module = importlib.util.module_from_spec(_spec)
    sys.modules["journal_forms"] = _module
    _spec.loader.exec_module(_module)

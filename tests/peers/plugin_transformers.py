"""What transformers' common tests import and its source distribution lacks: a pytest plugin."""

from __future__ import annotations

import sys
from types import ModuleType

import transformers.utils

# They are read for the tests of generation and of exporters, which a LAM has not inherited.
MISSING = {
    "tests.exporters.test_export": {"ExportTesterMixin": type("ExportTesterMixin", (), {})},
    "tests.generation.test_utils": {"GenerationTesterMixin": type("GenerationTesterMixin", (), {})},
    "tests.utils.test_configuration_utils": {"config_common_kwargs": {"return_dict": False, "num_labels": 7}},
}

for name, content in MISSING.items():
    for parent in (name.rpartition(".")[0], name):
        sys.modules.setdefault(parent, ModuleType(parent))
    vars(sys.modules[name]).update(content)
transformers.utils.direct_transformers_import = lambda *_: transformers  # it looks for a checkout

"""Lets transformers, sentence-transformers and mteb know LAM from the moment that they are imported.

Installed as `lam_model_startup` too, which a `.pth` file runs whenever Python starts: so it imports nothing but `sys`
until one of them is imported.
"""

import sys


class AfterImport:
    """A finder of modules that finds none itself, but has a function called with a module once it is there."""

    def __init__(self, name, call):
        self.name, self.call = name, call

    def find_spec(self, name, path=None, target=None):
        """Called by Python for every module that is imported."""
        if name != self.name:
            return None
        from importlib.util import find_spec

        sys.meta_path.remove(self)
        spec = find_spec(name)
        if spec is not None and hasattr(spec.loader, "exec_module"):
            execute = spec.loader.exec_module

            def execute_and_call(module):
                execute(module)
                self.call(module)

            spec.loader.exec_module = execute_and_call
        return spec


def after_import(name, call):
    """Call a function with a module: now if it is there, else once it has been imported."""
    if name in sys.modules:
        call(sys.modules[name])
    else:
        sys.meta_path.insert(0, AfterImport(name, call))


def _register(kind):
    def call(module):
        try:
            from lam_model import registration

            getattr(registration, kind)(module)
        except Exception as error:  # whoever imports the other library must not fail for LAM
            import warnings

            warnings.warn(f"LAM could not be made known to {module.__name__}: {error}", stacklevel=2)

    return call


if not getattr(sys, "_lam_model_startup", False):
    sys._lam_model_startup = True
    after_import("transformers.models.auto.configuration_auto", _register("config"))
    after_import("transformers.models.auto.modeling_auto", _register("model"))
    after_import("mteb.models.model_implementations", _register("in_mteb"))

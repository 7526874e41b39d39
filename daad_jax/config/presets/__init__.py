"""Presets: modules with a function `get_config(setting="daad_plus")`, one for each data set."""

import pkgutil

PRESETS = tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))
"""The names of the modules in this folder."""

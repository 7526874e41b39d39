"""The addressing rules of the package: one module for each family.

A new rule is a subclass of `daad_jax.addressing.Rule` in a module of this folder. `RULES` finds it
under its class name in snake case.
"""

import importlib
import pkgutil

from daad_jax.addressing.rule import Rule, rule_name


def find_rules() -> dict[str, type[Rule]]:
    """Returns the public rule classes of this folder's modules by name, in alphabetical order."""
    found = {}
    for info in pkgutil.iter_modules(__path__, f"{__name__}."):
        for value in vars(importlib.import_module(info.name)).values():
            own = isinstance(value, type) and value.__module__ == info.name
            if own and issubclass(value, Rule) and not value.__name__.startswith("_"):
                found[rule_name(value)] = value
    return dict(sorted(found.items()))


RULES = find_rules()

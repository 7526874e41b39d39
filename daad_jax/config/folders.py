"""The names of folders that a config gives."""

from daad_jax.config.schema import DataConfig
from daad_jax.errors import ConfigError, shown


def folder_names(config: DataConfig) -> tuple[list[str], list[str]]:
    """Returns the names in `data.good` and in `data.bad`.

    Raises ConfigError if `data.good` has no name, a name is a path, or one is in both.
    """
    good, bad = (
        [name.strip() for name in text.split(",") if name.strip()]
        for text in (config.good, config.bad)
    )
    if not good:
        raise ConfigError('data.good: has no name; give one such as "good"')
    for field, names in (("good", good), ("bad", bad)):
        for name in names:
            if "/" in name or name in (".", ".."):
                raise ConfigError(
                    f"data.{field}: {shown(name)} is a path; give the name of a folder"
                )
    if both := {name.casefold() for name in good} & {name.casefold() for name in bad}:
        raise ConfigError(f"data.bad: {shown(min(both))} is in data.good, too; give it once")
    return good, bad

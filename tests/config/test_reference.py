"""The reference page."""

from pathlib import Path

from daad_jax import config as config_lib
from daad_jax.config import reference

ROOT = Path(__file__).parents[2]


def test_the_page_is_up_to_date():
    page = (ROOT / "docs" / "configuration.md").read_text()
    assert page == reference.render(), (
        "run python -m daad_jax.config.reference > docs/configuration.md"
    )


def test_the_page_has_each_field_and_setting_once():
    lines = reference.render().splitlines()
    for name in [*config_lib.field_types(), *config_lib.SETTINGS]:
        assert sum(line.startswith(f"| `{name}` |") for line in lines) == 1, name


def test_a_row_holds_type_default_allowed_values_and_meaning():
    row = "| `data.channels` | whole number | `3` | 1 or 3 | 3 repeats the channel of grey images; "
    assert row in reference.render()

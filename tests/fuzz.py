"""How property-based tests run: the same cases every time, nothing kept on the disk."""

from hypothesis import HealthCheck, settings


def cases(count: int) -> settings:
    """Settings for so many cases."""
    return settings(
        max_examples=count,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )

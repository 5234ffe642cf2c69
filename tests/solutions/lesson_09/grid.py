from typing import Any


def grid(settings: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Setting → its values, into one dictionary for each experiment; one empty dictionary where there is no setting."""
    experiments: list[dict[str, Any]] = [{}]
    for name, values in settings.items():
        experiments = [experiment | {name: value} for experiment in experiments for value in values]
    return experiments

"""YAML files that come with the package, found by name: recipes and gate files."""

from __future__ import annotations

from pathlib import Path

from vqa_train.core.errors import ConfigError
from vqa_train.core.plugins import did_you_mean

_PACKAGE = Path(__file__).parents[1]
# As a wheel has them, or as a checkout does.
_PLACES = (_PACKAGE / "data" / "configs", _PACKAGE.parents[1] / "configs")


def config_file(path: Path, what: str, folder: str = "") -> Path:
    """The file at `path`, or where a bare name is no file, NAME.yaml of those that come with the package.

    Args:
        path: a path, or a name without suffix.
        what: the kind of file, for the error: `recipe`.
        folder: below the folder of configs.

    Raises:
        ConfigError: a name that is neither.
    """
    if path.exists() or path.name != str(path) or path.suffix:
        return path
    configs = next((place for place in _PLACES if place.is_dir()), _PLACES[-1]) / folder
    known = sorted(found.stem for found in configs.glob("*.yaml"))
    if path.name not in known:
        raise ConfigError(
            f"no {what} {path.name!r}: neither a file nor one that comes with the package",
            hint=did_you_mean(path.name, known),
        )
    return configs / f"{path.name}.yaml"

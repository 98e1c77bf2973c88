"""Opens the registry that an address names."""

from __future__ import annotations

from pathlib import Path

from vqa_train.core.errors import UsageError
from vqa_train.core.locations import is_remote, location
from vqa_train.pipelines.models.folder_registry import FolderRegistry
from vqa_train.pipelines.models.remotes import Remote
from vqa_train.pipelines.models.url_registry import UrlRegistry


def open_remote(address: str) -> Remote:
    """The registry at `hf://ORG/REPO[@REVISION]`, another URL or a folder.

    Raises:
        UsageError: no such kind of address.
        DependencyError: the package for it is not installed.
    """
    if address.startswith("hf://"):
        from vqa_train.pipelines.models.hub_registry import HubRegistry

        return HubRegistry.parse(address)
    place = location(address)
    if is_remote(place):
        return UrlRegistry(place)
    if Path(address).is_file():
        raise UsageError(f"{address!r} is a file, expected a folder, a URL or hf://ORG/REPO")
    return FolderRegistry(place)

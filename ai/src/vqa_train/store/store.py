"""A feature store: a folder of feature sets, one per fingerprint."""

from __future__ import annotations

from pathlib import Path

from vqa_train.core.errors import StoreError
from vqa_train.core.hashcache import HashCache, cache_dir
from vqa_train.core.types import FeatureSpec
from vqa_train.store import filesystem
from vqa_train.store.feature_set import FeatureSet, read_spec
from vqa_train.store.layout import (
    BACKBONE_NAME,
    SET_SCHEMA,
    SHARDS,
    SPEC_FILE,
    STORE_FILE,
    STORE_SCHEMA,
    set_folders,
)
from vqa_train.store.records import StoreRecord
from vqa_train.store.rows import Failure, FeatureRow, check_spec
from vqa_train.store.seal import parse_sealed, sealed

__all__ = ["Failure", "FeatureRow", "FeatureSet", "FeatureStore"]


class FeatureStore:
    """The feature sets under `root`. The folder becomes a store when its first set is created.

    Args:
        root: the store's folder; need not exist yet. Use `FeatureStore.open` to read one that must.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        # Apart from the videos' hashes: a store of a few hundred shards should not load a million of those.
        self._hashes = HashCache(cache_dir() / "shards.sqlite3")

    @classmethod
    def open(cls, root: Path) -> FeatureStore:
        """The store at `root`.

        Raises:
            StoreError: there is none, or its store.json is damaged or of another version.
        """
        check_store(root)
        return cls(root)

    def create_set(self, spec: FeatureSpec, *, license: str) -> FeatureSet:
        """The feature set of `spec`, made when it is not there; any number of processes may do this at once.

        Args:
            spec: what the features mean.
            license: SPDX id or name of the backbone weights' licence.

        Raises:
            StoreError: `root` is a folder of something else, the spec cannot be laid out as columns, or the set is
                there with another licence or a spec that is not its fingerprint's.
        """
        check_spec(spec)
        if not BACKBONE_NAME.fullmatch(spec.backbone):
            raise StoreError(f"backbone name {spec.backbone!r} cannot name a folder", hint="letters, digits and . _ -")
        self.create()
        folder = self.root / spec.set_name
        if not filesystem.exists(folder / SPEC_FILE):
            record = {
                "schema": SET_SCHEMA,
                "fingerprint": spec.fingerprint,
                "license": license,
                "spec": spec.to_json(),
            }
            filesystem.write(folder / SPEC_FILE, sealed(record))
        found, found_license = read_spec(folder)
        if found_license != license:
            raise StoreError(
                f"feature set {spec.set_name} holds features under licence {found_license!r}, not {license!r}",
                hint="write to another store, so that no model inherits the wrong licence",
            )
        return FeatureSet(folder, found, license, self._hashes)

    def create(self) -> None:
        """Make `root` a store, where it is not one yet.

        Raises:
            StoreError: `root` is a file or a folder of something else, or a failing disk.
        """
        path = self.root / STORE_FILE
        if filesystem.exists(path):
            check_store(self.root)
            return
        if filesystem.exists(self.root) and not filesystem.is_dir(self.root):
            raise StoreError(f"{str(self.root)!r} is a file, not a feature store")
        if filesystem.names(self.root):
            # Another process may have made it a store between the two looks.
            if not filesystem.exists(path):
                raise StoreError(
                    f"{str(self.root)!r} is not empty and not a feature store ({STORE_FILE} is missing)",
                    hint="name a new or empty folder",
                )
            return
        filesystem.write(path, sealed({"schema": STORE_SCHEMA}))

    def sets(self) -> list[FeatureSet]:
        """Every feature set, by name.

        Raises:
            StoreError: not a store, or a set with a damaged spec.json.
        """
        check_store(self.root)
        found = []
        for folder in set_folders(self.root):
            # A crash while a set is made leaves a folder without anything in it.
            if filesystem.exists(folder / SPEC_FILE) or filesystem.names(folder / SHARDS):
                found.append(FeatureSet(folder, *read_spec(folder), self._hashes))
        return found

    def find(self, selector: str) -> FeatureSet:
        """The one feature set that `selector` names.

        Args:
            selector: `<backbone>`, `<backbone>@<first digits of the fingerprint>` or the whole fingerprint.

        Raises:
            StoreError: none (with what there is) or several (with which).
        """
        sets = self.sets()
        backbone, _, prefix = selector.partition("@")
        found = [s for s in sets if s.spec.backbone == backbone and s.fingerprint.startswith(prefix)]
        found += [s for s in sets if s.fingerprint == selector]
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(s.name for s in found)
            raise StoreError(f"{selector!r} is ambiguous in {str(self.root)!r}: {names}", hint="name one of these")
        there = ", ".join(s.name for s in sets) or "nothing yet"
        raise StoreError(
            f"{str(self.root)!r} has no feature set {selector!r}; it has: {there}",
            hint="vqa-train extract-features extracts one, vqa-train import-features brings one from a file",
        )


def check_store(root: Path) -> None:
    """Refuse a folder that is not a store.

    Raises:
        StoreError: no folder, no store.json in it, or one that is damaged or of another version.
    """
    path = root / STORE_FILE
    if not filesystem.exists(path):
        what = f"has no {STORE_FILE}" if filesystem.is_dir(root) else "is a file"
        what = what if filesystem.exists(root) else "does not exist"
        raise StoreError(
            f"{str(root)!r} is not a feature store: it {what}",
            hint="vqa-train extract-features makes one, and so does import-features",
        )
    parse_sealed(StoreRecord, filesystem.read(path, "feature store"), f"feature store {str(path)!r}")

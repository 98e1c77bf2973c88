"""Loads a dataset: manifest, files table and label tables become verified Video records."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from vqa_train.core import objectcache
from vqa_train.core.errors import LabelError, ManifestError, Reason
from vqa_train.core.files import confined, is_dir, read_bytes
from vqa_train.core.hashcache import HashCache
from vqa_train.core.hashing import sha256_bytes
from vqa_train.core.locations import is_remote, location
from vqa_train.core.plugins import did_you_mean
from vqa_train.core.remote import Listed, find
from vqa_train.core.types import Video
from vqa_train.datasets import ADAPTERS
from vqa_train.datasets.adapters.base import DatasetAdapter
from vqa_train.datasets.files_table import read_files_table
from vqa_train.datasets.labels import LabelReport, MissingMos, join_labels, read_labels
from vqa_train.datasets.manifest import DatasetManifest, LabelTable, read_manifest

DATA_ROOT_VARIABLE = "VQA_TRAIN_DATA_ROOT"
IMPORTED_FOLDER = "datasets"
"""In the root of a feature store: the manifests of labels that were imported with features."""
_SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class Dataset:
    """A dataset that was loaded.

    Attributes:
        manifest: what its YAML says.
        path: the manifest's file.
        sha256: of the manifest's bytes; through the hashes in it, of every label table and file list too.
        root: the data root: a folder of this machine, or a `UPath` for a URL.
        videos: one record per labelled (or unlabelled) file, in the order of the label tables.
        report: what the join of labels and files found.
        listing: what lay under a root that is a URL when the dataset was loaded, by relative path; None for a folder.
    """

    manifest: DatasetManifest
    path: Path
    sha256: str
    root: Path
    videos: tuple[Video, ...]
    report: LabelReport
    listing: Mapping[str, Listed] | None = None

    def __repr__(self) -> str:
        return f"Dataset({self.manifest.name!r}, videos={len(self.videos)}, root={str(self.root)!r})"

    @cached_property
    def references(self) -> tuple[Video, ...]:
        """One record, without labels, of each reference that has the bytes of none of `videos`, in their order."""
        rows = {video.sha256 for video in self.videos}
        found: dict[str, Video] = {}
        for video in self.videos:
            reference = video.reference
            if reference is not None and reference.sha256 not in rows and reference.sha256 not in found:
                found[reference.sha256] = Video(
                    id=reference.id, path=reference.path, sha256=reference.sha256, bytes=reference.bytes
                )
        return tuple(found.values())

    @property
    def has_videos(self) -> bool:
        """Whether the rows have files; False for labels that were imported with features."""
        return has_videos(self.manifest)

    def path_of(self, video: Video) -> Path:
        """The file of `video` on this machine.

        Raises:
            VqaError: with reason `path_escape`, when it leaves the data root through a symbolic link.
        """
        return confined(self.root, video.path)

    def look(self, path: Path, video: Video, cache: HashCache) -> tuple[int, str | None]:
        """Bytes of `video` at `path`, and its hash where `cache` remembers that of the unchanged file.

        Behind a URL the listing answers that was made when the dataset was loaded.

        Raises:
            OSError: FileNotFoundError, or it cannot be looked at.
        """
        if self.listing is None:
            return path.stat().st_size, cache.cached(path)
        listed = self.listing.get(video.path)
        if listed is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return listed.bytes, cache.cached(path, listed.state)


def has_videos(manifest: DatasetManifest) -> bool:
    """Whether the dataset's rows have files, as its adapter says.

    Raises:
        UsageError: an unknown adapter.
    """
    adapter: type[DatasetAdapter] = ADAPTERS.get(manifest.adapter)
    return adapter.has_videos


def find_manifest(name_or_path: str, manifests_dir: Path | None = None, stores: Sequence[Path] = ()) -> Path:
    """The manifest file: `name_or_path` itself where it ends in .yaml or .yml, else NAME.yaml in `manifests_dir`, else
    in the folder `datasets` of one of the feature stores `stores`, where `import-features` writes them.

    Raises:
        ManifestError: there is none (names the nearest one that there is).
    """
    if name_or_path.endswith(_SUFFIXES):
        path = Path(name_or_path)
        if not path.is_file():
            raise ManifestError(f"dataset manifest {name_or_path!r} does not exist", reason=Reason.MISSING_FILE)
        return path
    folder = manifests_dir if manifests_dir is not None else Path("manifests")
    folders = [folder, *(imported_folder(store) for store in stores)]
    for each in folders:
        path = confined(each, f"{name_or_path}.yaml")
        if path.is_file():
            return path
    known = sorted({p.stem for each in folders if each.is_dir() for p in each.glob("*.yaml")})
    also = f", nor is it in {', '.join(repr(str(each)) for each in folders[1:])}" if stores else ""
    raise ManifestError(
        f"no dataset {name_or_path!r}: {str(folder / f'{name_or_path}.yaml')!r} does not exist{also}",
        hint=did_you_mean(name_or_path, known) + "; a path ending in .yaml works too",
        reason=Reason.MISSING_FILE,
    )


def imported_folder(store: Path) -> Path:
    """Where the labels that were imported into `store` can be read: for a URL in a local copy, brought up to date.

    Raises:
        OSError: the service behind the URL does not answer.
    """
    if not is_remote(store):
        return store / IMPORTED_FOLDER
    return objectcache.mirror(store / IMPORTED_FOLDER, objectcache.derived(store, IMPORTED_FOLDER))


def publish_imported(store: Path) -> None:
    """Put what was changed in the local copy of `imported_folder` behind the URL, manifests last; else do nothing.

    Raises:
        OSError: the service behind the URL does not answer.
    """
    if is_remote(store):
        local = objectcache.derived(store, IMPORTED_FOLDER)
        objectcache.publish(local, store / IMPORTED_FOLDER, last=_SUFFIXES)


def find_root(manifest: DatasetManifest, path: Path, given: Path | None = None) -> Path:
    """The folder that the manifest's paths are relative to.

    It is `given`; else $VQA_TRAIN_DATA_ROOT (its subfolder of the dataset's name where there is one); else the
    manifest's `root`, relative to the manifest's folder. A dataset without videos has its labels beside the manifest:
    only its own `root` counts.

    Raises:
        ManifestError: none of the three is set, or the folder does not exist.
    """
    variable = os.environ.get(DATA_ROOT_VARIABLE)
    if not has_videos(manifest):
        given = path.parent / (manifest.root or ".")
    if given is not None:
        root = given
    elif variable:
        named = location(variable) / manifest.name
        root = named if is_dir(named) else location(variable)
    elif manifest.root is not None:
        root = Path(os.path.normpath(path.parent / manifest.root))
    else:
        raise ManifestError(
            f"dataset {manifest.name!r} does not say where its data is",
            hint=f"pass --data-root DIR or set {DATA_ROOT_VARIABLE}",
        )
    if not is_dir(root):
        raise ManifestError(
            f"data root {str(root)!r} of dataset {manifest.name!r} is not a folder",
            hint=f"pass --data-root DIR or set {DATA_ROOT_VARIABLE}",
            reason=Reason.MISSING_FILE,
        )
    return root


def load_dataset(
    name_or_path: str,
    *,
    data_root: Path | None = None,
    manifests_dir: Path | None = None,
    missing_mos: MissingMos = "mask",
    stores: Sequence[Path] = (),
    need_videos: bool = False,
) -> Dataset:
    """The dataset NAME (<manifests_dir or ./manifests>/NAME.yaml) or of the manifest at a path ending in .yaml.

    No video is opened: label tables and the files table are checked against their sha256, videos are only looked for.
    A video whose file is missing is kept and reported, so that what reads it can account for it.

    Args:
        name_or_path: of the manifest.
        data_root: where the data is; see `find_root` for the defaults.
        manifests_dir: where names are looked up.
        missing_mos: what to do about a score that is missing in a labelled table: "mask" leaves it out of `labels`,
            "drop" leaves the video out, "neutral" fills in the middle of the range.
        stores: feature stores whose imported labels are looked through too; see `find_manifest`.
        need_videos: refuse a dataset whose rows have no files.

    Raises:
        ConfigError, ManifestError: the manifest or the files table is missing, malformed or changed.
        LabelError: a label table is missing, changed or breaks the manifest's rules.
        VqaError: with reason `path_escape`, when a path leaves the data root.
    """
    path = find_manifest(name_or_path, manifests_dir, stores)
    manifest, sha256 = read_manifest(path)
    if need_videos and not has_videos(manifest):
        raise ManifestError(
            f"dataset {manifest.name!r} was imported with its features and has no videos to read",
            hint="scan a folder of its videos with `vqa-train datasets scan`, under another name",
        )
    if manifest.files is None:
        raise ManifestError(
            f"dataset manifest {str(path)!r} lists no files yet",
            hint=f"run `vqa-train datasets scan FOLDER --output {path}`",
        )
    root = find_root(manifest, path, data_root)
    entries = read_files_table(manifest.files, path.parent)
    tables = [(table, read_label_bytes(root, table)) for table in manifest.labels]
    adapter: DatasetAdapter = ADAPTERS.get(manifest.adapter)()
    videos, report = join_labels(manifest, read_labels(manifest, adapter, tables), entries, missing_mos)
    listing = find(root) if is_remote(root) and adapter.has_videos else None
    paths = [video.path for video in videos]
    paths += sorted({video.reference.path for video in videos if video.reference is not None}.difference(paths))
    if listing is not None:
        report.missing_files = [path for path in paths if path not in listing]
    elif adapter.has_videos:
        report.missing_files = missing_files(root, paths)
    return Dataset(manifest, path, sha256, root, videos, report, listing)


def read_label_bytes(root: Path, table: LabelTable) -> bytes:
    """The bytes of a label table, checked against its sha256 where the manifest has one.

    Raises:
        LabelError: missing, unreadable or changed.
        VqaError: with reason `path_escape`.
    """
    path = confined(root, table.path)
    try:
        data = read_bytes(path)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        raise LabelError(
            f"label table {str(path)!r} cannot be read: {error.strerror}",
            reason=Reason.MISSING_FILE if missing else Reason.UNREADABLE,
        ) from error
    if table.sha256 is not None and sha256_bytes(data) != table.sha256:
        raise LabelError(
            f"label table {str(path)!r} has changed: sha256 {sha256_bytes(data)[:12]}, "
            f"the manifest says {table.sha256[:12]}",
            hint="if that is meant, run `vqa-train datasets scan` again",
            reason=Reason.CHECKSUM_MISMATCH,
        )
    return data


def missing_files(root: Path, paths: Iterable[str]) -> list[str]:
    """Those of `paths` that `root` lacks; one lstat each, and one resolve per folder and per symbolic link.

    Raises:
        VqaError: with reason `path_escape`, when one leaves `root` through a symbolic link.
    """
    folders: set[str] = set()
    prefix = os.path.join(root, "")  # noqa: PTH118 - strings: Path objects cost more than the stat itself
    missing = []
    for path in paths:
        folder = path.rpartition("/")[0]
        if folder not in folders:
            confined(root, folder)
            folders.add(folder)
        try:
            mode = os.lstat(prefix + path).st_mode
            if stat.S_ISLNK(mode):
                mode = confined(root, path).stat().st_mode
        except (OSError, RuntimeError):  # RuntimeError: a loop of symbolic links
            missing.append(path)
            continue
        if not stat.S_ISREG(mode):
            missing.append(path)
    return missing

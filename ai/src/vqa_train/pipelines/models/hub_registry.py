"""A registry in a Hugging Face repository: one push is one commit, files and registry.json together."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqa_train.core.errors import ModelError, UsageError, VqaError
from vqa_train.core.plugins import needs
from vqa_train.core.provenance import redact
from vqa_train.pipelines.models.export import registry_bytes
from vqa_train.pipelines.models.parts import Part
from vqa_train.pipelines.models.remotes import (
    ATTEMPTS,
    MOST_REGISTRY_BYTES,
    Change,
    Contents,
    MissingFileError,
    parse_registry,
    refuse_size,
    wait,
)
from vqa_train.registry.registry import REGISTRY_FILE

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_ADDRESS = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?/?")
_CONFLICTS = (409, 412)


@dataclass(frozen=True)
class HubRegistry:
    """A model repository of the hub, or of the mirror that HF_ENDPOINT names.

    Attributes:
        repo: ORG/REPO.
        revision: branch or tag, or a commit to pull from; None for the main branch.
    """

    repo: str
    revision: str | None = None

    @classmethod
    def parse(cls, address: str) -> HubRegistry:
        """The repository that `hf://ORG/REPO[@REVISION]` names.

        Raises:
            UsageError: another form.
        """
        found = _ADDRESS.fullmatch(address)
        if found is None:
            raise UsageError(f"{address!r} names no repository", hint="hf://ORG/REPO or hf://ORG/REPO@REVISION")
        return cls(found["repo"], found["revision"])

    @property
    def address(self) -> str:
        """As it was given."""
        return f"hf://{self.repo}" + (f"@{self.revision}" if self.revision else "")

    @cached_property
    def _api(self) -> HfApi:
        with needs("a Hugging Face repository", "hub"):
            from huggingface_hub import HfApi
        import os

        # Where the environment is read when the package is imported, a later change would not be seen.
        return HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)

    def read(self) -> Contents:
        """See `remotes.Remote`; the moment is a commit."""
        with self._errors("read"):
            commit = str(self._api.repo_info(self.repo, revision=self.revision).sha)
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / REGISTRY_FILE
            if not self._fetched(commit, REGISTRY_FILE, target, MOST_REGISTRY_BYTES):
                return Contents({}, commit)
            return Contents(parse_registry(target.read_bytes(), self.address), commit)

    def fetch(self, contents: Contents, name: str, target: Path, most_bytes: int) -> None:
        """See `remotes.Remote`."""
        if not self._fetched(str(contents.moment), name, target, most_bytes):
            raise MissingFileError(f"{name!r} of {self.address} is missing")

    def _fetched(self, commit: str, name: str, target: Path, most_bytes: int) -> bool:
        """Whether `name` is there; it is then copied to `target`."""
        from huggingface_hub import get_hf_file_metadata, hf_hub_url
        from huggingface_hub.errors import EntryNotFoundError

        try:
            with self._errors("read", name), tempfile.TemporaryDirectory(dir=_made(target.parent)) as folder:
                url = hf_hub_url(self.repo, name, revision=commit, endpoint=self._api.endpoint)
                size = get_hf_file_metadata(url, endpoint=self._api.endpoint).size
                refuse_size(name, size or 0, most_bytes, self.address)
                path = self._api.hf_hub_download(self.repo, name, revision=commit, local_dir=folder)
                shutil.move(path, target)
        except EntryNotFoundError:
            return False
        return True

    def publish(self, files: Sequence[Part], change: Change) -> list[str]:
        """See `remotes.Remote`; all of it in one commit on top of the one that was read, or none of it."""
        names = [part.name for part in files]
        for attempt in range(ATTEMPTS):
            contents = self.read()
            changed = change(dict(contents.models))
            there = self._there(names, str(contents.moment))
            operations = self._operations(files, registry_bytes(changed) if changed != contents.models else None)
            commit = self._commit(operations, str(contents.moment))
            if commit is None:
                wait(attempt)
                continue
            left_out = sorted(set(names) - self._there(names, commit))
            if left_out:
                raise ModelError(
                    f"registry {self.address} did not take {left_out[0]!r}",
                    hint="does the repository's .gitignore name it?",
                )
            return [name for name in names if name not in there]
        raise ModelError(f"registry {self.address} was changed by others {ATTEMPTS} times in a row")

    def _commit(self, operations: list[Any], parent: str) -> str | None:
        """The commit that was made; None where somebody else has made one since `parent`."""
        from huggingface_hub.errors import HfHubHTTPError

        folders = sorted({name for o in operations if (name := o.path_in_repo.rpartition("/")[0]).count("/") == 1})
        try:
            with self._errors("written"):
                made = self._api.create_commit(
                    self.repo,
                    operations,
                    commit_message=f"Add {', '.join(folders)}",
                    revision=self.revision,
                    parent_commit=parent,
                )
        except ModelError as error:
            cause = error.__cause__
            if not isinstance(cause, HfHubHTTPError) or cause.response.status_code not in _CONFLICTS:
                raise
            return None
        return made.oid

    def _there(self, names: list[str], commit: str) -> set[str]:
        """Which of these files a commit has."""
        with self._errors("read"):
            return {found.path for found in self._api.get_paths_info(self.repo, names, revision=commit)}

    @staticmethod
    def _operations(files: Sequence[Part], registry: bytes | None) -> list[Any]:
        from huggingface_hub import CommitOperationAdd

        operations = [CommitOperationAdd(part.name, str(part.path)) for part in files]
        if registry is not None:
            operations.append(CommitOperationAdd(REGISTRY_FILE, registry))
        return operations

    @contextmanager
    def _errors(self, verb: str, name: str = "") -> Iterator[None]:
        """Errors of the hub as ModelErrors of one line; a file that is not there stays what it is."""
        with needs("a Hugging Face repository", "hub"):
            from huggingface_hub.errors import (
                EntryNotFoundError,
                OfflineModeIsEnabled,
                RepositoryNotFoundError,
                RevisionNotFoundError,
            )
        what = f"{name!r} of {self.address}" if name else f"registry {self.address}"
        try:
            yield
        except (EntryNotFoundError, VqaError):
            raise
        except OfflineModeIsEnabled as error:
            raise ModelError(f"{what} cannot be {verb}: HF_HUB_OFFLINE is set", hint="unset it") from error
        except RepositoryNotFoundError as error:
            raise ModelError(
                f"{self.address} is not there, or this login may not see it",
                hint="create the repository first, and log in with `hf auth login` or HF_TOKEN",
            ) from error
        except RevisionNotFoundError as error:
            raise ModelError(f"{self.address} has no such revision", hint="a branch, a tag or a commit") from error
        except Exception as error:  # whichever HTTP library this version of huggingface_hub uses has its own
            text = redact(" ".join(str(error).split()))[:300] or type(error).__name__
            raise ModelError(f"{what} cannot be {verb}: {text}") from error


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder

"""Local names stay local paths; URLs become places that work like paths and carry no secrets."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from vqa_train.core.errors import DependencyError, Reason, UsageError, VqaError
from vqa_train.core.files import confined, display_path
from vqa_train.core.locations import is_remote, location


@pytest.mark.parametrize("text", ["store", "/data/store", "./s3:/x", "C:thing", "a://b".replace("//", "/")])
def test_a_name_without_a_protocol_is_a_local_path(text: str) -> None:
    found = location(text)
    assert type(found) is type(Path()) and str(found) == str(Path(text))
    assert not is_remote(found)


def test_a_file_url_is_a_local_path() -> None:
    assert location("file:///data/store") == Path("/data/store")


def test_a_url_joins_and_splits_like_a_path() -> None:
    found = location("memory://bucket/store")
    assert is_remote(found)
    shard = found / "set" / "shards" / "u.parquet"
    assert (shard.name, shard.stem, shard.suffix) == ("u.parquet", "u", ".parquet")
    assert str(shard.with_suffix(".json")) == f"{found}/set/shards/u.json"
    assert shard.parent == found / "set" / "shards"
    assert location(str(shard)) == shard
    assert display_path(shard) == str(shard)


@pytest.mark.parametrize("text", ["s3://key:secret@bucket/x", "https://user:pw@host/x", "https://host/x?sig=abc"])
def test_a_url_with_a_secret_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="must not carry a password or a signature"):
        location(text)


def test_an_unknown_protocol_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown kind of address nonsense://"):
        location("nonsense://x")


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(DependencyError, match=r"gs:// needs a package.*pip install 'vqa-train\[gs\]'"):
        location("gs://bucket/x")


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/x", "s3://other/x", "a\x00b"])
def test_a_path_cannot_leave_a_url(path: str) -> None:
    with pytest.raises(VqaError) as found:
        confined(location("memory://bucket"), path)
    assert found.value.reason == Reason.PATH_ESCAPE


def test_a_path_inside_a_url_is_joined() -> None:
    root = location("memory://bucket")
    assert confined(root, "a/./b//c.mp4") == root / "a" / "b" / "c.mp4"


def test_local_work_imports_no_remote_packages() -> None:
    code = (
        "import sys; from pathlib import Path; from vqa_train.core.locations import location;"
        "import vqa_train.store.store, vqa_train.cli.main, vqa_train.datasets.load; location('store');"
        "print([m for m in ('fsspec', 'upath', 's3fs', 'aiohttp', 'botocore') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

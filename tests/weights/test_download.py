"""Downloads go on where they were cut, retry what may pass, and never leave half a file under the final name."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path

import pytest

from vqa_train.core.errors import WeightsError
from vqa_train.core.hashing import sha256_bytes
from vqa_train.weights.download import RemoteFile, Retries, download

DATA = bytes(range(256)) * 5000  # 1.28 MB: more than one piece
SHA = sha256_bytes(DATA)
NOW = Retries(tries=3, pause_s=0)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "made" / "f.pth"


@pytest.fixture
def remote(site) -> RemoteFile:
    site.files["/f.pth"] = DATA
    return RemoteFile(url=f"{site.url}/f.pth", source="the site's f.pth", sha256=SHA, bytes=len(DATA))


def part(target: Path) -> Path:
    return target.with_name("f.pth.part")


def begun(target: Path, site, data: bytes, *, etag: str | None = '"v1"') -> None:
    """What an interrupted download of `data` leaves."""
    target.parent.mkdir(parents=True)
    part(target).write_bytes(data)
    record = {"url": f"{site.url}/f.pth", "validator": etag}
    target.with_name("f.pth.part.json").write_text(json.dumps(record))


def test_a_file_arrives_whole_and_alone(remote, target) -> None:
    arrived: list[int] = []
    assert download(remote, target, advance=arrived.append) == SHA
    assert target.read_bytes() == DATA
    assert sum(arrived) == len(DATA)
    assert [path.name for path in target.parent.iterdir()] == ["f.pth"]


def test_a_cut_connection_is_taken_up_where_it_was_cut(remote, target, site) -> None:
    site.plan = ["cut:1000", "cut:700000"]
    assert download(remote, target, retries=NOW) == SHA
    assert target.read_bytes() == DATA
    assert [headers.get("Range") for headers in site.gets()] == [None, "bytes=1000-", "bytes=701000-"]
    assert site.gets()[1]["If-Range"] == '"v1"'


def test_the_next_call_goes_on_where_the_last_one_gave_up(remote, target, site) -> None:
    site.plan = ["cut:1000", "500", "502", "503"]
    with pytest.raises(
        WeightsError, match="could not be fetched: HTTP 503 .* - 1,000 bytes are kept; the same command"
    ):
        download(remote, target, retries=NOW)
    assert not target.exists()
    assert part(target).read_bytes() == DATA[:1000]
    assert download(remote, target, retries=NOW) == SHA
    assert site.gets()[-1]["Range"] == "bytes=1000-"


def test_every_byte_that_arrives_makes_the_tries_start_over(remote, target, site) -> None:
    site.plan = ["cut:10", "500", "500", "cut:10", "500", "500", "cut:10", "500", "500"]
    assert download(remote, target, retries=NOW) == SHA


def test_a_server_that_ignores_ranges_is_read_from_the_start(remote, target, site) -> None:
    site.plan = ["cut:1000", "whole"]
    assert download(remote, target, retries=NOW) == SHA
    assert target.read_bytes() == DATA


def test_a_server_that_sends_another_range_is_not_believed(remote, target, site) -> None:
    site.plan = ["cut:1000", "shifted"]
    assert download(remote, target, retries=NOW) == SHA
    assert target.read_bytes() == DATA


def test_a_file_that_changed_in_between_is_read_from_the_start(remote, target, site) -> None:
    begun(target, site, b"x" * 1000, etag='"v0"')
    assert download(remote, target, retries=NOW) == SHA
    assert target.read_bytes() == DATA


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_bytes_without_a_validator_are_not_gone_on_with(remote, target, site, etag) -> None:
    site.etag = etag
    site.plan = ["cut:1000"]
    assert download(remote, target, retries=NOW) == SHA
    assert [headers.get("Range") for headers in site.gets()] == [None, None]


def test_a_date_serves_as_a_validator(remote, target, site) -> None:
    site.etag = None
    site.extra = {"Last-Modified": "Tue, 01 Jul 2025 00:00:00 GMT"}
    site.plan = ["cut:1000"]
    assert download(remote, target, retries=NOW) == SHA
    assert site.gets()[1]["If-Range"] == "Tue, 01 Jul 2025 00:00:00 GMT"


def test_a_part_that_is_whole_already_is_only_checked_and_named(remote, target, site) -> None:
    begun(target, site, DATA)
    assert download(remote, target, retries=NOW) == SHA
    assert target.read_bytes() == DATA
    assert len(site.gets()) == 1


def test_a_part_that_is_too_long_is_read_anew(remote, target, site) -> None:
    begun(target, site, DATA + b"x")
    assert download(remote, target, retries=NOW) == SHA
    assert target.read_bytes() == DATA


@pytest.mark.parametrize("status", ["500", "502", "503", "504", "429", "408"])
def test_an_answer_that_may_pass_is_tried_again(remote, target, site, status) -> None:
    site.plan = [status]
    assert download(remote, target, retries=NOW) == SHA
    assert len(site.gets()) == 2


@pytest.mark.parametrize("status", ["404", "403", "401", "410"])
def test_an_answer_that_will_not_change_is_not(remote, target, site, status) -> None:
    site.plan = [status]
    with pytest.raises(WeightsError, match=f"the site's f.pth could not be fetched: HTTP {status} .*weights add"):
        download(remote, target, retries=NOW)
    assert len(site.gets()) == 1
    assert not target.exists()


def test_another_hash_is_refused_and_nothing_of_it_is_kept(remote, target, site) -> None:
    site.files["/f.pth"] = DATA[:-1] + b"x"
    wrong = sha256_bytes(DATA[:-1] + b"x")
    with pytest.raises(WeightsError, match=f"sent has sha256 {wrong}, expected {SHA} - it was not kept"):
        download(remote, target, retries=NOW)
    assert list(target.parent.iterdir()) == []


def test_another_size_is_refused_before_the_bytes_are_read(target, site) -> None:
    site.files["/f.pth"] = DATA
    arrived: list[int] = []
    remote = RemoteFile(url=f"{site.url}/f.pth", source="it", bytes=5)
    with pytest.raises(WeightsError, match="it has 1,280,000 bytes, expected 5"):
        download(remote, target, retries=NOW, advance=arrived.append)
    assert (arrived, target.exists()) == ([], False)


def test_an_answer_without_a_length_is_checked_by_size_and_hash(remote, target, site) -> None:
    site.chunked = True
    assert download(remote, target, retries=NOW) == SHA
    site.plan = ["cut:1000"]
    other = target.with_name("g.pth")
    with pytest.raises(WeightsError, match="sent has 1,000 bytes, expected 1,280,000"):
        download(RemoteFile(url=remote.url, source="it", bytes=len(DATA)), other, retries=NOW)
    assert not other.exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"<!DOCTYPE html><title>Sign in</title>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "is a Git LFS pointer"),
        (b"", "is empty"),
    ],
)
def test_what_is_no_checkpoint_is_refused_even_without_a_known_hash(target, site, data, message) -> None:
    site.files["/f.pth"] = data
    with pytest.raises(WeightsError, match=message):
        download(RemoteFile(url=f"{site.url}/f.pth", source="it"), target, retries=NOW)
    assert list(target.parent.iterdir()) == []


def test_an_old_file_stays_until_the_new_one_is_whole(remote, target, site) -> None:
    target.parent.mkdir()
    target.write_bytes(b"old")
    site.plan = ["cut:1000", "404"]
    with pytest.raises(WeightsError):
        download(remote, target, retries=NOW)
    assert target.read_bytes() == b"old"
    download(remote, target, retries=NOW)
    assert target.read_bytes() == DATA


def test_a_host_that_does_not_answer_is_an_error_in_one_line(target, site) -> None:
    port = int(site.url.rpartition(":")[2])
    closed = RemoteFile(url=f"http://127.0.0.1:{port}9/f" if port < 6554 else "http://127.0.0.1:1/f", source="it")
    with pytest.raises(WeightsError, match="it could not be fetched: .*refused") as caught:
        download(closed, target, retries=NOW)
    assert "\n" not in str(caught.value)


def test_two_downloads_of_one_file_do_not_mix(remote, target) -> None:
    target.parent.mkdir()
    with part(target).open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(WeightsError, match="is being fetched by another process"):
            download(remote, target, retries=NOW)


def test_a_token_goes_to_the_first_host_and_not_to_where_it_redirects(remote, target, site, serve) -> None:
    from dataclasses import replace

    hub = serve(type(site)(redirects={"/gate": remote.url}))
    secret = replace(remote, url=f"{hub.url}/gate", headers={"authorization": "Bearer hf_secret"})
    assert download(secret, target, retries=NOW) == SHA
    assert [headers.get("Authorization") for headers in hub.gets()] == ["Bearer hf_secret"]
    assert [headers.get("Authorization") for headers in site.gets()] == [None]
    assert "hf_secret" not in repr(secret)

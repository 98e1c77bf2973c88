"""Signatures are minisign's, both ways, and any change of the sidecar, signature or trusted comment is refused."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from vqa_train.core.errors import DependencyError, ModelError, UsageError
from vqa_train.registry import signature as module
from vqa_train.registry.minisign_keys import PublicKey, SecretKey, write_secret
from vqa_train.registry.signature import sign, signature_path, verify

# Made by minisign 0.11 over b"a small file\n"; keys of no other use.
MESSAGE = b"a small file\n"
PUBLIC = "RWQSBwTBsttM+ybKsLb9FhO0hrqGRDWPGAcZzkbDhx2PEKw2ogb9Vx6r"
SECRET = (
    "untrusted comment: minisign encrypted secret key\n"
    "RWQAAEIyAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAEgcEwbLbTPsQIlvOZNuABn322Eu/HbES"
    "zd462eUDyw7TXJehAlEOsCbKsLb9FhO0hrqGRDWPGAcZzkbDhx2PEKw2ogb9Vx6rAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"
)
HASHED = (
    "untrusted comment: untrusted words\n"
    "RUQSBwTBsttM+/qCLL6gvAcyPob7MxFwRILrBPTUjwXkTDgjMFlq0bXormxwWDuRfQ/510pIxYfpBh+eBPkLvOCmaVA/1PGEYQA=\n"
    "trusted comment: trusted words\n"
    "aw3zV3pPHvCoMzRs0biNNCR+TcVB7QLg6OlzdwHU9kGtJh4eDTxmSdEGdCHFdWBLLhOUui0F9Zi8CHBDDt5gCg==\n"
)
LEGACY = (
    "untrusted comment: signature from minisign secret key\n"
    "RWQSBwTBsttM+4rrOtdkyWPX3jWHR9w2HXBum7YzOXQO1MrSg2Plss3GbPZtguUQI0soDVpONK24FklS9lWMNK1mITl8K+gHgAM=\n"
    "trusted comment: legacy words\n"
    "37Gvn+EJM9CfEFKfQl1r0CQ2TRu+Rl1X/yTSPyBFU3a236pCGNft5K8St7Nf1w8rFIaEnM6X0vcqymt8HTRZBQ==\n"
)
# With the password "secret", by minisign in a process with little memory, so that reading it takes little too.
ENCRYPTED_PUBLIC = "RWQhJzGAq/mL7alyARGWYGWaikFauFmELIsCdnsvnWMTLTLEJUT9LciU"
ENCRYPTED = (
    "untrusted comment: minisign encrypted secret key\n"
    "RWRTY0Iydj2AwSl0DRMQaxCyrBqFy7GxCgxQQlfxEAtW3SwjNaEAABAAAAAAAAAAAAIAAAAAq6RnHiW0mOPqemlgQHJ4PI9mlHlPMvGXL86D"
    "NTTj8vH3NC1Ibf7iMulLzt/rlGXytW9RJpbO/xFkoJkJbmb64GeKIpswZNAxBMtcBiwxW9PDFHYcECH/7rVBr3gpR6hIV/cgB5dtXW8=\n"
)
CHEAP = {"operations": 1 << 15, "memory": 1 << 24}

pytest.importorskip("cryptography", reason="cryptography is not installed")


@pytest.fixture
def sidecar(tmp_path: Path) -> Path:
    path = tmp_path / "model.json"
    path.write_bytes(MESSAGE)
    return path


@pytest.fixture(scope="module")
def secret() -> SecretKey:
    return SecretKey.generate()


def signed(sidecar: Path, text: str) -> Path:
    signature_path(sidecar).write_text(text, encoding="utf-8")
    return sidecar


def no_password() -> str:
    raise AssertionError("a key that is not encrypted needs no password")


@pytest.mark.parametrize(("text", "comment"), [(HASHED, "trusted words"), (LEGACY, "legacy words")])
def test_what_minisign_signed_verifies(sidecar: Path, text: str, comment: str) -> None:
    found = verify(signed(sidecar, text), [PublicKey.read(PUBLIC)])
    assert (found.key_id, found.comment) == ("FB4CDBB2C1040712", comment)


def test_a_key_of_minisigns_signs_as_minisign_does(sidecar: Path, tmp_path: Path) -> None:
    (tmp_path / "k").write_text(SECRET, encoding="ascii")
    key = SecretKey.read(tmp_path / "k", no_password)
    assert key.public == PublicKey.read(PUBLIC)
    # Ed25519 is deterministic, so all but the untrusted comment must be minisign's own bytes.
    assert sign(sidecar, key, "trusted words").read_text().splitlines()[1:] == HASHED.splitlines()[1:]
    assert key.to_file(None) == SECRET


def test_an_encrypted_key_of_minisigns_opens_with_its_password_alone(tmp_path: Path) -> None:
    (tmp_path / "k").write_text(ENCRYPTED, encoding="ascii")
    assert SecretKey.read(tmp_path / "k", lambda: "secret").public == PublicKey.read(ENCRYPTED_PUBLIC)
    with pytest.raises(UsageError, match="the password is wrong"):
        SecretKey.read(tmp_path / "k", lambda: "Secret")


def test_a_key_comes_back_from_its_file(tmp_path: Path, secret: SecretKey) -> None:
    for password in (None, "päss"):
        path = tmp_path / f"{password}.key"
        write_secret(path, secret.to_file(password, **CHEAP))
        assert SecretKey.read(path, lambda: "päss") == secret
        assert path.stat().st_mode & 0o777 == 0o600
        with pytest.raises(UsageError, match="exists already"):
            write_secret(path, "another")
    (tmp_path / "k.pub").write_text(secret.public.to_file(), encoding="ascii")
    assert PublicKey.read(tmp_path / "k.pub") == PublicKey.read(secret.public.text) == secret.public
    with pytest.raises(UsageError, match="the password is empty"):
        secret.to_file("")


def test_the_secret_is_in_no_repr(secret: SecretKey) -> None:
    assert repr(secret.seed) not in repr(secret)


@pytest.mark.skipif(shutil.which("minisign") is None, reason="minisign is not installed")
@pytest.mark.parametrize("password", [None, "a pass word"])
def test_minisign_reads_our_keys_and_signatures(
    sidecar: Path, tmp_path: Path, secret: SecretKey, password: str | None
) -> None:
    (tmp_path / "k.pub").write_text(secret.public.to_file(), encoding="ascii")
    write_secret(tmp_path / "k.key", secret.to_file(password, **CHEAP))
    sign(sidecar, secret, "ours, é")

    def minisign(*arguments: str, answer: str = "") -> str:
        command = ["minisign", *arguments, "-m", str(sidecar)]
        done = subprocess.run(
            command, input=answer, cwd=tmp_path, capture_output=True, encoding="utf-8", check=False, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "Trusted comment: ours, é" in minisign("-V", "-H", "-p", "k.pub")
    for legacy in ([], ["-l"]):
        minisign("-S", *legacy, "-s", "k.key", "-t", "minisign's", answer=f"{password}\n")
        assert verify(sidecar, [secret.public]).comment == "minisign's"


def test_every_changed_byte_is_refused(sidecar: Path, secret: SecretKey) -> None:
    path = sign(sidecar, secret, "model m:1")
    good, message = path.read_bytes(), sidecar.read_bytes()
    for i in range(len(message)):
        sidecar.write_bytes(message[:i] + bytes([message[i] ^ 1]) + message[i + 1 :])
        with pytest.raises(ModelError, match=r"does not fit the bytes of 'model\.json'"):
            verify(sidecar, [secret.public])
    sidecar.write_bytes(message)
    first = good.index(b"\n")
    for i in range(first, len(good)):
        for bit in (1, 0x20):
            path.write_bytes(good[:i] + bytes([good[i] ^ bit]) + good[i + 1 :])
            with pytest.raises(ModelError, match="signature"):
                verify(sidecar, [secret.public])
    for cut in range(len(good)):
        path.write_bytes(good[:cut])
        with pytest.raises(ModelError, match="is not as minisign writes it"):
            verify(sidecar, [secret.public])
    path.write_bytes(good)
    assert verify(sidecar, [secret.public]).comment == "model m:1"


def test_a_comment_of_another_signature_is_refused(sidecar: Path, secret: SecretKey) -> None:
    lines = sign(sidecar, secret, "promoted").read_text().splitlines()
    other = sidecar.with_name("other.json")
    other.write_bytes(b"other")
    foreign = sign(other, secret, "not for production").read_text().splitlines()
    signed(sidecar, "\n".join([*lines[:2], *foreign[2:]]) + "\n")
    with pytest.raises(ModelError, match="does not fit its trusted comment 'not for production'"):
        verify(sidecar, [secret.public])


def test_another_key_with_the_same_id_is_refused(sidecar: Path, secret: SecretKey) -> None:
    sign(sidecar, SecretKey(secret.identity, bytes(32)), "forged")
    with pytest.raises(ModelError, match="does not fit the bytes"):
        verify(sidecar, [secret.public])
    # Both keys known: the one that signed is found.
    assert verify(sidecar, [secret.public, SecretKey(secret.identity, bytes(32)).public]).comment == "forged"


def test_a_key_that_is_not_required_is_refused(sidecar: Path, secret: SecretKey) -> None:
    sign(sidecar, SecretKey.generate(), "by a stranger")
    with pytest.raises(ModelError, match=f"required is one of: {secret.public.key_id}, FB4CDBB2C1040712"):
        verify(sidecar, [secret.public, PublicKey.read(PUBLIC)])


def test_no_signature_is_refused(sidecar: Path, secret: SecretKey) -> None:
    with pytest.raises(ModelError, match=r"has no signature, 'model\.json\.minisig' beside it"):
        verify(sidecar, [secret.public])
    with pytest.raises(UsageError, match="no public key"):
        verify(sidecar, [])


@pytest.mark.parametrize("comment", ["two\nlines", "a\rreturn", "\x1b[31mred", "x" * 8001])
def test_a_comment_is_one_printable_line(sidecar: Path, secret: SecretKey, comment: str) -> None:
    with pytest.raises(UsageError, match="one printable line"):
        sign(sidecar, secret, comment)
    assert not signature_path(sidecar).exists()


@pytest.mark.parametrize("text", ["", "x", PUBLIC[:-4], "untrusted comment: x\nAAAA\n", "untrusted comment: x"])
def test_what_is_no_public_key_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match="public key"):
        PublicKey.read(text)
    (tmp_path / "k.pub").write_text(text)
    with pytest.raises(UsageError, match=r"is no public key of minisign's"):
        PublicKey.read(tmp_path / "k.pub")


def test_a_damaged_secret_key_is_refused(tmp_path: Path, secret: SecretKey) -> None:
    import base64

    head, line = secret.to_file(None).splitlines()
    data = base64.b64decode(line)
    path = tmp_path / "k"
    cases = {
        0: "is no secret key",
        2: "encrypted in an unknown way",
        4: "is no secret key",
        70: "do not belong together",
        100: "do not belong together",
        157: "checksum differs",
    }
    for at, message in cases.items():
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        path.write_text(f"{head}\n{base64.b64encode(changed).decode()}\n")
        with pytest.raises(UsageError, match=message):
            SecretKey.read(path, no_password)
    # A file that asks for a terabyte.
    data = data[:2] + b"Sc" + data[4:46] + (1 << 40).to_bytes(8, "little") + data[54:]
    path.write_text(f"{head}\n{base64.b64encode(data).decode()}\n")
    with pytest.raises(UsageError, match="over the 2 GiB allowed"):
        SecretKey.read(path, lambda: "any")


def test_without_cryptography_nothing_is_taken_for_signed(
    sidecar: Path, secret: SecretKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign(sidecar, secret, "good")
    for name in ("cryptography.exceptions", "cryptography.hazmat.primitives.asymmetric.ed25519"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(DependencyError, match=r"vqa-train\[sign\]"):
        module.verify(sidecar, [secret.public])

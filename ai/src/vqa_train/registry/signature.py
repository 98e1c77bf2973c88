"""Detached Ed25519 signatures over a model's sidecar, as minisign makes them: `model.json.minisig` beside it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vqa_train.core.errors import ModelError, UsageError
from vqa_train.core.files import atomic_write_bytes
from vqa_train.registry.minisign_keys import (
    ID_BYTES,
    SIGNATURE_BYTES,
    UNTRUSTED,
    PublicKey,
    SecretKey,
    from_base64,
    shown,
)

__all__ = ["SIGNATURE_SUFFIX", "PublicKey", "SecretKey", "Signed", "read_signature", "sign", "signature_path", "verify"]

SIGNATURE_SUFFIX = ".minisig"
_TRUSTED = "trusted comment: "
_PREHASHED, _LEGACY = b"ED", b"Ed"
_LONGEST_COMMENT = 8000
_LARGEST_FILE = 16_384


@dataclass(frozen=True)
class Signed:
    """Who signed.

    Attributes:
        key_id: of the key, 16 hex digits.
        comment: the trusted comment, which the signature covers.
    """

    key_id: str
    comment: str


@dataclass(frozen=True)
class SignatureFile:
    """What a `.minisig` file holds; nothing of it is verified.

    Attributes:
        identity: of the key that is said to have signed.
        prehashed: whether the BLAKE2b-512 of the file was signed, or (of old) the file itself.
        signature: 64 bytes.
        comment: the trusted comment.
        comment_signature: 64 bytes over `signature` and `comment`.
    """

    identity: bytes
    prehashed: bool
    signature: bytes
    comment: str
    comment_signature: bytes

    @property
    def key_id(self) -> str:
        """As minisign prints it."""
        return shown(self.identity)


def signature_path(sidecar: Path) -> Path:
    """Where the signature of a sidecar is."""
    return sidecar.with_name(sidecar.name + SIGNATURE_SUFFIX)


def sign(sidecar: Path, secret: SecretKey, comment: str) -> Path:
    """Sign the bytes of a sidecar as they are; a signature that is there is replaced.

    Args:
        comment: the trusted comment, one line; covered by the signature.

    Returns:
        The file written.

    Raises:
        UsageError: the comment has several lines or over 8000 characters.
        DependencyError: `cryptography` is not installed.
        OSError: the sidecar cannot be read or the signature not written.
    """
    if len(comment.splitlines()) > 1 or not comment.isprintable() or len(comment.encode("utf-8")) > _LONGEST_COMMENT:
        raise UsageError(f"the comment of a signature is one printable line of at most {_LONGEST_COMMENT} bytes")
    signature = secret.sign(_digest(sidecar.read_bytes()))
    over = secret.sign(signature + comment.encode("utf-8"))
    lines = (
        f"{UNTRUSTED}signature of a model's sidecar by key {shown(secret.identity)}",
        base64.b64encode(_PREHASHED + secret.identity + signature).decode("ascii"),
        _TRUSTED + comment,
        base64.b64encode(over).decode("ascii"),
    )
    path = signature_path(sidecar)
    atomic_write_bytes(path, ("\n".join(lines) + "\n").encode("utf-8"))
    return path


def verify(sidecar: Path, keys: Sequence[PublicKey]) -> Signed:
    """Who of `keys` signed the sidecar as it is.

    The untrusted comment (the first line of the file) is not looked at: nothing protects it.

    Raises:
        ModelError: there is no signature, it is malformed, another key's, or of other bytes.
        UsageError: `keys` is empty.
        DependencyError: `cryptography` is not installed.
        OSError: the sidecar cannot be read.
    """
    if not keys:
        raise UsageError("no public key to verify a signature with", hint="give --require-signature KEY")
    path = signature_path(sidecar)
    found = read_signature(path)
    known = [key for key in keys if key.identity == found.identity]
    if not known:
        wanted = ", ".join(key.key_id for key in keys)
        raise ModelError(
            f"signature {str(path)!r} is of key {found.key_id}, required is one of: {wanted}",
            hint="get the model from who holds a required key, or trust this key too",
        )
    data = sidecar.read_bytes()
    message = _digest(data) if found.prehashed else data
    key = next((key for key in known if key.verifies(found.signature, message)), None)
    if key is None:
        raise ModelError(
            f"signature {str(path)!r} of key {found.key_id} does not fit the bytes of {sidecar.name!r}",
            hint="the sidecar or its signature was changed after it was signed; fetch the model again",
        )
    if not key.verifies(found.comment_signature, found.signature + found.comment.encode("utf-8")):
        raise ModelError(
            f"signature {str(path)!r} of key {found.key_id} does not fit its trusted comment {found.comment!r:.200}",
            hint="the comment was changed after it was signed; fetch the model again",
        )
    return Signed(key.key_id, found.comment)


def read_signature(path: Path) -> SignatureFile:
    """The parts of a `.minisig` file, none of them verified.

    Raises:
        ModelError: there is no such file, or it is not of the format.
    """
    try:
        with path.open("rb") as handle:
            data = handle.read(_LARGEST_FILE + 1)
    except FileNotFoundError as error:
        raise ModelError(
            f"model sidecar {str(path).removesuffix(SIGNATURE_SUFFIX)!r} has no signature, {path.name!r} beside it",
            hint="`vqa-train models sign` makes one",
        ) from error
    except OSError as error:
        raise ModelError(f"signature {str(path)!r} cannot be read: {error.strerror}") from error
    try:
        lines = data.decode("utf-8").replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError as error:
        raise ModelError(f"signature {str(path)!r} is not text") from error
    right = len(data) <= _LARGEST_FILE and len(lines) == 5 and not lines[4] and lines[0].startswith(UNTRUSTED)
    first, last = (from_base64(lines[1]), from_base64(lines[3])) if right else (None, None)
    if (
        first is None
        or last is None
        or not lines[2].startswith(_TRUSTED)
        or first[:2] not in (_PREHASHED, _LEGACY)
        or len(first) != 2 + ID_BYTES + SIGNATURE_BYTES
        or len(last) != SIGNATURE_BYTES
    ):
        raise ModelError(f"signature {str(path)!r} is not as minisign writes it", hint="fetch the model again")
    return SignatureFile(
        identity=first[2 : 2 + ID_BYTES],
        prehashed=first[:2] == _PREHASHED,
        signature=first[2 + ID_BYTES :],
        comment=lines[2].removeprefix(_TRUSTED),
        comment_signature=last,
    )


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=64).digest()

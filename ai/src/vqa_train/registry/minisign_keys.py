"""Keys that sign models, in the file formats of minisign: Ed25519, the secret one encrypted with a password."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from vqa_train.core.errors import UsageError
from vqa_train.core.plugins import needs

UNTRUSTED = "untrusted comment: "
ID_BYTES, KEY_BYTES, SIGNATURE_BYTES = 8, 32, 64
_ALGORITHM, _SCRYPT, _NO_KDF, _BLAKE2B = b"Ed", b"Sc", b"\0\0", b"B2"
_SALT_BYTES = 32
_SECRET_BYTES = ID_BYTES + 2 * KEY_BYTES + 32
# What minisign takes where there is the memory: scrypt over 1 GiB, some seconds.
OPERATIONS, MEMORY = 1 << 25, 1 << 30
_MOST_OPERATIONS, _MOST_MEMORY = 1 << 27, (1 << 31) - (1 << 26)
_LARGEST_FILE = 16_384


@dataclass(frozen=True)
class PublicKey:
    """Verifies signatures.

    Attributes:
        identity: 8 bytes, drawn when the pair was made; names the key, proves nothing.
        key: 32 bytes, the point.
    """

    identity: bytes
    key: bytes

    @property
    def key_id(self) -> str:
        """The identity as minisign prints it, 16 hex digits."""
        return shown(self.identity)

    @property
    def text(self) -> str:
        """The one line that is the key, base64."""
        return base64.b64encode(_ALGORITHM + self.identity + self.key).decode("ascii")

    @classmethod
    def read(cls, key: str | Path) -> PublicKey:
        """The key in a `.pub` file of minisign's, or the base64 line of one.

        Raises:
            UsageError: neither such a file nor such a line.
        """
        text = str(key).strip()
        decoded = from_base64(text)
        if decoded is None:
            lines = _lines(Path(text), "public key")
            decoded = from_base64(lines[1]) if len(lines) > 1 and lines[0].startswith(UNTRUSTED) else None
        if decoded is None or len(decoded) != 2 + ID_BYTES + KEY_BYTES or decoded[:2] != _ALGORITHM:
            raise UsageError(
                f"{text!r} is no public key of minisign's",
                hint="a .pub file of two lines, or the second line; `vqa-train models keygen` makes a pair",
            )
        return cls(decoded[2 : 2 + ID_BYTES], decoded[2 + ID_BYTES :])

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether this key made the 64 bytes of `signature` over `message`.

        Raises:
            DependencyError: `cryptography` is not installed.
        """
        with needs("a signature", "sign"):
            from cryptography.exceptions import InvalidSignature
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        try:
            Ed25519PublicKey.from_public_bytes(self.key).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True

    def to_file(self) -> str:
        """What a `.pub` file holds."""
        return f"{UNTRUSTED}minisign public key {self.key_id}\n{self.text}\n"


@dataclass(frozen=True)
class SecretKey:
    """Makes signatures.

    Attributes:
        identity: of the pair.
        seed: 32 bytes that everything follows from.
    """

    identity: bytes
    seed: bytes = field(repr=False)

    @classmethod
    def generate(cls) -> SecretKey:
        """A new pair, from the operating system's randomness."""
        return cls(secrets.token_bytes(ID_BYTES), secrets.token_bytes(KEY_BYTES))

    @property
    def public(self) -> PublicKey:
        """The other half.

        Raises:
            DependencyError: `cryptography` is not installed.
        """
        with needs("a signature", "sign"):
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        return PublicKey(self.identity, Ed25519PrivateKey.from_private_bytes(self.seed).public_key().public_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        """64 bytes.

        Raises:
            DependencyError: `cryptography` is not installed.
        """
        with needs("a signature", "sign"):
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        return Ed25519PrivateKey.from_private_bytes(self.seed).sign(message)

    @classmethod
    def read(cls, path: Path, password: Callable[[], str]) -> SecretKey:
        """The key in a secret key file of minisign's.

        Args:
            password: asked where the file is encrypted.

        Raises:
            UsageError: it is no such file, the password is wrong, or deriving its key takes over 2 GiB.
            DependencyError: `cryptography` is not installed.
        """
        lines = _lines(path, "secret key")
        data = from_base64(lines[1]) if len(lines) > 1 and lines[0].startswith(UNTRUSTED) else None
        start = 6 + _SALT_BYTES + 16
        if data is None or len(data) != start + _SECRET_BYTES or data[:2] != _ALGORITHM or data[4:6] != _BLAKE2B:
            raise UsageError(f"{str(path)!r} is no secret key of minisign's")
        kdf, hidden = data[2:4], data[start:]
        if kdf == _SCRYPT:
            operations, memory = _number(data[start - 16 : start - 8]), _number(data[start - 8 : start])
            hidden = _xor(hidden, _stream(password(), data[6 : 6 + _SALT_BYTES], operations, memory))
        elif kdf != _NO_KDF:
            raise UsageError(f"secret key {str(path)!r} is encrypted in an unknown way, {kdf!r}")
        identity, seed = hidden[:ID_BYTES], hidden[ID_BYTES : ID_BYTES + KEY_BYTES]
        point, checksum = hidden[ID_BYTES + KEY_BYTES : -32], hidden[-32:]
        # minisign leaves the checksum out where nothing is encrypted.
        unchecked = kdf == _NO_KDF and checksum == bytes(32)
        if not unchecked and not hmac.compare_digest(checksum, _checksum(hidden[:-32])):
            what = "the password is wrong, or the file is damaged" if kdf == _SCRYPT else "its checksum differs"
            raise UsageError(f"secret key {str(path)!r} cannot be read: {what}")
        found = cls(identity, seed)
        if found.public.key != point:
            raise UsageError(f"secret key {str(path)!r} cannot be read: its two halves do not belong together")
        return found

    def to_file(self, password: str | None, *, operations: int = OPERATIONS, memory: int = MEMORY) -> str:
        """What a secret key file holds; not encrypted where `password` is None.

        Args:
            operations, memory: work and bytes that deriving a key from the password takes, as libsodium counts them.

        Raises:
            UsageError: the password is empty, or the machine lacks the memory.
            DependencyError: `cryptography` is not installed.
        """
        plain = self.identity + self.seed + self.public.key
        salt = bytes(_SALT_BYTES)
        if password is None:
            header, hidden = _NO_KDF, plain + bytes(32)
            operations = memory = 0
        else:
            if not password:
                raise UsageError("the password is empty", hint="give --no-password for a key without one")
            salt = secrets.token_bytes(_SALT_BYTES)
            header = _SCRYPT
            hidden = _xor(plain + _checksum(plain), _stream(password, salt, operations, memory))
        limits = operations.to_bytes(8, "little") + memory.to_bytes(8, "little")
        data = base64.b64encode(_ALGORITHM + header + _BLAKE2B + salt + limits + hidden).decode("ascii")
        return f"{UNTRUSTED}minisign encrypted secret key\n{data}\n"


def shown(identity: bytes) -> str:
    """A key's identity as minisign prints it."""
    return f"{_number(identity):016X}"


def from_base64(line: str) -> bytes | None:
    """The bytes of a line of base64; None where it is none or not in its one canonical form."""
    try:
        data = base64.b64decode(line, validate=True)
    except (binascii.Error, ValueError):
        return None
    # Bits beyond the last byte would otherwise be free to differ.
    return data if data and base64.b64encode(data).decode("ascii") == line else None


def _lines(path: Path, what: str) -> list[str]:
    try:
        with path.open("rb") as handle:
            data = handle.read(_LARGEST_FILE + 1)
        if len(data) > _LARGEST_FILE:
            raise UsageError(f"{what} {str(path)!r} is over {_LARGEST_FILE} bytes, so it is none")
        return [line.rstrip("\r") for line in data.decode("utf-8").split("\n")]
    except UnicodeDecodeError as error:
        raise UsageError(f"{what} {str(path)!r} is not text") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"{what} {str(path)!r} cannot be read: {reason}", hint="a file, or a key's base64") from error


def _checksum(plain: bytes) -> bytes:
    return hashlib.blake2b(_ALGORITHM + plain, digest_size=32).digest()


def _number(data: bytes) -> int:
    return int.from_bytes(data, "little")


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


def _stream(password: str, salt: bytes, operations: int, memory: int) -> bytes:
    """As many bytes as there are to hide, from scrypt with the parameters that libsodium takes for these limits."""
    if operations > _MOST_OPERATIONS or memory > _MOST_MEMORY:
        raise UsageError(f"deriving the key from its password takes {memory >> 20} MiB, over the 2 GiB allowed")
    n, parallel = _scrypt_cost(operations, memory)
    try:
        return hashlib.scrypt(
            password.encode("utf-8"),
            salt=salt,
            n=n,
            r=8,
            p=parallel,
            maxmem=128 * 8 * (n + parallel + 4) + (1 << 20),
            dklen=_SECRET_BYTES,
        )
    except (ValueError, MemoryError) as error:
        raise UsageError(
            f"deriving the key from its password failed: {error}", hint=f"it takes {memory >> 20} MiB of memory"
        ) from error


def _scrypt_cost(operations: int, memory: int) -> tuple[int, int]:
    """N and p for r = 8, as libsodium's crypto_pwhash_scryptsalsa208sha256 picks them."""
    operations = max(operations, 1 << 15)
    bound = operations // 32 if operations < memory // 32 else memory // 1024
    n = 2
    while n <= bound // 2:
        n *= 2
    if operations < memory // 32:
        return n, 1
    return n, max(1, min(operations // 4 // n, 0x3FFFFFFF) // 8)


def refuse_file(path: Path) -> None:
    """Raises UsageError where there is something at `path`: a key that is overwritten cannot be made again."""
    if path.exists() or path.is_symlink():
        raise UsageError(f"{str(path)!r} exists already", hint="a lost key cannot be made again; choose another name")


def write_secret(path: Path, text: str) -> None:
    """A file that only its owner may read; one that is there is not touched.

    Raises:
        UsageError: there is one already.
        OSError: it cannot be written.
    """
    refuse_file(path)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())

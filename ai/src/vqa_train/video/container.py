"""Opening files as videos: regular local files only, demuxers that read one file only, errors with a reason code."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import av
from av.codec.hwaccel import HWAccel
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream

from vqa_train.core.errors import MediaError, Reason
from vqa_train.core.files import display_path
from vqa_train.core.locations import is_remote
from vqa_train.video.at_hand import RangedFile

DEFAULT_MAX_PIXELS = 8192 * 8192
"""Pixels per picture above which a video is refused: twice what 8K UHD needs."""

# Demuxers that read the one file they are given. Playlists and scripts (hls, dash, concat, image2, ...), which
# open further files or addresses, are left out: a text that looks like one must not make us read anything else.
_FORMATS = (
    "3dostr,amv,asf,av1,avi,cavsvideo,dirac,dv,flv,gif,gxf,h261,h263,h264,hevc,ivf,m4v,matroska,mov,mpeg,mpegts,"
    "mpegvideo,mxf,nsv,nut,obu,ogg,rm,vc1,vc1test,vvc,webm,wtv,yuv4mpegpipe"
)
_ISO_BOXES = {b"ftyp", b"moov", b"mdat", b"moof", b"free", b"skip", b"wide", b"styp", b"pnot"}


def named(path: Path) -> str:
    """How messages name a file: quoted, relative to the working folder or to ~ where possible."""
    return repr(display_path(path))


def check_file(path: Path) -> None:
    """Refuse what is not a readable, regular, non-empty file; never opens a FIFO or a device, which could block.

    What lies behind a URL was looked at before (`video.at_hand`).

    Raises:
        MediaError: MISSING_FILE, UNREADABLE or EMPTY_FILE.
    """
    if is_remote(path):
        return
    try:
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            raise MediaError(f"{named(path)} is a folder, expected a video file", reason=Reason.UNREADABLE)
        if not stat.S_ISREG(found.st_mode):
            raise MediaError(f"{named(path)} is a FIFO, socket or device, expected a file", reason=Reason.UNREADABLE)
        if found.st_size == 0:
            raise MediaError(f"{named(path)} is empty (0 bytes)", reason=Reason.EMPTY_FILE)
        path.open("rb").close()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MediaError(f"{named(path)} does not exist", reason=Reason.MISSING_FILE) from error
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or str(error)
        raise MediaError(f"{named(path)} cannot be read: {problem}", reason=Reason.UNREADABLE) from error


@contextmanager
def open_video(
    path: Path, max_pixels: int = DEFAULT_MAX_PIXELS, hwaccel: HWAccel | None = None
) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The opened container and its first video stream that is not cover art; FFmpeg errors inside become MediaError.

    Args:
        path: a local file.
        max_pixels: pictures with more pixels are refused, by us from the header and by FFmpeg from the stream.
        hwaccel: device to decode on; None is the CPU.

    Raises:
        MediaError: with the reason.
    """
    check_file(path)
    container: InputContainer | None = None
    try:
        container = _open(path, {"max_pixels": str(max_pixels)}, hwaccel)
        yield container, _video_stream(path, container, max_pixels)
    except FFmpegError as error:
        check_size(path, max_pixels)
        raise _media_error(path, error, opened=container is not None) from error
    finally:
        if container is not None:
            container.close()


def _open(path: Path, options: dict[str, str], hwaccel: HWAccel | None = None) -> InputContainer:
    safe = {"protocol_whitelist": "file", "format_whitelist": _FORMATS, **options}
    if is_remote(path):
        # Nothing is opened by name: FFmpeg gets the bytes of this object from us and can ask for no other.
        return av.open(RangedFile(path), "r", options=safe, metadata_errors="replace", hwaccel=hwaccel)
    # The file: prefix keeps FFmpeg from taking a name such as "concat:a|b" or "http:..." for an address.
    return av.open(f"file:{path.absolute()}", "r", options=safe, metadata_errors="replace", hwaccel=hwaccel)


def check_size(path: Path, max_pixels: int) -> None:
    """Refuse a file whose pictures are too large; for files that failed, as FFmpeg forgets a size it has refused.

    Decodes the first packet without our limit. FFmpeg's own is 268 million pixels: a larger claim is damage to it.

    Raises:
        MediaError: TOO_LARGE.
    """
    context = None
    with suppress(FFmpegError), _open(path, {}) as container:
        for stream in container.streams.video[:1]:
            context = getattr(stream, "codec_context", None)
            if context is not None and context.width * context.height <= max_pixels:
                context.thread_count = 1
                context.decode(next(read_packets(container, stream), None))
    if context is not None and context.width * context.height > max_pixels:
        raise _too_large(path, context.width, context.height, max_pixels)


def _too_large(path: Path, width: int, height: int, max_pixels: int) -> MediaError:
    return MediaError(
        f"{named(path)} has {width}x{height} pixels, over the limit of {max_pixels}", reason=Reason.TOO_LARGE
    )


def read_packets(container: InputContainer, *streams: VideoStream) -> Iterator[Packet[Any]]:
    """The packets of `streams` (of all, if none is given) from where the container stands, without empty ones.

    An empty packet would tell a decoder that the stream ends.
    """
    try:
        for packet in container.demux(*streams):
            if packet.size:
                yield packet
    except IndexError:
        # PyAV 18 ends so, after the last packet, when a stream has appeared on the way (transport streams).
        return


def _video_stream(path: Path, container: InputContainer, max_pixels: int) -> VideoStream:
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams and _lacks_moov(path):
        raise _cut_short(path)
    if not streams:
        raise MediaError(f"{named(path)} has no video stream", reason=Reason.NO_VIDEO_STREAM)
    stream = streams[0]
    # PyAV's stubs do not say so, but a stream whose codec FFmpeg cannot decode has no context.
    context = getattr(stream, "codec_context", None)
    if context is None:
        raise MediaError(f"{named(path)} is coded with a codec FFmpeg cannot decode", reason=Reason.DECODE_ERROR)
    if context.width * context.height > max_pixels:
        raise _too_large(path, context.width, context.height, max_pixels)
    context.options = {"max_pixels": str(max_pixels)}
    return stream


def _media_error(path: Path, error: FFmpegError, *, opened: bool) -> MediaError:
    what = (error.strerror or str(error)).rstrip(".")
    if isinstance(error, MemoryError):
        return MediaError(f"{named(path)}: no memory left to decode it", reason=Reason.OUT_OF_MEMORY)
    if isinstance(error, OSError) and not _bytes_can_be_read(path):
        return MediaError(f"{named(path)} cannot be read: {what}", reason=Reason.UNREADABLE)
    if opened:
        return MediaError(f"{named(path)} is damaged: FFmpeg says {what!r}", reason=Reason.DECODE_ERROR)
    if _lacks_moov(path):
        return _cut_short(path)
    return MediaError(
        f"{named(path)} is not a video that FFmpeg can read ({what})",
        reason=Reason.DECODE_ERROR,
    )


def _bytes_can_be_read(path: Path) -> bool:
    """Whether an error of the system is none: demuxers report damage as an input/output error too."""
    if is_remote(path):
        return True
    try:
        with path.open("rb") as handle:
            while handle.read(1 << 20):
                pass
    except OSError:
        return False
    return True


def _cut_short(path: Path) -> MediaError:
    return MediaError(
        f"{named(path)} is an MP4 file cut short: it has no whole index (moov box)",
        hint="copy or download it again",
        reason=Reason.TRUNCATED,
    )


def _lacks_moov(path: Path) -> bool:
    """True for an ISO base media file (ISO/IEC 14496-12) without a whole moov box."""
    size = path.stat().st_size
    position = 0
    with path.open("rb") as handle:
        while position + 8 <= size:
            handle.seek(position)
            header = handle.read(16)
            length, kind = int.from_bytes(header[:4], "big"), header[4:8]
            if position == 0 and kind not in _ISO_BOXES:
                return False
            if length == 1:
                length = int.from_bytes(header[8:16], "big")
            elif length == 0:
                length = size - position
            if kind == b"moov":
                return position + length > size
            if length < 8:
                break
            position += length
    return position > 0

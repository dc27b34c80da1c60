"""The bytes of a scan file, plain or gzip (RFC 1952), read once, to the end, every checksum verified.

Whether a file is compressed is seen from its first bytes, not from its name. What a file is that holds no scan is
said here too.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from anofield.errors import ScanError
from anofield.typing import PathLike

GZIP = b"\x1f\x8b"
GZIP_BITS = 31  # zlib: a gzip header and trailer, the largest window
GZIP_LARGEST_RATIO = 1032  # deflate cannot compress more than that
PACKED_STEP, STEP = 2**16, 2**20  # bytes read at a time, compressed and not
AGAIN = "copy or download it again; `gzip -t FILE` checks a compressed file"

TEXT_HEADS = {  # in lower case, without white space in front
    b"version https://git-lfs": ("is a Git LFS pointer, its content was not fetched", "run `git lfs pull`"),
    b"<": ("is an HTML or XML page (a failed download)", "download it again (a login may be needed)"),
    b"{": ("is JSON text (a failed download)", "download it again (a login may be needed)"),
    b"nrrd": ("is an NRRD image", "convert it to NIfTI, for example with SimpleITK"),
    b"objecttype": ("is a MetaImage header", "convert it to NIfTI, for example with SimpleITK"),
}
HEADS = {
    b"PK\x03\x04": ("is a ZIP archive", "unpack it"),
    b"PK\x05\x06": ("is an empty ZIP archive", "make it again"),
    b"BZh": ("is compressed with bzip2", "unpack it with bunzip2"),
    b"\xfd7zXZ": ("is compressed with xz", "unpack it with unxz"),
    b"\x28\xb5\x2f\xfd": ("is compressed with zstd", "unpack it with unzstd"),
    b"7z\xbc\xaf": ("is a 7z archive", "unpack it"),
    b"Rar!": ("is a RAR archive", "unpack it"),
    GZIP: ("is compressed twice", "unpack it once with gunzip"),
    b"\x89HDF": ("is an HDF5 or MINC-2 file", "convert it to NIfTI, MINC with mnc2nii"),
    b"CDF": ("is a netCDF or MINC-1 file", "convert it to NIfTI, MINC with mnc2nii"),
    b"\x93NUMPY": ("is a NumPy array, which has no affine", "save it as NIfTI with its affine (nibabel)"),
    b"\x89PNG": ("is a PNG picture", "convert the DICOM series with dcm2niix"),
    b"\xff\xd8\xff": ("is a JPEG picture", "convert the DICOM series with dcm2niix"),
    b"\x00\x05\x16\x07": ("is a macOS resource file (its name begins with ._)", "delete it; the scan lies beside it"),
}
ANNEX = b"annex/objects/"
ANNEX_SAYS = ("is a git-annex pointer, its content was not fetched", "run `git annex get FILE`, or `datalad get FILE`")
DICOM_AT, TAR_AT = 128, 257  # bytes in front of their marks


class Source(Protocol):
    """A file as its content, uncompressed."""

    @property
    def most(self) -> int:
        """Bytes that the content can have at most, by the size of the file."""
        ...

    def read(self, size: int) -> bytes:
        """At least one and at most `size` bytes, `b""` at the end."""
        ...


class Content:
    """The content of a file, uncompressed, from the first byte to the last.

    Attributes:
        path: The file.
        most: Bytes that the content can have at most, by the size of the file.
    """

    def __init__(self, source: Source, path: Path) -> None:
        """Read `source` from where it stands."""
        self.path, self.most = path, source.most
        self._source, self._ahead = source, b""

    def peek(self, size: int) -> bytes:
        """The next `size` bytes, which are not consumed; fewer at the end."""
        self._ahead = self.read(size)
        return self._ahead

    def read(self, size: int) -> bytes:
        """The next `size` bytes; fewer at the end.

        Raises:
            ScanError: The file is damaged.
        """
        parts, self._ahead = [self._ahead[:size]], self._ahead[size:]
        left = size - len(parts[0])
        while left and (part := self._source.read(min(left, STEP))):
            parts.append(part)
            left -= len(part)
        return b"".join(parts)

    def skip(self, size: int) -> None:
        """Read the next `size` bytes and forget them."""
        while size > 0 and (part := self.read(min(size, STEP))):
            size -= len(part)

    def read_rest(self, most: int, *, zeros: bool) -> None:
        """Read what follows the voxels, so that every checksum is verified.

        Args:
            most: Bytes that may follow.
            zeros: Whether these must be zeros.

        Raises:
            ScanError: More follows than may; it is not read. Or the file is damaged.
        """
        left = most
        while part := self.read(min(left + 1, STEP)):
            left -= len(part)
            if left < 0 or (zeros and part.count(0) < len(part)):
                raise _more_than_a_scan("the voxels that its header describes", self.path)


class PlainFile:
    """Content of a file that is not compressed."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        """Read `stream`, a file of `size` bytes, from where it stands."""
        self._stream, self.most = stream, size

    def read(self, size: int) -> bytes:
        """See `Source`."""
        return self._stream.read(size)


class GzipFile:
    """Content of a gzip file of any number of members; zeros may fill it up behind the last one.

    Cost: the memory of one block. CRC and length of a member are checked when its end is read.
    """

    def __init__(self, stream: BinaryIO, size: int, path: Path) -> None:
        """Read `stream`, the file `path` of `size` bytes, from its start."""
        self._stream, self._path = stream, path
        self._packed, self._member = b"", zlib.decompressobj(GZIP_BITS)
        self._ended = False
        self.most = size * GZIP_LARGEST_RATIO

    def read(self, size: int) -> bytes:
        """See `Source`."""
        while not self._ended:
            packed = self._packed or self._stream.read(PACKED_STEP)
            try:
                content = self._member.decompress(packed, size)
            except zlib.error as error:
                raise damaged(_in_words(error), self._path) from error
            self._packed = self._member.unconsumed_tail
            if self._member.eof:
                self._packed = self._member.unused_data
                self._begin_member()
            elif not packed and not content:
                raise damaged("its compressed data end early", self._path, why="the file is truncated")
            if content:
                return content
        return b""

    def _begin_member(self) -> None:
        """Skip zeros behind a member; begin the next one, or end if there is none."""
        self._packed = self._packed.lstrip(b"\0")
        while len(self._packed) < len(GZIP) and (more := self._stream.read(PACKED_STEP)):
            self._packed = (self._packed + more).lstrip(b"\0")
        if self._packed.startswith(GZIP):
            self._member = zlib.decompressobj(GZIP_BITS)
        elif self._packed:
            raise _more_than_a_scan("its compressed data", self._path)
        else:
            self._ended = True


@contextmanager
def open_content(path: Path) -> Iterator[Content]:
    """Open a file, compressed or not.

    Raises:
        ScanError: There is no such file, it is empty or a folder, or it cannot be read. Also raised for an `OSError` of
            the body.
    """
    size = _size_of(path)
    try:
        with path.open("rb") as stream:
            packed = stream.read(len(GZIP)) == GZIP
            stream.seek(0)
            yield Content(GzipFile(stream, size, path) if packed else PlainFile(stream, size), path)
    except OSError as error:
        what = f"cannot be read ({error.strerror or error})"
        raise ScanError(what, where=path, remedy="check its permissions and the disk") from error


def damaged(what: str, path: PathLike, why: str = "the file is damaged") -> ScanError:
    """The error of a file whose content cannot be trusted."""
    return ScanError(f"its voxels cannot be read: {what}", where=path, why=why, remedy=AGAIN)


def not_a_scan(head: bytes, path: Path) -> ScanError:
    """The error of a file that is no NIfTI and no MGH file, by its first bytes (512 are enough)."""
    what, remedy = what_it_is(head)
    return ScanError(what, where=path, why="a scan is a NIfTI or MGH file", remedy=remedy)


def what_it_is(head: bytes) -> tuple[str, str]:
    """What a file is that is no scan, by its first bytes, and what to do with it."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if ANNEX in head.replace(b"\\", b"/") and b"\0" not in head:
        return ANNEX_SAYS
    if b"<gifti" in text or b"doctype gifti" in text:
        return "is a GIFTI surface", "give the volume"
    for begin, says in TEXT_HEADS.items():
        if text.startswith(begin):
            return says
    for begin, says in HEADS.items():
        if head.startswith(begin):
            return says
    if head[DICOM_AT : DICOM_AT + 4] == b"DICM":
        return "is a DICOM file", "convert the series with dcm2niix"
    if head[TAR_AT : TAR_AT + 5] == b"ustar":
        return "is a tar archive", "unpack it"
    if not head.strip(b"\0"):
        return "begins with zeros only (an interrupted copy)", AGAIN
    if head.isascii() and b"\0" not in head:
        return "is text", "give the scan itself"
    remedy = "check that it opens in a viewer; convert DICOM with dcm2niix; copy it again if it is damaged"
    return "cannot be read as NIfTI or MGH (its first bytes are unknown)", remedy


def _size_of(path: Path) -> int:
    """Bytes of a regular file that is not empty."""
    try:
        if path.is_symlink() and not path.exists():
            raise _broken_link(path)
        if path.is_dir():
            raise ScanError("is a folder, not a file", where=path, remedy="give a file, or the folder as input")
        if not path.is_file():
            raise ScanError("no such file", where=path, remedy="check the path")
        size = path.stat().st_size
    except OSError as error:
        raise ScanError(f"cannot be read ({error.strerror})", where=path, remedy="check the path") from error
    if not size:
        raise ScanError("is empty", where=path, why="it holds no bytes", remedy=AGAIN)
    return size


def _broken_link(path: Path) -> ScanError:
    target = str(path.readlink())
    if ANNEX.decode() in target.replace("\\", "/"):
        what = "is a broken link of git-annex, its content was not fetched"
        return ScanError(what, where=path, remedy=ANNEX_SAYS[1])
    what = f"is a broken link (to {target})"
    return ScanError(what, where=path, remedy="copy the file that it points to, or mount its disk")


def _more_than_a_scan(behind: str, path: Path) -> ScanError:
    return ScanError(
        f"more than zeros follow {behind}",
        where=path,
        why="the file is damaged, or its header does not describe what it holds",
        remedy=f"{AGAIN}; `gunzip -c FILE | gzip > NEW` drops what follows compressed data",
    )


def _in_words(error: zlib.error) -> str:
    """What zlib found, without its numbers."""
    text = str(error)
    if "incorrect data check" in text or "incorrect length check" in text:
        return "the checksum does not match the content"
    return f"its compressed data are damaged ({text.rpartition(': ')[2]})"

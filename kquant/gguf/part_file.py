"""A file that appears under its name only when it is complete."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Condition, get_ident

from kquant.errors import OutputError

_CANNOT_PREALLOCATE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
"""The errors of file systems that cannot reserve space in advance."""


class PartFile:
    """A file of a known size, written next to its target in any order from any thread.

    The whole size is reserved at once, so that a full disk is noticed before the work and not after
    it.  Bytes that are not written are zero.  Every failure of the operating system becomes an
    `OutputError` that names the target; one while making or committing the file removes it.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     target = Path(folder, "greeting")
    ...     part = PartFile(target, 6)
    ...     part.write(2, b"llo")
    ...     part.write(0, b"he")
    ...     before = target.exists()
    ...     part.commit()
    ...     before, target.read_bytes()
    (False, b'hello\\x00')
    """

    def __init__(self, path: str | os.PathLike[str], n_bytes: int) -> None:
        self._process = os.getpid()  # a forked child has the object, too, but does not own the file
        self._exists = False
        self.path = Path(path)
        self.n_bytes = n_bytes
        self._target = Path(os.path.realpath(path))  # the target of a symbolic link, as with open()
        self._temporary = self._target.parent / f".{self._target.name[:40]}.{secrets.token_hex(4)}.part"
        self._fd = -1
        self._open = False
        self._writing: set[int] = set()  # threads
        self._changed = Condition()
        with self._clean_failure():
            self._create()

    def _create(self) -> None:
        """Makes the temporary file in its full size, with the permissions that open() would set."""
        existing = self._target.stat() if self._target.exists() else None
        if existing and not stat.S_ISREG(existing.st_mode):
            raise OSError(errno.EINVAL, "expected a regular file or a new name")
        if existing and not os.access(self._target, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        self._exists = True  # before the file is made: an interrupt may come between that and the next line
        try:
            self._fd = os.open(self._temporary, flags, 0o666)
        except OSError:
            self._exists = False
            raise
        self._open = True
        if existing:
            self._temporary.chmod(stat.S_IMODE(existing.st_mode))
        if hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(self._fd, 0, self.n_bytes)
            except OSError as error:
                if error.errno not in _CANNOT_PREALLOCATE:
                    raise
        os.ftruncate(self._fd, self.n_bytes)

    def write(self, position: int, data: bytes | memoryview) -> None:
        """Writes all of the bytes at `position`."""
        rest = memoryview(data)
        with self._changed:
            self.check_open()
            self._writing.add(get_ident())
        try:
            while rest:  # the system may write less than it was asked to
                n_bytes = self._write_some(position, rest)
                rest, position = rest[n_bytes:], position + n_bytes
        except OSError as error:
            raise self._failure(error) from error
        finally:
            with self._changed:
                self._writing.discard(get_ident())
                self._changed.notify_all()

    def _write_some(self, position: int, data: memoryview) -> int:
        if hasattr(os, "pwrite"):
            return os.pwrite(self._fd, data, position)
        with self._changed:  # Windows: the file has one position for all threads
            os.lseek(self._fd, position, os.SEEK_SET)
            return os.write(self._fd, data)

    def commit(self) -> None:
        """Renames the file to its target, replacing any other, after all bytes have reached the disk."""
        self.check_open()
        with self._clean_failure():
            os.fsync(self._fd)
            self._close()
            self._temporary.replace(self._target)
            self._exists = False

    def abort(self) -> None:
        """Waits for writes in progress and removes the file; does nothing after a `commit`."""
        self._close()
        if self._exists:
            self._temporary.unlink(missing_ok=True)
        self._exists = False

    def __del__(self) -> None:
        """Removes the file if an interrupt came after it was made and before the `with` statement."""
        if self._exists and self._process == os.getpid():
            self.abort()

    def check_open(self) -> None:
        """Raises `OutputError` after a commit or an abort."""
        if not self._open:
            raise OutputError(f"{self.path}: expected an open file, got one that is committed or aborted")

    def _close(self) -> None:
        """Closes the file once no other thread writes to it: the system may reuse its number.

        This thread does not write, whatever an interrupt in the middle of `write` left noted of it.
        """
        with self._changed:
            self._open = False
            self._changed.wait_for(lambda: not self._writing - {get_ident()})
            fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    @contextmanager
    def _clean_failure(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.abort()
            raise self._failure(error) from error
        except BaseException:
            self.abort()
            raise

    def _failure(self, error: OSError) -> OutputError:
        return OutputError(f"{self.path}: cannot write {self.n_bytes} bytes: {error.strerror or error}")

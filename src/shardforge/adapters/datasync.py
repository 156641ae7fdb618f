"""fdatasync on threads of the event loop that need no interpreter.

A Python thread comes back from each system call by waiting for the interpreter's lock, which is held by the thread that
serves the clients and woken at each of its own turns: a tenth of that thread's time, and more of the other core's, went
into passing the lock. libuv, inside uvloop, has a pool of its own for calls on files, whose results arrive as events of
the loop. uvloop hands out its `uv_loop_t`, and its library exports libuv's functions; ctypes calls them.

Source: libuv's documentation, "File system operations" and "Thread pool work scheduling".
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
from typing import Any, Final

UV_FS: Final = 6
"""`uv_req_type` of requests on files."""


_under_way: Final[
    dict[int, tuple[LoopDatasync, asyncio.Future[None], ctypes.Array[ctypes.c_char]]]
] = {}
"""By its address: whose a request is, who waits for it, and its memory. Here, because libuv uses the memory and calls
back whether or not anybody still knows of the loop."""


class _Request(ctypes.Structure):
    """The public head of `uv_fs_t`, up to the result: the same in every libuv 1.x."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("type", ctypes.c_int),
        ("reserved", ctypes.c_void_p * 6),
        ("fs_type", ctypes.c_int),
        ("loop", ctypes.c_void_p),
        ("callback", ctypes.c_void_p),
        ("result", ctypes.c_ssize_t),
    )


class LoopDatasync:
    """fdatasync for one running loop; see `of`. Belongs to the loop's thread."""

    def __init__(
        self, library: ctypes.PyDLL, loop: asyncio.AbstractEventLoop, pointer: int
    ) -> None:
        self._library = library
        self._loop = loop
        self._pointer = pointer
        library.uv_fs_fdatasync.argtypes = [
            ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p,
        ]  # fmt: skip
        library.uv_fs_req_cleanup.argtypes = [ctypes.c_void_p]
        library.uv_req_size.restype = ctypes.c_size_t
        self._size = library.uv_req_size(UV_FS)
        self._spare: list[ctypes.Array[ctypes.c_char]] = []
        self._callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self._done)

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> LoopDatasync | None:
        """One for this loop; None where the loop is not uvloop's, or its libuv is not as it is known here."""
        try:
            from uvloop import loop as uv

            if not isinstance(loop, uv.Loop):  # uvloop itself takes the argument at its word
                return None
            capsule = uv.libuv_get_loop_t_ptr(loop)
            pointer = ctypes.pythonapi.PyCapsule_GetPointer
            pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
            found = cls(ctypes.PyDLL(uv.__file__), loop, pointer(capsule, None))
        except (ImportError, AttributeError, TypeError, OSError):
            return None
        return found if found._is_known() else None

    def _is_known(self) -> bool:
        """Whether a request that fails at once is answered, and filled in, as `_Request` says."""
        memory = ctypes.create_string_buffer(self._size)
        answer = self._library.uv_fs_fdatasync(self._pointer, memory, -1, None)
        request = _Request.from_buffer(memory)
        known = request.type == UV_FS and request.loop == self._pointer
        return bool(known and answer == request.result == -errno.EBADF)

    def begin(self, descriptor: int) -> asyncio.Future[None]:
        """Done when the file's bytes are on disk; fails with OSError. Goes on when nobody waits for it any more."""
        memory = self._spare.pop() if self._spare else ctypes.create_string_buffer(self._size)
        address = ctypes.addressof(memory)
        future: asyncio.Future[None] = self._loop.create_future()
        _under_way[address] = self, future, memory
        refused = self._library.uv_fs_fdatasync(self._pointer, address, descriptor, self._callback)
        if refused:
            del _under_way[address]
            future.set_exception(OSError(-refused, os.strerror(-refused)))
        return future

    def _done(self, address: Any) -> None:
        _, future, memory = _under_way.pop(address)
        result = _Request.from_buffer(memory).result
        self._library.uv_fs_req_cleanup(address)
        self._spare.append(memory)
        if future.done():
            return
        if result:
            future.set_exception(OSError(-result, os.strerror(-result)))
        else:
            future.set_result(None)

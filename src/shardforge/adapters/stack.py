"""Room for deeply nested statements: the interpreter's recursion limit, with a stack that bears it.

Parsing, binding, planning and evaluating walk trees by recursion. Python counts calls; those that go through C (sorting
keys, comparing tuples, decoding JSON) also need the thread's stack, so the limit is raised only as far as the stack of
the main thread can follow. Beyond the limit a statement fails with 54001, never the process.
"""

from __future__ import annotations

import resource
import sys
import threading

STACK_BYTES = 64 * 1024 * 1024
"""Well inside the gap that the kernel leaves below the main thread's stack, whatever the soft limit was."""
BYTES_PER_CALL = 8 * 1024
"""More than any way through C takes from one Python call to the next; measured: under 1 kB."""
CALLS_MAX = 8_000


def allow_deep_statements() -> int:
    """Raise the recursion limit in the main thread of a server; returns the limit in force."""
    if threading.current_thread() is not threading.main_thread():
        return sys.getrecursionlimit()
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    wanted = STACK_BYTES if hard == resource.RLIM_INFINITY else min(STACK_BYTES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_STACK, (wanted, hard))
        soft = wanted
    stack = STACK_BYTES if soft == resource.RLIM_INFINITY else soft
    calls = min(CALLS_MAX, stack // BYTES_PER_CALL)
    sys.setrecursionlimit(max(sys.getrecursionlimit(), calls))
    return sys.getrecursionlimit()

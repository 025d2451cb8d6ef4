"""`python -m cli.child PARENT_PID ARGUMENT…` becomes `python ARGUMENT…`, and dies when its parent dies.

The kernel keeps the promise: PR_SET_PDEATHSIG survives exec, and SIGKILL reaches a child that hangs. A parent that died
before the promise was made is noticed by its id. (A `preexec_fn` would do the same, but runs Python between fork and
exec, which is not safe once a library has started threads.)
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Bind this process to its parent's life, then exec."""
    parent = int(sys.argv[1])
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        os._exit(1)
    os.execv(sys.executable, [sys.executable, *sys.argv[2:]])


if __name__ == "__main__":
    main()

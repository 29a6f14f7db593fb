"""An island's first moments: tie its life to the launcher's, then become the script.

Run as a file by a bare interpreter, `python -I -S bootstrap.py LAUNCHER_PID SCRIPT ARGS...`. Doing
this between fork and exec instead would run Python in a copy of a process with many threads.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Ask the kernel for SIGKILL when the launcher dies, and execute the script."""
    launcher = int(sys.argv[1])
    if sys.platform == "linux":
        # Survives exec. The kernel means the thread that started this process: the launcher's main.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != launcher:
        sys.exit(1)  # it died before it could be watched
    os.execv(sys.executable, [sys.executable, *sys.argv[2:]])


if __name__ == "__main__":
    main()

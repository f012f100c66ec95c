"""`python -m lab`: runs lab/run.py in network and process namespaces of its own.

There all loopback ports are free, and when the first process ends, in whatever way, the kernel ends the rest.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys

LAB_STOP_SECONDS = 30


def main() -> int:
    """Run the lab; 0 done, 1 a fault that the user can fix, 130 interrupted."""
    try:
        return _run()
    except KeyboardInterrupt:
        print("lab: interrupted; everything it had started was ended", file=sys.stderr)
        return 130


def _run() -> int:
    # Imported here, so that an interruption during the import ends in one line, too.
    from lab import parts
    from lab.options import make_parser

    make_parser().parse_args()
    try:
        unshare = parts.find_all(parts.PACKAGES)["unshare"]
    except parts.MissingPart as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    # An ordinary user may make namespaces inside a user namespace, in which it is root.
    user: list[str] = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    namespaces = [*user, "--net", "--pid", "--mount-proc", "--fork", "--kill-child"]
    if subprocess.run([unshare, *namespaces, "true"], capture_output=True).returncode:
        print("lab: namespaces cannot be made here; run the lab as root on the host", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    command = [unshare, *namespaces, sys.executable, "-m", "lab.run", *sys.argv[1:]]
    # Ctrl-C reaches only this process: closing standard input lets the run end in order.
    process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    try:
        return process.wait()
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        process.stdin.close()
        try:
            return process.wait(LAB_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            return 130
    finally:
        process.kill()


if __name__ == "__main__":
    sys.exit(main())

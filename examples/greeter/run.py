"""Starts server.py and client.py as two processes, with the flags given to this program; ends with the client."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> int:
    flags = sys.argv[1:]
    command = [sys.executable, str(HERE / "server.py"), *flags, "--log_level=info"]  # for the line that is waited for
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        if not started(server):
            return server.wait() or 1
        return subprocess.run([sys.executable, HERE / "client.py", *flags], check=False).returncode
    finally:
        server.terminate()
        server.communicate(timeout=30)


def started(server: subprocess.Popen[str]) -> bool:
    """Wait for the server's line that says so; pass on what it writes before."""
    assert server.stderr is not None
    for line in server.stderr:
        sys.stderr.write(line)
        if "service started" in line:
            return True
    return False


if __name__ == "__main__":
    raise SystemExit(main())

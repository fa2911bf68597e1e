"""Serve the page of ``web.build`` to this machine and, over the local network, to a phone.

    python -m web.serve [PORT]    # default 8000; `make web` builds first; prints addresses and a QR code

Plain http: browsers then withhold the service worker (so no use without network, no installation) and threads from a
phone. Everything else works, the camera through the phone's own app. At this machine's own ``localhost`` all works.
"""

import functools
import http.server
import shutil
import socket
import subprocess
import sys
from pathlib import Path

from web.build import WEB, build, headers

PLAIN = """Over plain http a phone in the local network gets no service worker (no use without network, no
installation), no threads and no live camera stream; “Take a photo” opens the phone's camera all the same.
`make web-dist` makes a folder for a host with https, where all of it works."""


class Handler(http.server.SimpleHTTPRequestHandler):
    """Adds the page's headers, and the types that browsers insist on whatever this machine's table says."""

    extensions_map = http.server.SimpleHTTPRequestHandler.extensions_map | {
        ".js": "text/javascript",
        ".mjs": "text/javascript",
        ".json": "application/json",
        ".webmanifest": "application/manifest+json",
        ".svg": "image/svg+xml",
    }

    def end_headers(self) -> None:
        for name, value in headers().items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: who opened what is nobody's business."""


def server(folder: Path, port: int, host: str = "") -> http.server.ThreadingHTTPServer:
    """A server of ``folder``, not yet running. OSError if the port is taken."""
    return http.server.ThreadingHTTPServer((host, port), functools.partial(Handler, directory=str(folder)))


def address() -> str:
    """This machine's address in the local network, or localhost; no packet is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # reserved for documentation
            return str(probe.getsockname()[0])
        except OSError:
            return "localhost"


def main(port: str = "8000") -> None:
    folder = build(Path("runtime/web"))
    try:
        running = server(folder, int(port))
    except (OSError, OverflowError, ValueError) as error:
        sys.exit(f"error: cannot serve at port {port} ({error}); give another, as in `make web PORT=8080`")
    url = f"http://{address()}:{running.server_port}/"
    print(f"On this machine:  http://localhost:{running.server_port}/\nIn this network:  {url}\n")
    if shutil.which("node"):
        sys.stdout.flush()
        subprocess.run(["node", str(WEB / "qr.js"), url], check=True)
    print(f"\n{PLAIN}\nCtrl-C ends it.", flush=True)
    try:
        running.serve_forever()
    except KeyboardInterrupt:
        print()


if __name__ == "__main__":
    main(*sys.argv[1:])

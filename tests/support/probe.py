"""A replica that runs what a test asks it to run inside, and tells the result over HTTP."""

from __future__ import annotations

import textwrap
import urllib.parse

from kingpost.engine.base import Address
from tests.support.engine import get

PROBE = """
import http.server, os, socket, socketserver, subprocess, sys, urllib.parse

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        found = {"result": "ok", "os": os}
        try:
            exec(query.get("code", [""])[0], found)
            text = str(found["result"])
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass

class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True

print("listening", flush=True)
Server(("0.0.0.0", int(os.environ["PORT"])), Handler).serve_forever()
"""

TRY_CONNECT = """
import socket
probe = socket.socket()
probe.settimeout(2)
try:
    probe.connect(({host!r}, {port}))
    probe.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
    result = "reached" if probe.recv(1) else "nothing"
except OSError as error:
    result = "refused"
"""


async def ask(address: Address, code: str) -> str:
    """Run Python inside the replica; what it leaves in `result`, as text."""
    return await get(address, "/?" + urllib.parse.urlencode({"code": textwrap.dedent(code)}))


async def reaches(address: Address, host: str, port: int) -> bool:
    """Whether a server at that address answers the replica."""
    return await ask(address, TRY_CONNECT.format(host=host, port=port)) == "reached"

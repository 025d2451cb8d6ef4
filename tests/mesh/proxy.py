"""A real proxy before replicas: nginx, one port per stage, each stream to one of the replicas behind it."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.deploy.tools import program

# Health as nginx knows it is passive: who refuses a connection or ends it early is left out for a while. A stream
# that has begun is never tried again elsewhere: what was said on it is the gateway's to say again. No connections are
# kept for later (`keepalive`): on one to a replica that was killed, the next stream would be lost as well.
_POOL = """
  upstream {name} {{
    {servers}
  }}
  server {{
    listen 127.0.0.1:{port} http2;
    location / {{
      grpc_pass grpc://{name};
      grpc_next_upstream error timeout;
      grpc_connect_timeout 1s;
      grpc_read_timeout 1h;
      grpc_send_timeout 1h;
      client_body_timeout 1h;
      client_max_body_size 0;
    }}
  }}
"""
_WHOLE = """
daemon off;
master_process off;
error_log stderr error;
pid {directory}/nginx.pid;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  {pools}
}}
"""


@contextmanager
def proxied(directory: Path, pools: Mapping[str, Sequence[str]]) -> Iterator[dict[str, str]]:
    """The address of each pool, whose replicas are `pools[name]`."""
    ports = dict(zip(pools, _free_ports(len(pools)), strict=True))
    text = "".join(
        _POOL.format(
            name=name,
            port=ports[name],
            servers="\n    ".join(f"server {address} max_fails=1 fail_timeout=1s;" for address in addresses),
        )
        for name, addresses in pools.items()
    )
    config = directory / "nginx.conf"
    config.write_text(_WHOLE.format(directory=directory, pools=text), encoding="utf-8")
    process = subprocess.Popen([program("nginx"), "-p", str(directory), "-c", str(config)])
    try:
        for port in ports.values():
            _await_open(process, port)
        yield {name: f"127.0.0.1:{port}" for name, port in ports.items()}
    finally:
        process.terminate()
        process.wait(10)


def _free_ports(count: int) -> list[int]:
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(it.getsockname()[1]) for it in taken]
    for it in taken:
        it.close()
    return ports


def _await_open(process: subprocess.Popen[bytes], port: int, timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        assert process.poll() is None, "nginx ended; its words are above"
        with socket.socket() as trial:
            if trial.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert time.monotonic() < deadline, f"nobody listens on {port}"
        time.sleep(0.02)

"""Stores without a network: one kept in memory, and moto's S3 server on loopback."""

from __future__ import annotations

import re
import subprocess
import sys
import urllib.request
from importlib.util import find_spec

import pytest
from pyarrow.fs import FileSelector, FileSystem, FileType
from storing import SECRET

from synfin.cli.main import main
from synfin.stores import Url

#: Ends when its standard input does, so also with the process of the tests.
_SERVER = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""

_SIGNED = "AWS4-HMAC-SHA256 Credential=x/20240101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=x"  # moto checks none


@pytest.fixture
def synfin(capfd, monkeypatch):
    """Run the command here; returns (exit code, standard output, standard error)."""

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["synfin", *map(str, arguments)])
        with pytest.raises(SystemExit) as leaving:
            main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        assert "Traceback" not in err and SECRET not in out + err
        return leaving.value.code, out, err

    return run


class Memory:
    """pyarrow's filesystem in memory, with URLs for what lies in it."""

    def __init__(self):
        self.store, _ = FileSystem.from_uri("mock:///")

    def url(self, path: str) -> Url:
        return Url.of(f"mock://{path}", self.store, path.rstrip("/"))

    def put(self, path: str, data: bytes) -> Url:
        self.store.create_dir(path.rpartition("/")[0], recursive=True)
        with self.store.open_output_stream(path, compression=None) as file:
            file.write(data)
        return self.url(path)

    def files(self) -> list[str]:
        infos = self.store.get_file_info(FileSelector("", recursive=True))
        return sorted(info.path for info in infos if info.type == FileType.File)


@pytest.fixture
def memory():
    return Memory()


class S3:
    """A bucket of moto's server, seen from outside pyarrow."""

    def __init__(self, port: int, bucket: str):
        self.bucket = bucket
        self._root = f"http://127.0.0.1:{port}/{bucket}"
        self._ask("PUT", "")

    def _ask(self, method: str, path: str, data: bytes | None = None) -> bytes:
        headers = {
            "Content-Type": "application/octet-stream",
            "Authorization": _SIGNED,
        }  # without a type it waits for a form
        request = urllib.request.Request(self._root + path, data=data, method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.read()

    def put(self, key: str, data: bytes) -> str:
        self._ask("PUT", f"/{key}", data)
        return f"s3://{self.bucket}/{key}"

    def get(self, key: str) -> bytes:
        return self._ask("GET", f"/{key}")

    def names(self) -> list[str]:
        """All keys; those that end with a slash stand for folders."""
        return re.findall("<Key>(.*?)</Key>", self._ask("GET", "?list-type=2").decode())

    def uploads(self) -> list[str]:
        """Keys of uploads that were begun, and neither completed nor given up."""
        return re.findall("<Key>(.*?)</Key>", self._ask("GET", "?uploads").decode())


@pytest.fixture(scope="session")
def moto_port():
    if find_spec("moto") is None:
        pytest.skip("needs moto (pip install --group stores)")
    server = subprocess.Popen(
        [sys.executable, "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        yield int(server.stdout.readline())
    finally:
        server.stdin.close()
        server.wait(30)


@pytest.fixture
def aws(monkeypatch):
    """The environment of somebody who may use the local server."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)


@pytest.fixture
def s3(moto_port, aws, monkeypatch, request):
    """An empty bucket of its own for each test."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{moto_port}")
    return S3(moto_port, re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:60])

"""Compressed captures that are cut or corrupt: the slow reader stops where the fast one does, and gives what was before."""

import bz2
import gzip
import lzma
from pathlib import Path

import lz4.frame
import pytest
import zstandard

from rows import fast
from synfin.reference import read

WHOLE = Path(__file__).parents[2].joinpath("examples/13-busy-service.pcap").read_bytes()
PACKERS = {
    "gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstandard.ZstdCompressor().compress,
    "lz4": lz4.frame.compress,
}  # fmt: skip


def packets(path: Path) -> int:
    return len(read([path])[0][1])


@pytest.mark.parametrize("packer", PACKERS)
def test_cut(tmp_path, packer):
    """Two streams in one file, the second cut: blocks of bzip2 and lz4 are whole or nothing, and all fits into one."""
    pack = PACKERS[packer]
    packed, path = pack(WHOLE) + pack(WHOLE[24:]), tmp_path / f"x.pcap.{packer}"
    path.write_bytes(packed)
    every = packets(path)
    assert every == fast([path])[2]["packets"] > 0
    found = []
    for share in (99, 80, 60):
        path.write_bytes(packed[: len(packed) * share // 100])
        found.append(packets(path))
        assert found[-1] == fast([path])[2]["packets"]
    assert found == sorted(found, reverse=True) and every // 2 <= found[-1] <= found[0] < every


@pytest.mark.parametrize("packer", ["gz", "xz"])
def test_rubbish_behind_it(tmp_path, packer):
    path = tmp_path / "x.pcap"
    path.write_bytes(PACKERS[packer](WHOLE) + b"rubbish")
    assert packets(path) == fast([path])[2]["packets"] > 0

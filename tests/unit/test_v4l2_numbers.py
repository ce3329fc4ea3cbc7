"""The numbers and layouts of videodev2.h on 64-bit machines, from the header: a wrong one would be another request."""

import ctypes
import struct

import pytest

from devices import v4l2


@pytest.mark.skipif(struct.calcsize("P") != 8, reason="the sizes below are those of 64-bit machines")
def test_requests_are_the_kernels() -> None:
    assert v4l2._QUERYCAP == 0x80685600
    assert v4l2._ENUM_FMT == 0xC0405602
    assert v4l2._S_FMT == 0xC0D05605
    assert v4l2._REQBUFS == 0xC0145608
    assert v4l2._QUERYBUF == 0xC0585609
    assert v4l2._QBUF == 0xC058560F
    assert v4l2._DQBUF == 0xC0585611
    assert (v4l2._STREAMON, v4l2._STREAMOFF) == (0x40045612, 0x40045613)


@pytest.mark.skipif(struct.calcsize("P") != 8, reason="the offsets below are those of 64-bit machines")
def test_a_buffer_lies_as_the_kernel_writes_it() -> None:
    offsets = {name: getattr(v4l2._Buffer, name).offset for name in ("used", "at", "sequence", "where", "length")}
    assert offsets == {"used": 8, "at": 24, "sequence": 56, "where": 64, "length": 72}
    assert ctypes.sizeof(v4l2._Format) == 208
    assert v4l2._Format.of.offset == 8

# tier: unit
"""FormatError.offset: the byte that is wrong, for every decoder that reads bytes."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import numpy as np
import pytest
from abi_support import page, spelt

from pysharedpages import DirtyLog, FormatError, GuestMemory, PageSet, RangeError, SharedPages
from pysharedpages.abi import cca, kvm, lists, pkvm, rmp, sev, snp, tdx, traces

SEGMENTED = 30 << 8 | 1
MAP = tdx.decode_map_gpa(0, 0x10001, 0x10000, 0x3000)
STATE = cca.decode_ipa_state_set(0xC4000197, 0x10000, 0x13000, 1, 0)

# What is called, and where the bytes go wrong.
BYTES: dict[str, tuple[Callable[[], object], int]] = {
    "run too short": (lambda: kvm.decode_exit(bytes(50)), 50),
    "fault without a failure": (lambda: kvm.decode_exit(page(200, {8: "27"})), 8),
    "fault's flags": (lambda: kvm.decode_exit(page(200, {8: "27", 32: "01"}), 14), 32),
    "fault's gpa": (lambda: kvm.decode_exit(page(200, {8: "27", 40: "01"}), 14), 40),
    "fault's size": (lambda: kvm.decode_exit(page(200, {8: "27", 48: "01"}), 14), 48),
    "msr's reason": (lambda: kvm.decode_exit(page(200, {8: "1e"})), 40),
    "port's direction": (lambda: kvm.decode_exit(page(200, {8: "02", 32: "09"})), 32),
    "answer too short": (lambda: kvm.map_gpa_range(0, 1, 0).answer(bytearray(95)), 95),
    "dirty log's padding": (lambda: kvm.GetDirtyLog.decode(page(16, {4: "01"})), 4),
    "dirty log too long": (lambda: kvm.GetDirtyLog.decode(bytes(17)), 16),
    "clear too short": (lambda: kvm.ClearDirtyLog.decode(bytes(23)), 23),
    "ring entry's flags": (lambda: kvm.decode_ring(page(48, {32: "04"})), 32),
    "ring within an entry": (lambda: kvm.decode_ring(bytes(40)), 40),
    "slot's padding": (lambda: kvm.MemorySlot.decode(page(160, {99: "01"})), 99),
    "slot of a third length": (lambda: kvm.MemorySlot.decode(bytes(40)), 40),
    "attributes too long": (lambda: kvm.MemoryAttributes.decode(bytes(33)), 32),
    "capability's flags": (lambda: kvm.EnableCap.decode(page(104, {4: "01"})), 4),
    "filter too short": (lambda: kvm.MsrFilter.decode(bytes(391)), 391),
    "ghcb msr": (lambda: snp.decode_msr(0x015), 0),
    "psc without a header": (lambda: snp.decode_page_state_change(bytes(7)), 7),
    "rmp entry": (lambda: rmp.decode_entry(spelt("08") + bytes(15)), 0),
    "rmpread": (lambda: rmp.decode_rmpread(spelt("01") + bytes(15)), 0),
    "rmp table's end": (lambda: rmp.private_pages(bytes(24), 1), 24),
    "rmp table's entry": (lambda: rmp.private_pages(page(64, {48: "08"}), 1), 48),
    "segments too short": (lambda: rmp.decode_segments(bytes(4088), SEGMENTED), 4088),
    "segment": (lambda: rmp.decode_segments(page(4096, {31: "80"}), SEGMENTED), 24),
    "list within an entry": (lambda: lists.decode_list(bytes(24)), 24),
    "list before its count": (lambda: lists.decode_list(bytes(32), 3), 32),
    "list inverted": (lambda: lists.decode_list(page(48, {32: "02"})), 32),
    "list's argument": (lambda: lists.SharedPagesList.decode(bytes(25)), 24),
    "bitmap": (lambda: lists.PageEncBitmap(0, 64, 0).events(bytes(7)), 7),
    "bitmap to fill": (lambda: lists.encode_bitmap(PageSet(), 0, 65, bytes(15)), 15),
    "bitmap of a set": (lambda: PageSet.from_bitmap(bytes(3), npages=25), 3),
    "dirty bitmap": (lambda: DirtyLog(GuestMemory([(0, 0, 65)])).add_bitmap(0, bytes(8)), 8),
    "dirty ring": (lambda: DirtyLog(GuestMemory([(0, 0, 65)])).add_ring(bytes(17)), 17),
    "raw ranges": (lambda: PageSet.from_ranges(bytes(31)), 31),
}
NO_BYTES: dict[str, Callable[[], object]] = {
    "r10": lambda: MAP.done(2, 0),
    "r11": lambda: MAP.done(1, 0x10001),
    "x1": lambda: STATE.done(0, 0x14000, 0),
    "x2": lambda: STATE.done(0, 0x11000, 2),
    "rmp_cfg": lambda: rmp.decode_segments(bytes(4096), 0),
    "msr": lambda: sev.decode_migration_control(0, 0),
    "shape": lambda: PageSet.from_ranges(np.zeros((2, 3), np.uint64)),
    "size": lambda: SharedPages("1 parsec"),
}


@pytest.mark.parametrize("name", BYTES)
def test_the_byte_that_is_wrong(name: str) -> None:
    call, offset = BYTES[name]
    with pytest.raises(FormatError) as raised:
        call()
    assert raised.value.offset == offset


@pytest.mark.parametrize("name", NO_BYTES)
def test_what_has_no_bytes(name: str) -> None:
    with pytest.raises(FormatError) as raised:
        NO_BYTES[name]()
    assert raised.value.offset is None


def test_an_offset_survives_copies() -> None:
    error = FormatError("byte 7: no", offset=7)
    for same in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert (type(same), str(same), same.args, same.offset) == (
            FormatError, "byte 7: no", ("byte 7: no",), 7,
        )  # fmt: skip
    assert pickle.loads(pickle.dumps(FormatError("no"))).offset is None
    with pytest.raises(traces.TraceError) as raised:
        traces.parse(b"\nkvm_hypercall: nr 0xc a0 0x1000 a1 0x1 a2 oops\n")
    again = pickle.loads(pickle.dumps(raised.value))
    assert (str(again), again.line, again.offset) == (str(raised.value), 2, 39)


def test_gfns_out_of_bounds_are_range_errors_still() -> None:
    with pytest.raises(RangeError):
        pkvm.decode_hvc(0xC6000003, 0, 0, 0, granule=8192)
    with pytest.raises(RangeError):
        kvm.decode_exit(page(200, {8: "27", 40: "00f0ffffffffffff", 48: "0020"}), 14)

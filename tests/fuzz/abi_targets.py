"""Fuzz targets of the conversion ABIs: one a decoder, each a function of any bytes.

A target fails by any exception but FormatError and RangeError, by an event outside the request, or
by an answer that its own reader does not take back. It needs no fuzzer: the plain suite replays
`corpus/` through the same functions.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from pysharedpages import FormatError, PageSet, RangeError
from pysharedpages.abi import attributes, cca, kvm, lists, pkvm, rmp, sev, snp, tdx

TARGETS: Final[dict[str, Callable[[bytes], None]]] = {}

_GRANULES: Final = (4096, 16384, 65536)
_EFAULT: Final = 14


def target(function: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """Enter a target under its name; the typed errors are what it may raise."""

    def run(data: bytes) -> None:
        try:
            function(data)
        except (FormatError, RangeError):
            return

    TARGETS[function.__name__] = run
    return run


def words(data: bytes, count: int) -> tuple[int, ...]:
    """The first registers in the data; those that are missing are 0."""
    return struct.unpack(f"<{count}Q", data[: count * 8].ljust(count * 8, b"\0"))


def first(data: bytes) -> int:
    """The first byte, 0 if there is none."""
    return data[0] if data else 0


def within(events: Any, begin: int, stop: int) -> None:
    """Assert that all events lie in [begin, stop) and convert something each."""
    for start, npages, shared in events.tolist():
        assert begin <= start and npages > 0 and start + npages <= stop, (start, npages)
        assert stop <= 1 << 52 and shared in (0, 1)


@target
def kvm_exit(data: bytes) -> None:
    """A kvm_run page, with the errno of KVM_RUN in the first byte."""
    page = data[1:]
    found = kvm.decode_exit(page, _EFAULT if first(data) > 0x7F else 0)
    if isinstance(found, kvm.MapGpaRange):
        gpa, npages = struct.unpack_from("<QQ", page, 40)
        within(found.events, gpa >> 12, min((gpa >> 12) + npages, 1 << 52))
        found.answer(bytearray(page))
        found.answer(bytearray(page), signed=True)
    elif isinstance(found, kvm.MemoryFault):
        within(found.events, found.gpa >> 12, found.gpa + found.size >> 12)
        assert len(found.answer()) == 32
    elif isinstance(found, kvm.PortIo):
        assert found.offset + found.size * found.count <= len(page)
        found.answer(bytearray(page), bytes(found.size * found.count if found.data is None else 0))
    elif isinstance(found, kvm.MsrWrite | kvm.MsrRead | kvm.Hypercall):
        found.answer(bytearray(page))


@target
def kvm_hypercall(data: bytes) -> None:
    """The registers of KVM_HC_MAP_GPA_RANGE."""
    gpa, npages, bits = words(data, 3)
    call = kvm.map_gpa_range(gpa, npages, bits)
    within(call.events, gpa >> 12, min((gpa >> 12) + npages, 1 << 52))
    assert call.result() in (0, 22) and call.page_size >= 0


@target
def kvm_enable_cap(data: bytes) -> None:
    """The argument of KVM_ENABLE_CAP; what follows the arguments is lost."""
    call = kvm.EnableCap.decode(data)
    assert call.encode()[:40] == data[:40]


@target
def kvm_msr_filter(data: bytes) -> None:
    """The argument of KVM_X86_SET_MSR_FILTER."""
    found = kvm.MsrFilter.decode(data)
    assert kvm.MsrFilter.decode(found.encode()) == found and found.status in (0, 22)


@target
def kvm_dirty_log(data: bytes) -> None:
    """The arguments of both dirty-log ioctls, told apart by the first byte."""
    if first(data) > 0x7F:
        assert kvm.GetDirtyLog.decode(data[1:]).encode() == data[1:]
        return
    call = kvm.ClearDirtyLog.decode(data[1:])
    assert call.encode() == data[1:]
    slot_pages = call.address & 0x7FFFFFFF
    if call.status(slot_pages) == 0:
        stop = call.first_page + call.num_pages
        assert stop <= slot_pages
        assert (
            kvm.ClearDirtyLog.covering(0, call.first_page, stop, slot_pages, 0).status(slot_pages)
            == 0
        )


@target
def kvm_dirty_ring(data: bytes) -> None:
    """A dirty ring, with where to fetch from in the first byte."""
    entries = kvm.decode_ring(data[1:])
    taken = kvm.dirty_entries(entries, first(data))
    assert len(taken) <= len(entries) and (taken["flags"] == 1).all()


@target
def kvm_memory_slot(data: bytes) -> None:
    """A memory slot in either structure."""
    slot = kvm.MemorySlot.decode(data)
    assert slot.encode() == data and slot.status in (0, 22)


@target
def kvm_memory_attributes(data: bytes) -> None:
    """The argument of KVM_SET_MEMORY_ATTRIBUTES."""
    call = kvm.MemoryAttributes.decode(data)
    assert call.encode() == data
    within(call.events, call.address >> 12, min(call.address + call.size >> 12, 1 << 52))


@target
def sev_map_gpa_range(data: bytes) -> None:
    """The registers of a SEV guest's hypercall."""
    rax, rbx, rcx, rdx = words(data, 4)
    call = sev.decode_hypercall(rax & 0xF, rbx, rcx, rdx)
    within(call.events, rbx >> 12, min((rbx >> 12) + rcx, 1 << 52))
    assert (call.answer() == 0) == (call.status == 0)


@target
def sev_page_enc_status(data: bytes) -> None:
    """The registers of the older hypercall."""
    rax, rbx, rcx, rdx = words(data, 4)
    call = sev.decode_page_enc_status(rax & 0xF, rbx, rcx, rdx)
    within(call.events, rbx >> 12, min((rbx >> 12) + rcx, 1 << 52))
    assert (call.answer() == 0) == (call.status == 0)


@target
def sev_migration_control(data: bytes) -> None:
    """A write to an MSR."""
    index, value = words(data, 2)
    control = sev.decode_migration_control(index, value)
    assert control.status or control.encode() == value


@target
def snp_msr(data: bytes) -> None:
    """A write to the GHCB MSR."""
    (value,) = words(data, 1)
    request = snp.decode_msr(value)
    within(request.events, request.gfn, request.gfn + 1)
    assert request.status or request.encode() == value


@target
def snp_page_state_change(data: bytes) -> None:
    """The buffer of the NAE event; the first two bytes are how many pages get done at a time."""
    step, buffer = int.from_bytes(data[:2], "little") + 1, data[2:]
    request = snp.decode_page_state_change(buffer)
    wanted = int(request.events["npages"].sum())
    within(request.events, 0, 1 << 40)
    assert len(request.events) <= snp.MAX_ENTRIES and wanted <= snp.MAX_ENTRIES * 512
    done = min(step, wanted)
    answer = request.answer(done)
    assert len(answer.buffer) <= len(buffer)
    rest = snp.decode_page_state_change(answer.buffer)
    if request.status != snp.ERROR_INVALID_HEADER:
        assert int(rest.events["npages"].sum()) == wanted - done
        assert rest.status == request.status


@target
def tdx_map_gpa(data: bytes) -> None:
    """The registers of MapGPA, and of an answer to it."""
    r10, r11, r12, r13, a10, a11 = words(data, 6)
    gpaw = 52 if r10 >> 63 else 48
    call = tdx.decode_map_gpa(r10 & 1, 0x10001 | r11 & 2, r12, r13, gpaw=gpaw)
    within(call.events, call.start, min(call.start + (r13 >> 12), 1 << gpaw - 13))
    if call.npages <= 1 << 24:
        assert int(call.chunks()["npages"].sum()) == call.npages
    assert call.done(*call.answer()) == call.npages
    assert 0 <= call.done(a10, a11) <= call.npages
    rest = call.rest(a10, a11)
    if rest is not None:
        assert tdx.decode_map_gpa(0, tdx.MAP_GPA, rest.gpa, rest.size, gpaw=gpaw) == rest


@target
def pkvm_hvc(data: bytes) -> None:
    """The registers of a protected guest's HVC."""
    r0, r1, r2, r3 = words(data, 4)
    granule = _GRANULES[(r0 >> 40) % 3]
    call = pkvm.decode_hvc(0xC6000000 | r0 & 0xF, r1, r2, r3, granule=granule)
    within(call.events, r1 >> 12, r1 + granule >> 12)
    assert 0 <= call.answer() < 1 << 64


@target
def cca_ipa_state_set(data: bytes) -> None:
    """The registers of RSI_IPA_STATE_SET, and of an answer to it."""
    x0, x1, x2, x3, x4, a0, a1, a2 = words(data, 8)
    ipa_bits = 32 + (x0 >> 40) % 21
    call = cca.decode_ipa_state_set(0xC4000197 ^ x0 & 1, x1, x2, x3, x4, ipa_bits=ipa_bits)
    within(call.events, x1 >> 12, min(x2 >> 12, 1 << ipa_bits - 13))
    assert call.done(*call.answer()) == call.npages
    assert 0 <= call.done(a0, a1, a2) <= call.npages
    rest = call.rest(a0, a1, a2)
    if rest is not None:
        assert (rest.top, rest.status) == (call.top, 0) and rest.base >= call.base


@target
def rmp_entry(data: bytes) -> None:
    """An entry of the table and what RMPREAD stores, told apart by the first byte."""
    if first(data) > 0x7F:
        assert rmp.decode_rmpread(data[1:]).gfn < 1 << 52
        return
    entry = rmp.decode_entry(data[1:])
    assert entry.encode()[:8] == data[1:9]


@target
def rmp_table(data: bytes) -> None:
    """The lower words of a table, with the ASID in the first byte, and one byte too many."""
    low = np.frombuffer(data[1 : 1 + (len(data) - 1) // 8 * 8], "<u8")
    table = np.stack([low, np.zeros_like(low)], axis=1).tobytes() + data[:1]
    assert len(rmp.private_pages(table[: len(low) * 16], first(data))) <= len(low) * 512
    rmp.private_pages(table, first(data))


@target
def rmp_segments(data: bytes) -> None:
    """A segment table, filled up with zeros, and RMP_CFG in the first two bytes."""
    config = int.from_bytes(data[:2], "little")
    table = data[2:4098].ljust(4096, b"\0")
    found = rmp.decode_segments(table, config)
    assert all(each.pages > 0 and each.first_pfn + each.pages <= 1 << 40 for each in found)


@target
def attributes_plan(data: bytes) -> None:
    """Two states and what is memory, as lists of ranges of at most 16 entries each."""
    cut = len(data) // 3 // 16 * 16
    parts = [lists.decode_list(data[i * cut : (i + 1) * cut][:256]) for i in range(3)]
    before, after, memory = parts
    state = before
    for each in attributes.plan(before, after, memory):
        call = kvm.MemoryAttributes.decode(each.tobytes())
        assert call.status == 0
        (start, npages, shared) = call.events.tolist()[0]
        span = PageSet.from_ranges(np.array([[start, start + npages]], np.uint64))
        state = state | span if shared else state - span
    assert state == before ^ ((before ^ after) & memory)


@target
def shared_pages_list(data: bytes) -> None:
    """A list of v10, whose count is in the first byte, and the ioctl's argument."""
    if len(data) == 24:
        assert lists.SharedPagesList.decode(data).encode()[:20] == data[:20]
    pages = lists.decode_list(data[1:], first(data) if first(data) < 0x80 else None)
    assert lists.decode_list(lists.encode_list(pages)) == pages


@target
def page_enc_bitmap(data: bytes) -> None:
    """A bitmap of v8 after its ioctl's argument."""
    argument = lists.PageEncBitmap.decode(data[:24])
    assert argument.encode() == data[:24]
    start, npages = argument.start_gfn, argument.num_pages
    events = argument.events(data[24:])
    within(events, start, start + npages)
    shared = PageSet.from_ranges(
        np.array([(s, s + n) for s, n, kind in events.tolist() if kind], np.uint64).reshape(-1, 2)
    )
    bits = lists.encode_bitmap(shared, start, npages, data[24:])
    assert bits == data[24:]

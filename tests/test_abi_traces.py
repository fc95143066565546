# tier: unit
"""Trace lines, written by hand after the tracers' own formats, and the rows they are."""

from __future__ import annotations

import io

import pytest

from pysharedpages import SharedPages
from pysharedpages.abi import traces
from pysharedpages.abi.traces import NO_CPU, NO_TIME, BlockState, Origin, Refusal

TOP = 2**52

# (line, (start, npages, shared)) or (line, the refusal) or (line, None) for a line passed over.
Case = tuple[bytes, tuple[int, int, int] | Refusal | None]

CONVERT_MEMORY: list[Case] = [
    (b"kvm_convert_memory start 0x1000 size 0x2000 private_to_shared", (1, 2, 1)),
    (b"kvm_convert_memory start 0x1000 size 0x2000 shared_to_private", (1, 2, 0)),
    (b"kvm_convert_memory start 0x0 size 0x1000 private_to_shared", (0, 1, 1)),
    (b"kvm_convert_memory start 0x80000000 size 0x40000000 shared_to_private", (2**19, 2**18, 0)),
    (b"kvm_convert_memory start 0xfffffffffffff000 size 0x1000 private_to_shared", (TOP - 1, 1, 1)),
    (b"kvm_convert_memory start 0x0 size 0xfffffffffffff000 shared_to_private", (0, TOP - 1, 0)),
    (b"kvm_convert_memory start 0xfffffffffffff000 size 0x2000 private_to_shared", Refusal.WRAPS),
    (b"kvm_convert_memory start 0x1001 size 0x1000 private_to_shared", Refusal.UNALIGNED),
    (b"kvm_convert_memory start 0x1000 size 0xfff private_to_shared", Refusal.UNALIGNED),
    (b"kvm_convert_memory start 0x1000 size 0x0 private_to_shared", Refusal.EMPTY),
    (b"-trace kvm_convert_memory -trace kvm_memory_fault \\", None),
    (b"xkvm_convert_memory start 0x1000 size 0x2000 private_to_shared", None),
]

MAP_GPA_RANGE: list[Case] = [
    (b"kvm_hc_map_gpa_range gpa 0x1000 size 0x3000 attributes 0x0 flags 0x1", (1, 3, 1)),
    (b"kvm_hc_map_gpa_range gpa 0x1000 size 0x3000 attributes 0x10 flags 0x1", (1, 3, 0)),
    (b"kvm_hc_map_gpa_range gpa 0x200000 size 0x200000 attributes 0x1 flags 0x0", (512, 512, 1)),
    (b"kvm_hc_map_gpa_range gpa 0x200000 size 0x200000 attributes 0x11 flags 0x0", (512, 512, 0)),
    (b"kvm_hc_map_gpa_range gpa 0x0 size 0x40000000 attributes 0x12 flags 0x0", (0, 2**18, 0)),
    # 24 TiB in one call, as a booting guest marks its memory: more than 2^32 pages.
    (
        b"kvm_hc_map_gpa_range gpa 0x100000000 size 0x180000000000 attributes 0x10 flags 0x0",
        (0x100000, 6442450944, 0),
    ),
    # 0x8 means private elsewhere in KVM; here it is a page size that does not exist.
    (b"kvm_hc_map_gpa_range gpa 0x1000 size 0x1000 attributes 0x8 flags 0x0", (1, 1, 1)),
    (
        b"kvm_hc_map_gpa_range gpa 0x1000 size 0x1000 attributes 0x20 flags 0x0",
        Refusal.RESERVED_BITS,
    ),
    (
        b"kvm_hc_map_gpa_range gpa 0x1000 size 0x1000 attributes 0x8000000000000010 flags 0x0",
        Refusal.RESERVED_BITS,
    ),
    (b"kvm_hc_map_gpa_range gpa 0x1234 size 0x1000 attributes 0x0 flags 0x0", Refusal.UNALIGNED),
    (b"kvm_hc_map_gpa_range gpa 0x1000 size 0x0 attributes 0x0 flags 0x0", Refusal.EMPTY),
    (b"kvm_hc_map_gpa_range enabled", None),
]

MEMORY_FAULT: list[Case] = [
    (b"kvm_memory_fault start 0x1000 size 0x1000 flags 0x8", (1, 1, 0)),
    (b"kvm_memory_fault start 0x1000 size 0x1000 flags 0x0", (1, 1, 1)),
    (b"kvm_memory_fault start 0xfee00000 size 0x1000 flags 0x0", (0xFEE00, 1, 1)),
    (b"kvm_memory_fault start 0x200000 size 0x200000 flags 0x8", (512, 512, 0)),
    (b"kvm_memory_fault start 0x0 size 0x4000 flags 0x8", (0, 4, 0)),
    (b"kvm_memory_fault start 0x1000 size 0x1000 flags 0x10", Refusal.RESERVED_BITS),
    (b"kvm_memory_fault start 0x1000 size 0x1000 flags 0x9", Refusal.RESERVED_BITS),
    (b"kvm_memory_fault start 0x1010 size 0x1000 flags 0x8", Refusal.UNALIGNED),
    (b"kvm_memory_fault start 0x1000 size 0x0 flags 0x8", Refusal.EMPTY),
    (b"kvm_memory_fault start 0xfffffffffffff000 size 0x3000 flags 0x0", Refusal.WRAPS),
]

HYPERCALL: list[Case] = [
    (b"kvm_hypercall: nr 0xc a0 0x5000 a1 0x2 a2 0x0 a3 0x0", (5, 2, 1)),
    (b"kvm_hypercall: nr 0xc a0 0x5000 a1 0x2 a2 0x10 a3 0x0", (5, 2, 0)),
    (b"kvm_hypercall: nr 0xc a0 0x5000 a1 0x200 a2 0x11 a3 0xdeadbeef", (5, 512, 0)),
    (b"kvm_hypercall:        nr 0xc a0 0x0 a1 0x1 a2 0x2 a3 0x0", (0, 1, 1)),
    (b"kvm_hypercall: nr 0xc a0 0x0 a1 0x10000000000000 a2 0x10 a3 0x0", (0, TOP, 0)),
    (b"kvm_hypercall: nr 0xc a0 0xfffffffffffff000 a1 0x1 a2 0x0 a3 0x0", (TOP - 1, 1, 1)),
    (b"kvm_hypercall: nr 0xc a0 0x1000 a1 0x10000000000000 a2 0x0 a3 0x0", Refusal.WRAPS),
    (b"kvm_hypercall: nr 0xc a0 0x1000 a1 0xffffffffffffffff a2 0x0 a3 0x0", Refusal.WRAPS),
    (b"kvm_hypercall: nr 0xc a0 0x5001 a1 0x2 a2 0x0 a3 0x0", Refusal.UNALIGNED),
    (b"kvm_hypercall: nr 0xc a0 0x5000 a1 0x0 a2 0x0 a3 0x0", Refusal.EMPTY),
    (b"kvm_hypercall: nr 0xc a0 0x5000 a1 0x1 a2 0x30 a3 0x0", Refusal.RESERVED_BITS),
    (b"kvm_hypercall: nr 0x5 a0 0x5000 a1 0x2 a2 0x0 a3 0x0", None),
    (b"kvm_hv_hypercall: code 0x2 fast cnt 0x0 idx 0x0 in 0x0 out 0x0", None),
]

MSR: list[Case] = [
    (b"kvm_msr: msr_write c0010130 = 0x20000000007014", (7, 1, 1)),
    (b"kvm_msr: msr_write c0010130 = 0x10000000007014", (7, 1, 0)),
    (b"kvm_msr: msr_write c0010130 = 0x2ffffffffff014", (2**40 - 1, 1, 1)),
    (b"kvm_msr: msr_write c0010130 = 0x10000000000014", (0, 1, 0)),
    (b"kvm_msr: msr_write c0010130 = 0x30000000007014", Refusal.OPERATION),
    (b"kvm_msr: msr_write c0010130 = 0x7014", Refusal.OPERATION),
    (b"kvm_msr: msr_write c0010130 = 0x120000000007014", Refusal.RESERVED_BITS),
    (b"kvm_msr: msr_write c0010130 = 0x20000000007014 (#GP)", Refusal.FAULT),
    (b"kvm_msr: msr_write 4b564d08 = 0x1 (#GP)", Refusal.FAULT),
    (b"kvm_msr: msr_write 4b564d08 = 0x2", Refusal.RESERVED_BITS),
    (b"kvm_msr: msr_write c0010130 = 0x15", None),
    (b"kvm_msr: msr_write 6e0 = 0x20000000007014", None),
    (b"kvm_msr: msr_read c0010130 = 0x20000000007014", None),
]

VMGEXIT: list[Case] = [
    (b"kvm_vmgexit_msr_protocol_enter: vcpu 0, ghcb_gpa 0020000000007014", (7, 1, 1)),
    (b"kvm_vmgexit_msr_protocol_enter: vcpu 3, ghcb_gpa 0010000000007014", (7, 1, 0)),
    (b"kvm_vmgexit_msr_protocol_enter: vcpu 255, ghcb_gpa 002ffffffffff014", (2**40 - 1, 1, 1)),
    (b"kvm_vmgexit_msr_protocol_enter: vcpu 0, ghcb_gpa 0010000000000014", (0, 1, 0)),
    (b"kvm_vmgexit_msr_protocol_enter: vcpu 0, ghcb_gpa 002000007ffff014", (0x7FFFF, 1, 1)),
    (b"kvm_vmgexit_msr_protocol_enter: vcpu 0, ghcb_gpa 0030000000007014", Refusal.OPERATION),
    (b"kvm_vmgexit_msr_protocol_enter: vcpu 0, ghcb_gpa 0000000000007014", Refusal.OPERATION),
    (b"kvm_vmgexit_msr_protocol_enter: vcpu 0, ghcb_gpa 8020000000007014", Refusal.RESERVED_BITS),
    (b"kvm_vmgexit_msr_protocol_enter: vcpu 0, ghcb_gpa 0000000000000002", None),
    (b"kvm_vmgexit_msr_protocol_enter: vcpu 0, ghcb_gpa 000000007ffff000", None),
    (b"kvm_vmgexit_msr_protocol_exit: vcpu 0, ghcb_gpa 0020000000007014, result 0", None),
]


@pytest.mark.parametrize(
    ("origin", "cases"),
    [
        (Origin.KVM_CONVERT_MEMORY, CONVERT_MEMORY),
        (Origin.KVM_HC_MAP_GPA_RANGE, MAP_GPA_RANGE),
        (Origin.KVM_MEMORY_FAULT, MEMORY_FAULT),
        (Origin.KVM_HYPERCALL, HYPERCALL),
        (Origin.KVM_MSR, MSR),
        (Origin.KVM_VMGEXIT_MSR_PROTOCOL_ENTER, VMGEXIT),
    ],
    ids=lambda value: value.event if isinstance(value, Origin) else "",
)
def test_conversions(origin: Origin, cases: list[Case]) -> None:
    batch = traces.parse(b"".join(line + b"\n" for line, _ in cases))
    events, refused = [], []
    for number, (_, meaning) in enumerate(cases, 1):
        if isinstance(meaning, tuple):
            events.append((*meaning, NO_TIME, NO_CPU, origin, number))
        elif meaning is not None:
            refused.append((meaning, NO_TIME, NO_CPU, origin, number))
    assert batch.events.tolist() == events
    assert batch.refused.tolist() == refused
    assert [len(rows) for rows in (batch.dirty, batch.blocks, batch.permits)] == [0, 0, 0]


def test_dirty_ring_pushes_are_reports_of_dirty_pages() -> None:
    lines = b"""\
kvm_dirty_ring_push: ring 0: dirty 0x0 reset 0x0 slot 0 offset 0x0 (used 0)
kvm_dirty_ring_push: ring 3: dirty 0x10 reset 0x1 slot 1 offset 0xabc (used 15)
kvm_dirty_ring_push:      ring 1: dirty 0x2 reset 0x1 slot 65537 offset 0x10 (used 1)
kvm_dirty_ring_push: ring 7: dirty 0xffffffff reset 0x0 slot 4294967295 offset 0x7ffffffe (used 5)
kvm_dirty_ring_push: ring 0: dirty 0x1 reset 0x0 slot 0 offset 0xffffffffffffffff (used 1)
kvm_dirty_ring_push: ring 254: dirty 0x1 reset 0x0 slot 9 offset 0x1 (used 1)
kvm_dirty_ring_push: ring 0: dirty 0x0 reset 0xffffffff slot 2 offset 0x2 (used 1)
kvm_dirty_ring_push: ring 0: dirty 0x1 reset 0x0 slot 2 offset 0x2 (used 1)
kvm_dirty_ring_push: ring 0: dirty 0x2 reset 0x0 slot 2 offset 0x2 (used 2)
kvm_dirty_ring_push: ring 2147483647: dirty 0x2 reset 0x0 slot 3 offset 0xf (used 4294967295)
kvm_dirty_ring_reset: ring 0: dirty 0x2 reset 0x2 (used 0)
"""
    batch = traces.parse(lines)
    assert batch.dirty[["slot", "offset", "ring", "line"]].tolist() == [
        (0, 0, 0, 1),
        (1, 0xABC, 3, 2),
        (65537, 0x10, 1, 3),
        (2**32 - 1, 0x7FFFFFFE, 7, 4),
        (0, 2**64 - 1, 0, 5),
        (9, 1, 254, 6),
        (2, 2, 0, 7),
        (2, 2, 0, 8),
        (2, 2, 0, 9),
        (3, 15, 2**31 - 1, 10),
    ]
    assert set(batch.dirty["origin"].tolist()) == {Origin.KVM_DIRTY_RING_PUSH}
    assert len(batch.events) == len(batch.refused) == 0


def test_ram_block_changes_are_no_events() -> None:
    event = b"ram_block_attributes_state_change"
    lines = b"""\
E offset 0x0 size 0x1000 from 'discarded' to 'populated'
E offset 0x1000 size 0x1000 from 'populated' to 'discarded'
E offset 0x2000 size 0x200000 from 'mixture' to 'populated'
E offset 0x2000 size 0x200000 from 'mixture' to 'discarded'
E offset 0x7fffffff000 size 0x1000 from 'discarded' to 'populated'
E offset 0x0 size 0xfffffffffffff000 from 'populated' to 'discarded'
E offset 0x4000 size 0x4000 from 'discarded' to 'discarded'
E offset 0x8000 size 0x4000 from 'populated' to 'populated'
E offset 0x123 size 0x1 from 'populated' to 'mixture'
E offset 0x1000 size 0x0 from 'discarded' to 'populated'
""".replace(b"E ", event + b" ")
    no, yes, some = BlockState.DISCARDED, BlockState.POPULATED, BlockState.MIXTURE
    batch = traces.parse(lines)
    assert batch.blocks[["offset", "size", "before", "after", "line"]].tolist() == [
        (0, 0x1000, no, yes, 1),
        (0x1000, 0x1000, yes, no, 2),
        (0x2000, 0x200000, some, yes, 3),
        (0x2000, 0x200000, some, no, 4),
        (0x7FFFFFFF000, 0x1000, no, yes, 5),
        (0, 2**64 - 4096, yes, no, 6),
        (0x4000, 0x4000, no, no, 7),
        (0x8000, 0x4000, yes, yes, 8),
        (0x123, 1, yes, some, 9),
        (0x1000, 0, no, yes, 10),
    ]
    assert len(batch.events) == len(batch.refused) == 0


def test_migration_control_is_reported() -> None:
    batch = traces.parse(
        b"kvm_msr: msr_write 4b564d08 = 0x1\n"
        b"kvm_msr: msr_write 4b564d08 = 0x0\n"
        b"kvm_msr: msr_read 4b564d08 = 0x1\n"
    )
    assert batch.permits[["allowed", "line"]].tolist() == [(1, 1), (0, 2)]
    assert len(batch.events) == 0


STAMPS: list[tuple[bytes, int, int]] = [
    (b"", NO_TIME, NO_CPU),
    (b"4711@1700000000.000250:", 1_700_000_000_000_250_000, NO_CPU),
    (b"1@0.000001:", 1_000, NO_CPU),
    (b"2026-11-22T18:18:01.123456Z ", 1_795_371_481_123_456_000, NO_CPU),
    (b"2026-11-22T18:18:01Z ", 1_795_371_481_000_000_000, NO_CPU),
    (b"2024-02-29T23:59:60.5Z ", 1_709_251_200_500_000_000, NO_CPU),
    (b"1970-01-01T00:00:00.000000Z ", 0, NO_CPU),
    (b"           <...>-1234    [003] d..1.    12.345678: ", 12_345_678_000, 3),
    (b"       CPU 0/KVM-1234    [127] dNh1. 12.345678: ", 12_345_678_000, 127),
    (b"       CPU 0/KVM-1234  (  99) [001] .... 12.345678: ", 12_345_678_000, 1),
    (b"  qemu-system-x86-7    [000] 161.369088: ", 161_369_088_000, 0),
    (b"  qemu-7    [000] 161.369088123: ", 161_369_088_123, 0),
    (b"  qemu-7    [000] ....... 98765: ", 98_765, 0),
    (b"   CPU 0/KVM 1821753 [015] 4831258.258053:         kvm:", 4_831_258_258_053_000, 15),
    (b"   CPU 0/KVM 1821753 4831258.258053: kvm:", 4_831_258_258_053_000, NO_CPU),
    (b"   CPU 0/KVM 5/6 [4095] 1.000000001: kvm:", 1_000_000_001, 4095),
    (b"  q-7 [002] ..... 1.5: tracing_mark_write: ", 1_500_000_000, 2),
    (b"a [9] b-7 [002] d.h2. 1.5: ", 1_500_000_000, 2),
    (b"Nov 22 18:18:01 host qemu[123]: ", NO_TIME, NO_CPU),
    (b"18:18:01: ", NO_TIME, NO_CPU),
    (b"2026-13-22T18:18:01Z ", NO_TIME, NO_CPU),
    (b"2026-11-22T18:18:01.1234567890Z ", NO_TIME, NO_CPU),
    (b"2026-11-22T18:18:1Z ", NO_TIME, NO_CPU),
    (b"1@1.1.1:", NO_TIME, NO_CPU),
    (b"q-7 [002] ..... 1.: ", NO_TIME, NO_CPU),
    (b"q-7 [002] ..... 99999999999999999999.5: ", NO_TIME, NO_CPU),
    (b"q-7 [002] ..... 9999999999.5: ", NO_TIME, NO_CPU),
]


@pytest.mark.parametrize(("prefix", "time", "cpu"), STAMPS)
def test_prefixes(prefix: bytes, time: int, cpu: int) -> None:
    before, after = b"a line of something else\n", b"\nanother\n"
    qemu = prefix + b"kvm_convert_memory start 0x1000 size 0x2000 private_to_shared"
    kernel = prefix + b"kvm_hypercall: nr 0xc a0 0x1000 a1 0x2 a2 0x0 a3 0x0"
    for line, origin in ((qemu, Origin.KVM_CONVERT_MEMORY), (kernel, Origin.KVM_HYPERCALL)):
        row = (1, 2, 1, time, cpu, origin)
        assert traces.parse(line).events.tolist() == [(*row, 1)]
        assert traces.parse(before + line + after).events.tolist() == [(*row, 2)]


def test_rows_of_many_kinds_are_in_the_order_of_their_lines() -> None:
    batch = traces.parse(
        b"kvm_vmgexit_msr_protocol_enter: vcpu 0, ghcb_gpa 0020000000007014\n"
        b"kvm_convert_memory start 0x7000 size 0x1000 shared_to_private\n"
        b"kvm_hypercall: nr 0xc a0 0x7000 a1 0x1 a2 0x0 a3 0x0\n"
        b"kvm_memory_fault start 0x8000 size 0x1000 flags 0x0\n"
    )
    assert batch.events["line"].tolist() == [1, 2, 3, 4]
    assert batch.events["shared"].tolist() == [1, 0, 1, 1]
    pages = SharedPages()
    assert pages.apply(batch.events[["start", "npages", "shared"]]) == 4
    assert pages.get_list().tolist() == [[7, 9]]


def test_ends_of_lines() -> None:
    line = b"kvm_convert_memory start 0x1000 size 0x2000 private_to_shared"
    for end in (b"", b"\n", b"\r\n", b" \n", b"\t \r\n", b"\n\n"):
        assert traces.parse(line + end).events[["start", "npages", "shared"]].tolist() == [
            (1, 2, 1)
        ]


MALFORMED: list[tuple[bytes, int, str]] = [
    (b"kvm_convert_memory start 0x1000 size 0x2000 private_to_sha", 44, "message to be one of"),
    (b"kvm_convert_memory start 0x1000 size 0x2000", 43, "' '"),
    (b"kvm_convert_memory start 0x", 27, "hexadecimal number for start"),
    (b"kvm_convert_memory st", 19, "'start 0x'"),
    (b"kvm_convert_memory start 0x10000000000000000 size 0x1000 private_to_shared", 27, "2^64"),
    (b"kvm_convert_memory start 0x1000 size 0x2000 private_to_shared!", 61, "end of the line"),
    (b"kvm_convert_memory start 0x1000 size 0x2000 private_to_shared\r\r", 62, "end of the line"),
    (b"kvm_convert_memory start 0x1\x000 size 0x2000 private_to_shared", 28, "' size 0x'"),
    (b"kvm_memory_fault start 0x1000 size 0x1000 flags 0xg", 50, "flags"),
    (b"kvm_hc_map_gpa_range gpa 0x1000 size 0x1000 attributes 0x0", 58, "' flags 0x'"),
    (b"kvm_hypercall:", 14, "'nr 0x'"),
    (b"kvm_hypercall: nr 0xc a0 0x5000 a1 0x2 a2 0x0", 45, "' a3 0x'"),
    (b"kvm_hypercall: nr 0xc a0 -1 a1 0x2 a2 0x0 a3 0x0", 21, "' a0 0x'"),
    (b"kvm_hypercall: nr 0xc a0 0x\xff a1 0x2 a2 0x0 a3 0x0", 27, "a0"),
    (b"kvm_msr: msr_write 1c0010130 = 0x0", 19, "msr below 2^32"),
    (b"kvm_msr: msr_write c0010130 = 0x0 (#UD)", 34, "end of the line"),
    (b"kvm_vmgexit_msr_protocol_enter: vcpu 0, ghcb_gpa 20000000007014", 49, "16 digits"),
    (b"kvm_vmgexit_msr_protocol_enter: vcpu 4294967296, ghcb_gpa 0", 37, "vcpu below 2^32"),
    (
        b"kvm_dirty_ring_push: ring 0: dirty 0x0 reset 0x0 slot 99999999999999999999 offset 0x0",
        54,
        "slot below 2^32",
    ),
    (
        b"kvm_dirty_ring_push: ring 0: dirty 0x0 reset 0x0 slot 0 offset 0x0 (used 0",
        74,
        "')'",
    ),
    (
        b"ram_block_attributes_state_change offset 0x0 size 0x1000 from 'lost' to 'populated'",
        63,
        "before to be one of 'discarded', 'populated', 'mixture'",
    ),
]


@pytest.mark.parametrize(("line", "column", "expected"), MALFORMED)
def test_malformed_lines_are_named(line: bytes, column: int, expected: str) -> None:
    good = b"kvm_convert_memory start 0x1000 size 0x2000 private_to_shared\n"
    for prefix in (b"", b"1@2.000003:", b"q-7 [001] .... 1.5: "):
        with pytest.raises(traces.TraceError) as caught:
            traces.parse(good + prefix + line + b"\n" + good)
        error = caught.value
        assert (error.line, error.offset) == (2, len(good) + len(prefix) + column)
        assert f"line 2, byte {error.offset}: " in str(error)
        assert expected in str(error)
        reader = traces.TraceReader(malformed="skip")
        rows = reader.feed(good + prefix + line + b"\n" + good)
        assert rows.events["line"].tolist() == [1, 3]
        assert (reader.lines, reader.malformed) == (3, 1)
        assert [str(each) for each in reader.errors] == [str(error)]


@pytest.mark.parametrize(
    "line",
    [
        b"kvm_convert_memory start 4096 size 1 private_to_shared",
        b"kvm_convert_memory: start 0x1000 size 0x1000 private_to_shared",
        b"kvm_hypercall nr 0xc a0 0x5000 a1 0x2 a2 0x0 a3 0x0",
        b"kvm_hypercall: disabled",
        b"event kvm_msr",
        b"kvm_dirty_ring_push:\tdropped 7 events",
        b"=kvm_memory_fault start 0x1000",
        b"\x00kvm_memory_fault start 0x1000",
        b"kvm_memory_fault" + b" " * 1000 + b"start 0x1000",
        b"kvm_memory_faul",
        b"\xff\xfe\x00\x01" * 1000,
        b"\x00" * 5000,
    ],
)
def test_mentions_and_junk_are_passed_over(line: bytes) -> None:
    reader = traces.TraceReader(malformed="skip")
    batch = traces.Batch.joined([reader.feed(line), reader.finish()])
    assert [len(rows) for rows in batch] == [0, 0, 0, 0, 0]
    assert (reader.lines, reader.malformed) == (1, 0)


def test_the_first_malformed_line_is_the_one_raised() -> None:
    lines = b"kvm_msr: msr_write x\nkvm_convert_memory start 0x\n"
    for text, event in ((lines, "kvm_msr"), (b"kvm_convert_memory s\n" + lines, "kvm_convert")):
        with pytest.raises(traces.TraceError, match=rf"line 1, byte \d+: {event}"):
            traces.parse(text)


def test_an_error_leaves_the_reader_as_it_was() -> None:
    good = b"kvm_memory_fault start 0x1000 size 0x1000 flags 0x8\n"
    reader = traces.TraceReader()
    reader.feed(good + good[:30])
    with pytest.raises(traces.TraceError, match="line 2, byte 81: "):
        reader.feed(b"!" + good)
    assert (reader.lines, reader.malformed) == (1, 0)
    assert reader.feed(good[30:]).events["line"].tolist() == [2]


@pytest.mark.parametrize("cut", [1, 7, 64, 1000])
def test_lines_cut_anywhere(cut: int) -> None:
    text = b"".join(
        b"4711@1700000000.%06d:kvm_memory_fault start 0x%x000 size 0x1000 flags 0x8\r\n" % (i, i)
        for i in range(100)
    )
    reader = traces.TraceReader()
    rows = [row for at in range(0, len(text), cut) for row in reader.feed(text[at : at + cut])[0]]
    assert [(int(row["start"]), int(row["line"])) for row in rows] == [
        (i, i + 1) for i in range(100)
    ]
    assert len(reader.finish().events) == 0
    assert reader.lines == 100


def test_a_file_is_read_in_batches() -> None:
    line = b"kvm_memory_fault start 0x1000 size 0x1000 flags 0x8\n"
    batches = list(traces.read(io.BytesIO(line * 100_000 + line[:-1])))
    assert len(batches) > 2
    assert sum(len(batch.events) for batch in batches) == 100_001
    assert batches[-1].events["line"].tolist() == [100_001]
    file = io.BytesIO(b"kvm_msr: msr_write x\n" + line)
    with pytest.raises(traces.TraceError, match="line 1, byte 19"):
        next(traces.read(file))
    assert [len(batch.events) for batch in traces.read(io.BytesIO(b""))] == [0]


def test_a_line_longer_than_the_longest_is_no_event() -> None:
    event = b"kvm_memory_fault start 0x1000 size 0x1000 flags 0x8"
    fill = b"x" * (traces.LONGEST_LINE - len(event) - 1) + b" "
    assert len(fill + event) == traces.LONGEST_LINE
    for size in (len(fill + event) + 2, 4096):
        for extra, found in ((b"", [1, 2]), (b"y", [2])):
            text = extra + fill + event + b"\n" + event
            reader = traces.TraceReader()
            pieces = [reader.feed(text[at : at + size]) for at in range(0, len(text), size)]
            batch = traces.Batch.joined([*pieces, reader.finish()])
            assert batch.events["line"].tolist() == found, (size, extra)
            assert reader.lines == 2


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="not 'ignore'"):
        traces.TraceReader(malformed="ignore")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        traces.parse("kvm_msr: ")  # type: ignore[arg-type]

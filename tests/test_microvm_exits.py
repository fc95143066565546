# tier: unit
"""What MicroVM makes of a vCPU's exits, and what it answers: KVM is a table of kvm_run pages.

Real guests run in tests/real; here are exits that few hosts let a guest make.
"""

from __future__ import annotations

import errno
import mmap
import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from abi_support import spelt

from pysharedpages import FormatError, SharedPages, SharedPagesError
from pysharedpages.abi.kvm import numbers
from pysharedpages.sources import kvm_calls
from pysharedpages.testing import MicroVM, machine, vcpu

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="vCPUs are threads of Linux")

RUN_BYTES = 12288
HALT = {8: "05000000"}
NPAGES = 0x20000

Fields = dict[int, str]


class Kernel:
    """A KVM with one vCPU, whose exits are `exits`: an errno, and bytes of the kvm_run page."""

    def __init__(self) -> None:
        self.exits: list[tuple[int, Fields]] = []
        self.pages: list[bytes] = []
        self.calls: list[tuple[int, bytes]] = []
        self.capabilities = dict.fromkeys(range(300), 1)
        self.run = os.memfd_create("run")
        os.truncate(self.run, RUN_BYTES)
        self.page = mmap.mmap(self.run, RUN_BYTES)

    def __call__(self, fd: int, request: int, argument: Any = 0) -> int:
        if request == numbers.KVM_GET_API_VERSION:
            return 12
        if request == numbers.KVM_CHECK_EXTENSION:
            return self.capabilities[argument]
        if request == numbers.KVM_GET_VCPU_MMAP_SIZE:
            return RUN_BYTES
        if request in (numbers.KVM_CREATE_VM, numbers.KVM_CREATE_VCPU):
            return os.dup(self.run)
        if request == numbers.KVM_RUN:
            return self.leave()
        if isinstance(argument, bytes):
            self.calls.append((request, argument))
        return 0

    def leave(self) -> int:
        """One KVM_RUN: what the last exit was answered is kept, and the next one written."""
        self.pages.append(self.page[:])
        failed, fields = self.exits.pop(0) if self.exits else (0, HALT)
        self.page[:104] = bytes(104)
        for offset, text in fields.items():
            self.page[offset : offset + len(spelt(text))] = spelt(text)
        if failed:
            raise OSError(failed, f"KVM_RUN: {os.strerror(failed)}")
        return 0


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    kernel = Kernel()
    monkeypatch.setattr(machine, "KVM", "/dev/null")
    monkeypatch.setattr(machine, "_missing", lambda: None)
    for module in (machine, vcpu, kvm_calls):
        monkeypatch.setattr(module, "call", kernel)
    yield kernel
    os.close(kernel.run)


def run(kernel: Kernel, *exits: Fields, failed: int = 0, bound: int = NPAGES) -> list[list[int]]:
    """Let a guest leave so and halt; the pages shared then. `kernel.pages[1:]` are the answers."""
    kernel.exits = [(failed, fields) for fields in exits]
    with SharedPages(bound) as pages:
        kernel.pages.clear()
        with MicroVM(NPAGES, [[]], pages=pages, dirty=None) as guest:
            guest.start()
            try:
                assert guest.wait_until_still(60)
            finally:
                shared: list[list[int]] = pages.get_list().tolist()
        return shared


def wrmsr(value: str, index: str = "f04d564b") -> Fields:
    return {8: "1e000000", 40: "04000000", 44: index, 48: value}


def hypercall(gpa: str, npages: str, attributes: str, number: str = "0c") -> Fields:
    return {8: "03000000", 32: number, 40: gpa, 48: npages, 56: attributes, 88: "ffffffffffffffff"}


def fault(flags: str, gpa: str, size: str) -> Fields:
    return {8: "27000000", 32: flags, 40: gpa, 48: size}


def test_a_write_to_the_msr_converts_before_the_guest_goes_on(kernel: Kernel) -> None:
    seen: list[tuple[int, int, bool, list[list[int]]]] = []

    def look(_: vcpu.Vcpu, gfn: int, npages: int, shared: bool) -> None:
        seen.append((gfn, npages, shared, pages.get_list().tolist()))

    kernel.exits = [(0, wrmsr("1450341200002000")), (0, wrmsr("1450341200001000"))]
    with (
        SharedPages(NPAGES) as pages,
        MicroVM(NPAGES, [[]], pages=pages, dirty=None, on_conversion=look) as guest,
    ):
        guest.start()
        assert guest.wait_until_still(60)
    assert seen == [(0x12345, 1, True, [[0x12345, 0x12346]]), (0x12345, 1, False, [])]
    assert [page[32] for page in kernel.pages[1:]] == [0, 0]


@pytest.mark.parametrize(
    "value",
    [
        "1450341200003000",  # operation 3
        "1450341200000000",  # operation 0
        "1450341200002001",  # bit 56
        "1550341200002000",  # a response
        "0000000000000000",
        "1400002000002000",  # gfn 0x20000, the first that the tracker does not have
        "14f0ffffffff2f00",  # the last of 40 bits
    ],
)
def test_a_write_that_asks_for_nothing_good_is_the_guest_s_fault(
    kernel: Kernel, value: str
) -> None:
    assert run(kernel, wrmsr(value)) == []
    assert kernel.pages[1][32] == 1


@pytest.mark.parametrize(
    ("value", "allowed", "error"),
    [("01", True, 0), ("00", False, 0), ("03", None, 1), ("0000000000000080", None, 1)],
)
def test_a_guest_says_whether_it_may_be_migrated(
    kernel: Kernel, value: str, allowed: bool | None, error: int
) -> None:
    kernel.exits = [(0, wrmsr(value, "084d564b"))]
    with (
        SharedPages(NPAGES) as pages,
        MicroVM(NPAGES, [[]], pages=pages, dirty=None) as guest,
    ):
        guest.start()
        assert guest.wait_until_still(60)
        assert pages.migration_allowed is allowed
    assert kernel.pages[1][32] == error


@pytest.mark.parametrize(
    ("gpa", "npages", "attributes", "shared", "answer"),
    [
        ("0010000000000000", "0300000000000000", "00", [[1, 4]], "0000000000000000"),
        ("0010000000000000", "0300000000000000", "01", [[1, 4]], "0000000000000000"),
        ("0010000000000000", "0300000000000000", "10", [], "0000000000000000"),
        ("0000000000000000", "0000020000000000", "00", [[0, 0x20000]], "0000000000000000"),
        ("0000000000000000", "0100020000000000", "00", [], "eaffffffffffffff"),
        ("0110000000000000", "0300000000000000", "00", [], "eaffffffffffffff"),
        ("0010000000000000", "0000000000000000", "00", [], "eaffffffffffffff"),
        ("0010000000000000", "0300000000000000", "20", [], "eaffffffffffffff"),
        ("00f0ffffffffffff", "0200000000000000", "00", [], "eaffffffffffffff"),
    ],
)
def test_a_hypercall_is_answered(
    kernel: Kernel, gpa: str, npages: str, attributes: str, shared: list[list[int]], answer: str
) -> None:
    assert run(kernel, hypercall(gpa, npages, attributes)) == shared
    assert kernel.pages[1][88:96] == spelt(answer)


def test_a_memory_fault_converts_and_tells_kvm(kernel: Kernel) -> None:
    there = fault("0000000000000000", "0050341200000000", "0020000000000000")
    back = fault("0800000000000000", "0060341200000000", "0010000000000000")
    assert run(kernel, there, back, failed=errno.EFAULT) == [[0x12345, 0x12346]]
    told = [argument for request, argument in kernel.calls if request == 0x4020AED2]
    assert told == [
        spelt("0050341200000000_0020000000000000_0000000000000000_0000000000000000"),
        spelt("0060341200000000_0010000000000000_0800000000000000_0000000000000000"),
    ]


def test_a_memory_fault_of_a_vm_without_attributes_is_no_conversion(kernel: Kernel) -> None:
    kernel.capabilities[numbers.KVM_CAP_MEMORY_ATTRIBUTES] = 0
    gone = fault("0000000000000000", "0050341200000000", "0010000000000000")
    with pytest.raises(SharedPagesError, match="0x12345000 for shared: this VM's pages"):
        run(kernel, gone, failed=errno.EFAULT)
    assert [request for request, _ in kernel.calls if request == 0x4020AED2] == []


def test_a_memory_fault_beyond_the_tracker_ends_the_vcpu(kernel: Kernel) -> None:
    beyond = fault("0800000000000000", "0000002000000000", "0010000000000000")
    with pytest.raises(SharedPagesError, match="for private: the tracker has no such pages"):
        run(kernel, beyond, failed=errno.EFAULT)
    assert [request for request, _ in kernel.calls if request == 0x4020AED2] == []


@pytest.mark.parametrize(
    ("fields", "failed", "message"),
    [
        (wrmsr("1450341200002000", "094d564b"), 0, "vCPU 0 wrote MSR 0x4b564d09"),
        ({8: "1d000000", 40: "04000000"}, 0, "left the guest for MsrRead"),
        (hypercall("00", "00", "00", "0a"), 0, "left the guest for Hypercall"),
        ({8: "08000000"}, 0, "vCPU 0 shut down: its guest took a triple fault"),
        ({8: "11000000"}, 0, "KVM_EXIT 17"),
        ({8: "06000000"}, 0, "KVM_EXIT 6"),
        ({8: "1f000000"}, 0, "the dirty ring of vCPU 0 is full: no source yet"),
        ({8: "02000000", 32: "01040099010000000010"}, 0, "wrote port 0x9900"),
        ({8: "02000000", 32: "00041000010000000010"}, 0, "read port 0x10"),
        (HALT, errno.EFAULT, "vCPU 0: KVM_RUN: Bad address"),
        (HALT, errno.EINVAL, "vCPU 0: KVM_RUN: Invalid argument"),
    ],
)
def test_exits_that_no_step_asks_for_end_the_vcpu(
    kernel: Kernel, fields: Fields, failed: int, message: str
) -> None:
    with pytest.raises(SharedPagesError, match=message):
        run(kernel, fields, failed=failed)


def test_a_page_that_makes_no_sense_is_a_format_error(kernel: Kernel) -> None:
    with pytest.raises(FormatError) as raised:
        run(kernel, {8: "1e000000", 40: "80000000"})
    assert raised.value.offset == 40


def test_what_is_set_up_before_the_first_instruction(kernel: Kernel) -> None:
    run(kernel)
    sent: dict[int, list[bytes]] = {}
    for request, argument in kernel.calls:
        sent.setdefault(request, []).append(argument)
    capabilities = [argument[:16] for argument in sent[0x4068AEA3]]
    assert capabilities == [spelt("bc000000_00000000_0400000000000000")]
    (msrs,) = sent[0x4188AEC6]
    assert msrs[:24] == spelt("00000000_00000000_02000000_40000000_f04d564b_00000000")
    assert msrs[32:48] == spelt("02000000_01000000_084d564b_00000000")
    assert not any(msrs[56:])
    memory, firmware = sent[0x4020AE46]
    assert memory[:24] == spelt("00000000_00000000_0000000000000000_0000002000000000")
    assert firmware[:16] == spelt("01000000_00000000_0000004000000000")


def test_a_hypercall_is_asked_for_where_kvm_hands_it_out(kernel: Kernel) -> None:
    kernel.capabilities[numbers.KVM_CAP_EXIT_HYPERCALL] = 0x1001
    run(kernel)
    capabilities = [argument[:16] for request, argument in kernel.calls if request == 0x4068AEA3]
    assert spelt("c9000000_00000000_0010000000000000") in capabilities


def test_descriptors_are_closed_where_a_vcpu_cannot_be_mapped(kernel: Kernel) -> None:
    os.close(kernel.run)
    kernel.run = os.open("/dev/null", os.O_RDWR)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(SharedPagesError, match="cannot run this guest"):
        MicroVM(NPAGES, [[]], dirty=None)
    assert len(os.listdir("/proc/self/fd")) == before

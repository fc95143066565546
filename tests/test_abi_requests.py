# tier: unit
"""One page made shared and then private, by every platform: the requests all look alike."""

from __future__ import annotations

import pytest
from abi_support import PRIVATE, SHARED, page, rows, spelt

from pysharedpages import SharedPages
from pysharedpages.abi import Request, cca, kvm, pkvm, sev, snp, tdx


def exit_of(attributes: str) -> Request:
    """The hypercall's exit for gfn 0x12345."""
    fields = {8: "03", 32: "0c", 40: "00503412", 48: "01", 56: attributes}
    call = kvm.decode_exit(page(2352, fields))
    assert isinstance(call, kvm.MapGpaRange)
    return call


def fault_of(flags: str) -> Request:
    """A memory fault at gfn 0x12345."""
    fault = kvm.decode_exit(page(2352, {8: "27", 32: flags, 40: "00503412", 48: "0010"}), 14)
    assert isinstance(fault, kvm.MemoryFault)
    return fault


# How gfn 0x12345 becomes shared, and private again.
REQUESTS: dict[str, tuple[Request, Request]] = {
    "kvm hypercall": (exit_of("00"), exit_of("10")),
    "kvm fault": (fault_of("00"), fault_of("08")),
    "kvm attributes": (
        kvm.MemoryAttributes(0x12345000, 0x1000, 0),
        kvm.MemoryAttributes(0x12345000, 0x1000, 8),
    ),
    "sev": (
        sev.decode_hypercall(12, 0x12345000, 1, 0),
        sev.decode_hypercall(12, 0x12345000, 1, 0x10),
    ),
    "sev page_enc_status": (
        sev.decode_page_enc_status(12, 0x12345000, 1, 0),
        sev.decode_page_enc_status(12, 0x12345000, 1, 1),
    ),
    "snp msr": (snp.decode_msr(0x0020000012345014), snp.decode_msr(0x0010000012345014)),
    "snp buffer": (
        snp.decode_page_state_change(spelt("0000_0000_00000000 0050341200002000")),
        snp.decode_page_state_change(spelt("0000_0000_00000000 0050341200001000")),
    ),
    "tdx": (
        tdx.decode_map_gpa(0, 0x10001, 0x800012345000, 0x1000),
        tdx.decode_map_gpa(0, 0x10001, 0x12345000, 0x1000),
    ),
    "pkvm": (
        pkvm.decode_hvc(0xC6000003, 0x12345000, 0, 0),
        pkvm.decode_hvc(0xC6000004, 0x12345000, 0, 0),
    ),
    "cca": (
        cca.decode_ipa_state_set(0xC4000197, 0x12345000, 0x12346000, 0, 1),
        cca.decode_ipa_state_set(0xC4000197, 0x12345000, 0x12346000, 1, 0),
    ),
}


@pytest.mark.parametrize("platform", REQUESTS)
def test_there_and_back(platform: str) -> None:
    share, unshare = REQUESTS[platform]
    assert (share.status, rows(share.events)) == (0, [(0x12345, 1, SHARED)])
    assert (unshare.status, rows(unshare.events)) == (0, [(0x12345, 1, PRIVATE)])
    with SharedPages() as pages:
        assert pages.apply(share.events) == 1
        assert pages.get_list().tolist() == [[0x12345, 0x12346]]
        assert pages.apply(unshare.events) == 1
        assert len(pages) == 0


def test_only_tdx_is_not_trusted() -> None:
    hints = {name for name, (share, _) in REQUESTS.items() if not getattr(share, "trusted", True)}
    assert hints == {"tdx"}

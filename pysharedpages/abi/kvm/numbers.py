"""KVM's numbers: ioctls, capabilities, exit reasons, flags and the layout of a kvm_run page.

Floor: abi. Named as in the kernel. Offsets and sizes are those of x86-64; the ioctl numbers and
structures that they carry are the same on arm64.

Source: include/uapi/linux/kvm.h, arch/x86/include/uapi/asm/kvm.h, include/uapi/linux/kvm_para.h
and arch/x86/include/uapi/asm/kvm_para.h; `tests/test_abi_header.py` compiles them against the
host's own. What came after Linux 6.1 was read in the kernel's tree.
"""

from __future__ import annotations

from typing import Final

KVM_API_VERSION: Final = 12

KVM_GET_API_VERSION: Final = 0xAE00
KVM_CREATE_VM: Final = 0xAE01
KVM_CHECK_EXTENSION: Final = 0xAE03
KVM_GET_VCPU_MMAP_SIZE: Final = 0xAE04
KVM_GET_SUPPORTED_CPUID: Final = 0xC008AE05
KVM_CREATE_VCPU: Final = 0xAE41
KVM_GET_DIRTY_LOG: Final = 0x4010AE42
KVM_SET_USER_MEMORY_REGION: Final = 0x4020AE46
KVM_SET_USER_MEMORY_REGION2: Final = 0x40A0AE49
KVM_RUN: Final = 0xAE80
KVM_GET_REGS: Final = 0x8090AE81
KVM_SET_REGS: Final = 0x4090AE82
KVM_GET_SREGS: Final = 0x8138AE83
KVM_SET_SREGS: Final = 0x4138AE84
KVM_SET_SIGNAL_MASK: Final = 0x4004AE8B
KVM_SET_CPUID2: Final = 0x4008AE90
KVM_ENABLE_CAP: Final = 0x4068AEA3
KVM_CLEAR_DIRTY_LOG: Final = 0xC018AEC0
KVM_X86_SET_MSR_FILTER: Final = 0x4188AEC6
KVM_RESET_DIRTY_RINGS: Final = 0xAEC7
KVM_SET_MEMORY_ATTRIBUTES: Final = 0x4020AED2
KVM_CREATE_GUEST_MEMFD: Final = 0xC040AED4

KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2: Final = 168
KVM_CAP_X86_USER_SPACE_MSR: Final = 188
KVM_CAP_X86_MSR_FILTER: Final = 189
KVM_CAP_DIRTY_LOG_RING: Final = 192
KVM_CAP_EXIT_HYPERCALL: Final = 201
KVM_CAP_DIRTY_LOG_RING_ACQ_REL: Final = 223
KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP: Final = 225
KVM_CAP_MEMORY_FAULT_INFO: Final = 232
KVM_CAP_MEMORY_ATTRIBUTES: Final = 233
KVM_CAP_GUEST_MEMFD: Final = 234

KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE: Final = 1 << 0
KVM_DIRTY_LOG_INITIALLY_SET: Final = 1 << 1

KVM_EXIT_IO: Final = 2
KVM_EXIT_HYPERCALL: Final = 3
KVM_EXIT_HLT: Final = 5
KVM_EXIT_SHUTDOWN: Final = 8
KVM_EXIT_INTR: Final = 10
KVM_EXIT_X86_RDMSR: Final = 29
KVM_EXIT_X86_WRMSR: Final = 30
KVM_EXIT_DIRTY_RING_FULL: Final = 31
KVM_EXIT_MEMORY_FAULT: Final = 39

KVM_EXIT_IO_IN: Final = 0
KVM_EXIT_IO_OUT: Final = 1

KVM_MEMORY_EXIT_FLAG_PRIVATE: Final = 1 << 3
KVM_MEMORY_ATTRIBUTE_PRIVATE: Final = 1 << 3

KVM_HC_MAP_GPA_RANGE: Final = 12
KVM_MAP_GPA_RANGE_PAGE_SZ_4K: Final = 0
KVM_MAP_GPA_RANGE_PAGE_SZ_2M: Final = 1 << 0
KVM_MAP_GPA_RANGE_PAGE_SZ_1G: Final = 1 << 1
KVM_MAP_GPA_RANGE_ENCRYPTED: Final = 1 << 4
KVM_MAP_GPA_RANGE_DECRYPTED: Final = 0 << 4

KVM_EXIT_HYPERCALL_VALID_MASK: Final = 1 << KVM_HC_MAP_GPA_RANGE
"""The hypercalls that the kernel can hand to userspace (arch/x86/include/asm/kvm_host.h)."""

KVM_MSR_EXIT_REASON_INVAL: Final = 1 << 0
KVM_MSR_EXIT_REASON_UNKNOWN: Final = 1 << 1
KVM_MSR_EXIT_REASON_FILTER: Final = 1 << 2

KVM_MSR_FILTER_READ: Final = 1 << 0
KVM_MSR_FILTER_WRITE: Final = 1 << 1
KVM_MSR_FILTER_DEFAULT_ALLOW: Final = 0
KVM_MSR_FILTER_DEFAULT_DENY: Final = 1 << 0
KVM_MSR_FILTER_MAX_RANGES: Final = 16
KVM_MSR_FILTER_MAX_BITMAP_SIZE: Final = 0x600
"""Bytes of one range's bitmap (arch/x86/include/uapi/asm/kvm.h): 12,288 MSRs."""

KVM_MEM_LOG_DIRTY_PAGES: Final = 1 << 0
KVM_MEM_READONLY: Final = 1 << 1
KVM_MEM_GUEST_MEMFD: Final = 1 << 2
KVM_MEM_MAX_NR_PAGES: Final = (1 << 31) - 1
"""Pages of one slot (include/linux/kvm_host.h)."""

KVM_DIRTY_GFN_F_DIRTY: Final = 1 << 0
KVM_DIRTY_GFN_F_RESET: Final = 1 << 1
KVM_DIRTY_GFN_F_MASK: Final = 3
KVM_DIRTY_LOG_PAGE_OFFSET: Final = 64
"""Pages into a vCPU's mapping where its dirty ring starts, on x86."""

MSR_KVM_MIGRATION_CONTROL: Final = 0x4B564D08
KVM_MIGRATION_READY: Final = 1 << 0

EINVAL: Final = 22
EAGAIN: Final = 11
EFAULT: Final = 14
EHWPOISON: Final = 133
KVM_ENOSYS: Final = 1000

RUN_IMMEDIATE_EXIT: Final = 1
RUN_EXIT_REASON: Final = 8
RUN_EXIT: Final = 32
"""Where the union of a kvm_run page starts, of which every exit has a member."""

RUN_HYPERCALL_RET: Final = 88
RUN_HYPERCALL_FLAGS: Final = 96
RUN_MSR_ERROR: Final = 32
RUN_MSR_DATA: Final = 48
RUN_READ_BYTES: Final = 104
"""The part of a kvm_run page that is read: it ends with hypercall.flags. The data of a port access
lies where the page says."""

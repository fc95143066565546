# tier: promise
"""The host's own <linux/kvm.h> agrees with every number, size and offset that it knows.

A small C program, compiled here, prints what the header says. What the header is too old to know is
left out by the preprocessor, and counted in the skip at the end.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pysharedpages import RING_DTYPE
from pysharedpages.abi import attributes, kvm, snp
from pysharedpages.abi.kvm import numbers

MACROS = sorted(
    name
    for name in vars(numbers)
    if name.startswith(("KVM_", "MSR_"))
    and name not in {"KVM_EXIT_HYPERCALL_VALID_MASK", "KVM_MEM_MAX_NR_PAGES"}
)
# Structures, the macro that came with them, their size here, and the offsets of their fields.
STRUCTURES: dict[str, tuple[str, int, dict[str, int]]] = {
    "kvm_dirty_log": (
        "KVM_GET_DIRTY_LOG",
        len(kvm.GetDirtyLog(0, 0).encode()),
        {"slot": 0, "padding1": 4, "dirty_bitmap": 8},
    ),
    "kvm_clear_dirty_log": (
        "KVM_CLEAR_DIRTY_LOG",
        len(kvm.ClearDirtyLog(0, 0, 0, 0).encode()),
        {"slot": 0, "num_pages": 4, "first_page": 8, "dirty_bitmap": 16},
    ),
    "kvm_dirty_gfn": (
        "KVM_DIRTY_GFN_F_MASK",
        RING_DTYPE.itemsize,
        {name: RING_DTYPE.fields[name][1] for name in ("flags", "slot", "offset")},  # type: ignore[index]
    ),
    "kvm_userspace_memory_region": (
        "KVM_SET_USER_MEMORY_REGION",
        len(kvm.MemorySlot(0, 0, 0, 0, 0).encode()),
        {"slot": 0, "flags": 4, "guest_phys_addr": 8, "memory_size": 16, "userspace_addr": 24},
    ),
    "kvm_userspace_memory_region2": (
        "KVM_SET_USER_MEMORY_REGION2",
        len(kvm.MemorySlot(0, 0, 0, 0, 0, 0, 0).encode()),
        {"userspace_addr": 24, "guest_memfd_offset": 32, "guest_memfd": 40, "pad2": 48},
    ),
    "kvm_memory_attributes": (
        "KVM_SET_MEMORY_ATTRIBUTES",
        attributes.ATTRIBUTES_DTYPE.itemsize,
        {
            name: attributes.ATTRIBUTES_DTYPE.fields[name][1]  # type: ignore[index]
            for name in ("address", "size", "attributes", "flags")
        },
    ),
    "kvm_enable_cap": (
        "KVM_ENABLE_CAP",
        len(kvm.enable_exit_hypercall()),
        {"cap": 0, "flags": 4, "args": 8},
    ),
    "kvm_msr_filter": (
        "KVM_X86_SET_MSR_FILTER",
        len(kvm.MsrFilter().encode()),
        {"flags": 0, "ranges": 8},
    ),
    "kvm_msr_filter_range": (
        "KVM_X86_SET_MSR_FILTER",
        24,
        {"flags": 0, "nmsrs": 4, "base": 8, "bitmap": 16},
    ),
    "kvm_run": (
        "KVM_EXIT_HYPERCALL",
        2352,
        {
            "immediate_exit": numbers.RUN_IMMEDIATE_EXIT,
            "exit_reason": numbers.RUN_EXIT_REASON,
            "io.direction": numbers.RUN_EXIT,
            "io.size": numbers.RUN_EXIT + 1,
            "io.port": numbers.RUN_EXIT + 2,
            "io.count": numbers.RUN_EXIT + 4,
            "io.data_offset": numbers.RUN_EXIT + 8,
            "hypercall.nr": numbers.RUN_EXIT,
            "hypercall.args": numbers.RUN_EXIT + 8,
            "hypercall.ret": numbers.RUN_HYPERCALL_RET,
            "hypercall.longmode": numbers.RUN_HYPERCALL_FLAGS,
            "msr.error": numbers.RUN_MSR_ERROR,
            "msr.reason": numbers.RUN_EXIT + 8,
            "msr.index": numbers.RUN_EXIT + 12,
            "msr.data": numbers.RUN_MSR_DATA,
        },
    ),
}
# What came with Linux 6.2 (the capability of rings) to 6.8.
LATER = {
    "KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP",
    "KVM_CAP_GUEST_MEMFD",
    "KVM_CAP_MEMORY_ATTRIBUTES",
    "KVM_CAP_MEMORY_FAULT_INFO",
    "KVM_CREATE_GUEST_MEMFD",
    "KVM_EXIT_MEMORY_FAULT",
    "KVM_MEMORY_ATTRIBUTE_PRIVATE",
    "KVM_MEMORY_EXIT_FLAG_PRIVATE",
    "KVM_MEM_GUEST_MEMFD",
    "KVM_SET_MEMORY_ATTRIBUTES",
    "KVM_SET_USER_MEMORY_REGION2",
    "kvm_memory_attributes",
    "kvm_userspace_memory_region2",
}
FAULT = {"memory_fault.flags": 32, "memory_fault.gpa": 40, "memory_fault.size": 48}


def program() -> str:
    """A C program that prints `name value` for all that the header knows."""
    known = [(name, f"{name}") for name in MACROS]
    known += [("SVM_VMGEXIT_PSC", "SVM_VMGEXIT_PSC")]
    lines = [f"#ifdef {name}\nsay({name}, {value});\n#endif" for name, value in known]
    for structure, (macro, _, fields) in STRUCTURES.items():
        values = {f"sizeof.{structure}": f"sizeof(struct {structure})"} | {
            f"{structure}.{field}": f"offsetof(struct {structure}, {field})" for field in fields
        }
        lines += [f"#ifdef {macro}"]
        lines += [f"say({name}, {value});" for name, value in values.items()]
        lines += ["#endif"]
    lines += ["#ifdef KVM_EXIT_MEMORY_FAULT"]
    lines += [f"say(kvm_run.{field}, offsetof(struct kvm_run, {field}));" for field in FAULT]
    lines += ["#endif"]
    body = "\n".join(lines)
    return f"""#include <stddef.h>
#include <stdio.h>
#include <linux/kvm.h>
#include <linux/kvm_para.h>
#include <asm/kvm_para.h>
#include <asm/svm.h>
#define say(name, value) printf("%s %llu\\n", #name, (unsigned long long)(value))
int main(void) {{
{body}
return 0;
}}
"""


def expected() -> dict[str, int]:
    """The same by this library."""
    found = {name: int(getattr(numbers, name)) for name in MACROS}
    found["SVM_VMGEXIT_PSC"] = snp.VMGEXIT_PSC
    for structure, (_, size, fields) in STRUCTURES.items():
        found[f"sizeof.{structure}"] = size
        found |= {f"{structure}.{field}": offset for field, offset in fields.items()}
    return found | {f"kvm_run.{field}": offset for field, offset in FAULT.items()}


@pytest.fixture(scope="module")
def header(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """What the host's header says, by name."""
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        pytest.skip("no C compiler on this host")
    folder: Path = tmp_path_factory.mktemp("header")
    probe = folder / "probe.c"
    probe.write_text("#include <linux/kvm.h>\n#include <asm/svm.h>\nint main(void) { return 0; }\n")
    if subprocess.run([compiler, "-fsyntax-only", probe], capture_output=True).returncode:
        pytest.skip("no <linux/kvm.h> of x86 on this host")
    source, binary = folder / "header.c", folder / "header"
    source.write_text(program())
    built = subprocess.run([compiler, "-o", binary, source], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    run = subprocess.run([binary], capture_output=True, text=True, check=True)
    return {name: int(value) for name, value in map(str.split, run.stdout.splitlines())}


def test_the_header_agrees(header: dict[str, int]) -> None:
    assert len(header) >= 60
    ours = expected()
    assert {name: value for name, value in header.items() if ours[name] != value} == {}


def test_what_the_header_is_too_old_to_know(header: dict[str, int]) -> None:
    unknown = {name for name in expected() if name not in header}
    later = {name for name in unknown if name.split(".")[-1 if "sizeof" in name else 0] in LATER}
    assert unknown - later - {f"kvm_run.{field}" for field in FAULT} == set()
    if unknown:
        names = ", ".join(sorted(unknown & LATER))
        pytest.skip(f"{len(unknown)} values are newer than this host's header: {names}")

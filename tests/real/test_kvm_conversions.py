# tier: real
"""Conversions of real guests, and the machine that runs them."""

from __future__ import annotations

import threading
from random import Random

import numpy as np
import pytest

from pysharedpages import (
    ClosedError,
    FormatError,
    GuestMemory,
    RangeError,
    SharedPages,
    SharedPagesError,
)
from pysharedpages.testing import AddressSpace, MicroVM, UnsupportedHostError
from pysharedpages.testing.steps import (
    AllowMigration,
    Breakpoint,
    Checkpoint,
    Convert,
    Halt,
    Hypercall,
    Loop,
    Step,
    Wait,
    Write,
    random_steps,
)
from pysharedpages.testing.vcpu import State, Vcpu

REASON = MicroVM.available()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

NPAGES = 4096
MARK = NPAGES - 1
PATIENCE = 60.0


def word_at(machine: MicroVM, gfn: int) -> int:
    return int.from_bytes(machine.space.read(gfn)[:8], "little")


def run(machine: MicroVM) -> None:
    machine.start()
    assert machine.wait_until_still(PATIENCE)


def test_a_conversion_is_in_the_snapshot_before_the_next_instruction() -> None:
    """While the guest is out of KVM_RUN the snapshot has the page, and its next store is undone."""
    seen: list[tuple[bool, int]] = []

    def look(_: Vcpu, gfn: int, npages: int, shared: bool) -> None:
        with pages.snapshot() as snapshot:
            assert (gfn in snapshot) is shared
            seen.append((shared, word_at(machine, MARK)))
        assert npages == 1

    program: list[Step] = [Write(MARK, value=100)]
    for number in range(1, 51):
        program += [Convert(number // 2, 1, number % 2 == 0), Write(MARK, value=100 + number)]
    with (
        SharedPages(NPAGES) as pages,
        MicroVM(NPAGES, [program], pages=pages, on_conversion=look) as machine,
    ):
        run(machine)
        assert seen == [(number % 2 == 0, 99 + number) for number in range(1, 51)]
        assert pages.get_list().tolist() == [[25, 26]]


def test_who_sees_a_mark_sees_the_conversions_before_it() -> None:
    program: list[Step] = [
        step
        for number in range(400)
        for step in (Convert(number), Write(MARK, value=number + 1), Wait(0))
    ]
    checked: list[int] = []
    with (
        SharedPages(NPAGES) as pages,
        MicroVM(NPAGES, [program], pages=pages) as machine,
    ):
        machine.start()
        while not checked or checked[-1] < 400:
            machine.raise_failure()
            mark = word_at(machine, MARK)
            with pages.snapshot() as snapshot:
                assert snapshot.count(0, mark) == mark
            checked.append(mark)
        assert machine.wait_until_still(PATIENCE)
    assert len(set(checked)) > 2


def test_two_vcpus_convert_as_a_model_says(rng: np.random.Generator) -> None:
    seeds = [int(seed) for seed in rng.integers(1 << 30, size=2)]
    programs = [list(random_steps(2000 * n, 2000, 400, seed)) for n, seed in enumerate(seeds)]
    model: set[int] = set()
    for step in (step for program in programs for step in program):
        if isinstance(step, Convert):
            run_of = range(step.gfn, step.gfn + step.npages)
            (model.update if step.shared else model.difference_update)(run_of)
    with SharedPages(NPAGES) as pages, MicroVM(NPAGES, programs, pages=pages) as machine:
        run(machine)
        assert set(pages.snapshot()) == model
        written = {}
        for step in (step for program in programs for step in program):
            if isinstance(step, Write):
                written.update(dict.fromkeys(range(step.gfn, step.gfn + step.npages), step.value))
        assert {gfn: word_at(machine, gfn) for gfn in written} == written


def test_every_conversion_counts_even_there_and_back() -> None:
    program: list[Step] = [Convert(7, 3, True), Convert(7, 3, False), Convert(20, 1, False)]
    with SharedPages(NPAGES) as pages, MicroVM(NPAGES, [program], pages=pages) as machine:
        before = pages.snapshot()
        run(machine)
        assert pages.snapshot().converted_since(before).ranges().tolist() == [[7, 10]]


def test_a_guest_says_whether_it_may_be_migrated() -> None:
    program = [AllowMigration(False), Breakpoint(1), AllowMigration(), Breakpoint(2)]
    with SharedPages(NPAGES) as pages, MicroVM(NPAGES, [program], pages=pages) as machine:
        said = [pages.migration_allowed]
        run(machine)
        said.append(pages.migration_allowed)
        machine.vcpus[0].pass_breakpoint()
        assert machine.wait_until_still(60)
        said.append(pages.migration_allowed)
        assert said == [None, False, True]
        assert len(pages) == 0


def test_a_conversion_beyond_the_tracker_s_bound_is_the_guest_s_fault() -> None:
    with SharedPages(8) as pages, MicroVM(NPAGES, [[Convert(8)]], pages=pages) as machine:
        with pytest.raises(SharedPagesError, match=r"vCPU 0 (shut down|left the guest)"):
            run(machine)
        assert len(pages) == 0


def test_what_a_hook_raises_ends_the_vcpu_and_is_told() -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    with (
        MicroVM(NPAGES, [[Convert(1)], []], on_conversion=fail) as machine,
        pytest.raises(ZeroDivisionError),
    ):
        run(machine)
    assert machine.vcpus[0].state is State.FAILED


def test_a_triple_fault_ends_the_vcpu_and_no_other() -> None:
    """A #GP without a table of handlers; KVM reports a shutdown, or gives up emulating it."""
    life: list[Step] = [Loop((Write(5), Checkpoint()))]
    with SharedPages(8) as pages, MicroVM(NPAGES, [[Convert(8)], life], pages=pages) as machine:
        machine.start()
        assert machine.vcpus[0].wait_until_still(PATIENCE)
        assert machine.vcpus[0].state is State.FAILED
        with pytest.raises(SharedPagesError, match="vCPU 0"):
            machine.raise_failure()
        before = machine.vcpus[1].checkpoints
        while machine.vcpus[1].checkpoints == before:
            machine.raise_failure()
        machine.stop()
        assert machine.vcpus[1].state is State.AT_CHECKPOINT


def test_a_failure_in_the_hook_leaves_the_tracker_told_and_closing_possible() -> None:
    def fail(*_: object) -> None:
        raise FormatError("no guest's fault")

    with SharedPages(NPAGES) as pages:
        machine = MicroVM(NPAGES, [[Convert(1), Convert(2)]], pages=pages, on_conversion=fail)
        machine.start()
        with pytest.raises(FormatError, match="no guest's fault"):
            machine.wait_until_still(PATIENCE)
        machine.close()
        machine.close()
        assert pages.get_list().tolist() == [[1, 2]]


def test_a_hook_cannot_close_its_machine() -> None:
    machine: MicroVM

    def close(*_: object) -> None:
        machine.close()

    with MicroVM(NPAGES, [[Convert(1)]], on_conversion=close) as machine:
        with pytest.raises(SharedPagesError, match="its own machine"):
            run(machine)
        assert machine.vcpus[0].registers()[17] & 2


def test_what_a_closed_or_running_machine_refuses() -> None:
    machine = MicroVM(NPAGES, [[Loop((Write(1), Checkpoint()))], []])
    spinning, ended = machine.vcpus
    machine.start()
    with pytest.raises(SharedPagesError, match="vCPU 0 was started before"):
        machine.start()
    with pytest.raises(SharedPagesError, match="vCPU 0 runs"):
        spinning.registers()
    assert ended.wait_until_still(PATIENCE)
    with pytest.raises(SharedPagesError, match="it is halted"):
        ended.start()
    machine.close()
    machine.kick()
    for call in (ended.registers, ended.start, lambda: ended.load([0] * 18)):
        with pytest.raises(ClosedError):
            call()


def test_kicks_from_many_threads_while_a_guest_ends() -> None:
    """A kick meets a vCPU at any point of its life, its last instructions among them."""
    for _ in range(30):
        with MicroVM(512, [[Loop((Wait(0),), 20)], [Write(1)]]) as machine:
            stop = threading.Event()

            def kick(machine: MicroVM = machine, stop: threading.Event = stop) -> None:
                while not stop.is_set():
                    machine.kick()

            kickers = [threading.Thread(target=kick) for _ in range(3)]
            for kicker in kickers:
                kicker.start()
            try:
                run(machine)
            finally:
                stop.set()
                for kicker in kickers:
                    kicker.join()
            assert [vcpu.state for vcpu in machine.vcpus] == [State.HALTED] * 2


def test_a_hypercall_converts_where_the_host_can() -> None:
    reason = MicroVM.can_hypercall()
    if reason is not None:
        pytest.skip(reason)
    program = [Hypercall(100, 50, True), Hypercall(120, 10, False), Hypercall(0, 0, True)]
    with SharedPages(NPAGES) as pages, MicroVM(NPAGES, [program], pages=pages) as machine:
        run(machine)
        assert pages.get_list().tolist() == [[100, 120], [130, 150]]
        assert machine.vcpus[0].answer != 0


def test_loops_count_and_nest_three_deep() -> None:
    inner = Loop((Checkpoint(), Convert(3), Convert(3, 1, False)), 3)
    program = [Loop((Loop((inner,), 4), Checkpoint()), 5)]
    with SharedPages(NPAGES) as pages, MicroVM(NPAGES, [program], pages=pages) as machine:
        run(machine)
        assert machine.vcpus[0].checkpoints == 5 * (4 * 3 + 1)
        assert pages.epoch == 2 * 5 * 4 * 3


def test_vcpus_stop_at_checkpoints_and_go_on() -> None:
    life: list[Step] = [Loop((Write(5, 3), Checkpoint(), Wait(50)))]
    with MicroVM(NPAGES, [life, life, [Breakpoint(3), Halt()]]) as machine:
        machine.start()
        for _ in range(30):
            machine.stop()
            assert [vcpu.state for vcpu in machine.vcpus] == [
                State.AT_CHECKPOINT, State.AT_CHECKPOINT, State.AT_BREAKPOINT,
            ]  # fmt: skip
            before = [vcpu.checkpoints for vcpu in machine.vcpus]
            assert machine.wait_until_still(0)
            assert [vcpu.checkpoints for vcpu in machine.vcpus] == before
            machine.resume()
            while machine.vcpus[0].checkpoints == before[0]:
                machine.raise_failure()
        machine.vcpus[2].pass_breakpoint()
        assert machine.vcpus[2].wait_until_still(PATIENCE)
        assert machine.vcpus[2].state is State.HALTED
        with pytest.raises(SharedPagesError, match="vCPU 2 is halted, at no breakpoint"):
            machine.vcpus[2].pass_breakpoint()


def test_a_guest_goes_on_in_another_machine_from_its_registers() -> None:
    program: list[Step] = [
        Loop((Write(1, value=1), Checkpoint()), 20),
        Breakpoint(1),
        Write(2, value=2),
        Breakpoint(2),
        Loop((Write(3, value=3), Checkpoint()), 20),
    ]
    with MicroVM(NPAGES, [program]) as here, MicroVM(NPAGES, [program]) as there:
        run(here)
        there.vcpus[0].load(here.vcpus[0].registers())
        run(there)
        assert [word_at(there, gfn) for gfn in (1, 2, 3)] == [0, 2, 0]
        there.vcpus[0].pass_breakpoint()
        assert there.wait_until_still(PATIENCE)
        assert there.vcpus[0].checkpoints == 20
        assert word_at(here, 3) == 0


def test_a_terabyte_is_sparse_and_addressable_to_its_end() -> None:
    last = (1 << 28) - 1
    with (
        SharedPages("1TiB") as pages,
        MicroVM("1TiB", [[Convert(last), Write(last, value=9)]], pages=pages) as machine,
    ):
        run(machine)
        assert word_at(machine, last) == 9
        assert pages.get_list().tolist() == [[last, last + 1]]


def test_closing_ends_vcpus_wherever_they_are() -> None:
    before = threading.active_count()
    programs: list[list[Step]] = [
        [Loop((Write(1),))],
        [Wait(4_000_000_000)],
        [Breakpoint(1)],
        [Loop((Convert(2), Convert(2, 1, False)))],
        [],
    ]
    with MicroVM(NPAGES, programs, pages=SharedPages(NPAGES)) as machine:
        machine.start()
        while machine.vcpus[3].exits < 100:
            machine.raise_failure()
    assert threading.active_count() == before
    MicroVM(NPAGES, programs).close()


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([Write(0, 0)], "npages is 0"),
        ([Write(0, words=513)], "words is 513"),
        ([Write(0, value=1 << 64)], "value is"),
        ([Write(1 << 52)], "gfn is"),
        ([Convert(1 << 40)], "gfn is"),
        ([Convert(-1)], "gfn is -1"),
        ([Wait(1 << 32)], "microseconds is"),
        ([Loop((), 0)], "times is 0"),
        ([Loop((Loop((Loop((Loop((), 2),), 2),), 2),), 2)], "3 deep"),
    ],
)
def test_steps_that_cannot_be_are_range_errors(steps: list[Step], message: str) -> None:
    with pytest.raises(RangeError, match=message):
        MicroVM(NPAGES, [steps])


def test_bad_machines_are_typed_errors() -> None:
    with pytest.raises(RangeError, match="0 pages"):
        MicroVM(0, [[]])
    with pytest.raises(RangeError, match="0 slots"):
        MicroVM(GuestMemory([]), [[]])
    with pytest.raises(RangeError, match="0 programs"):
        MicroVM(NPAGES, [])
    with pytest.raises(RangeError, match="dirty is 'log'"):
        MicroVM(NPAGES, [[]], dirty="log")
    with pytest.raises(RangeError, match="100 ring entries"):
        MicroVM(NPAGES, [[]], dirty="ring", ring_entries=100)
    with AddressSpace(100) as small, pytest.raises(RangeError, match="101 pages are needed"):
        MicroVM(101, [[]], space=small)
    with pytest.raises(TypeError, match="no step"):
        MicroVM(NPAGES, [["halt"]])  # type: ignore[list-item]
    with pytest.raises((RangeError, UnsupportedHostError)):
        MicroVM("256TiB", [[]])


def test_random_steps_come_from_their_seed() -> None:
    seed = Random(1).randrange(1 << 30)
    steps = list(random_steps(100, 50, 200, seed))
    assert steps == list(random_steps(100, 50, 200, seed))
    assert len(steps) == 200
    assert {type(step) for step in steps} == {Write, Convert}
    for step in steps:
        assert isinstance(step, Write | Convert)
        assert 100 <= step.gfn < step.gfn + step.npages <= 150

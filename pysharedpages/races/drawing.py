"""An interleaving in two columns, as an engineer draws it: the guest, and the VMM."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from pysharedpages.races.explorer import Verdict
from pysharedpages.races.scenario import CONVERTS, SHARES, Kind, Scenario, Step
from pysharedpages.races.vmm import Action, Verb
from pysharedpages.races.world import Move

__all__ = ["columns_of", "drawing_of", "heading_of"]

_LETTERS: Final = {
    Kind.WRITE: "W: ",
    Kind.EARLY_WRITE: "W: ",
    Kind.SET_SHARED: "C: ",
    Kind.SET_PRIVATE: "C: ",
    Kind.BEGIN_SHARED: "C: ",
    Kind.BEGIN_PRIVATE: "C: ",
    Kind.FINISH: "   ",
    Kind.FINISH_LOGGED: "   ",
}


def drawing_of(verdict: Verdict) -> Iterator[str]:
    """The lines of a verdict: what was explored, and the interleaving that corrupts a page."""
    yield from heading_of(verdict)
    outcome = "safe" if verdict.is_safe else "corrupt"
    yield f"bytes {verdict.bytes} by a conversion: {outcome}, {verdict.states:,} states"
    if not verdict.is_safe:
        yield from columns_of(verdict.scenario, verdict.trace)
        yield ""
        for page, fault in verdict.faults:
            yield f"  page {page}: {fault.what}"


def heading_of(verdict: Verdict) -> Iterator[str]:
    """Whose interleavings these are."""
    yield f"scenario {verdict.scenario.name}: {verdict.scenario.summary}"
    yield f"policy {verdict.policy.name}: {verdict.policy.summary}"
    if verdict.scenario.at_fault:
        yield f"the guest breaks {verdict.scenario.at_fault}"


def columns_of(scenario: Scenario, trace: Iterable[Move]) -> Iterator[str]:
    """One interleaving: the guest, and the VMM."""
    rows = list(_Columns(scenario).rows(trace))
    width = max(len("guest"), *(len(guest) for guest, _ in rows))
    yield ""
    yield f"  {'guest':<{width}} | VMM"
    yield f"  {'-' * width}-+-{'-' * max(len(vmm) for _, vmm in rows)}"
    yield from (f"  {guest:<{width}} | {vmm}".rstrip() for guest, vmm in rows)


class _Columns:
    """Follows the guest's own types, to say which pages went the wrong way."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._shared = set(scenario.shared)
        self._round = -1
        self._there = False

    def rows(self, trace: Iterable[Move]) -> Iterator[tuple[str, str]]:
        for move in trace:
            if move.step is not None:
                yield self._guest(move.vcpu, move.step), ""
            elif move.action is not None:
                yield "", self._label(move.action) + self._vmm(move.action, move)

    def _guest(self, vcpu: int, step: Step) -> str:
        if step.kind is Kind.EARLY_WRITE:
            self._shared ^= {step.page}
        elif step.kind in SHARES:
            self._shared.add(step.page)
        elif step.kind in CONVERTS:
            self._shared.discard(step.page)
        who = f"vCPU {vcpu}: " if len(self._scenario.vcpus) > 1 else ""
        told = ", not yet told" if step.kind is Kind.EARLY_WRITE else ""
        return f"{who}{_LETTERS[step.kind]}{step}{told}{' (there)' if self._there else ''}"

    def _label(self, action: Action) -> str:
        if action.round == self._round:
            return " " * 9
        self._round = action.round
        if not action.round:
            return f"{'begin':<9}"
        final = action.round > self._scenario.rounds
        return f"{'final' if final else f'round {action.round}':<9}"

    def _vmm(self, action: Action, move: Move) -> str:
        match action.verb:
            case Verb.HARVEST:
                return f"D: {_listed(move.found, 'dirty')}"
            case Verb.LIST:
                return f"L: {_listed(move.found, 'shared')}{self._begin(action)}"
            case Verb.SEND:
                return f"X: page {action.page} as {self._path(action)}{_failed(move)}"
            case Verb.COMMIT:
                return f"commit{_failed(move)}"
            case Verb.STOP:
                return "stop the guest"
            case Verb.RESUME:
                self._there = True
                return f"the guest goes on there: {_listed(action.listed, 'shared')}"

    def _path(self, action: Action) -> str:
        path = "shared" if action.shared else "private"
        if action.shared == (action.page in self._shared):
            return path
        return f"{path}, which it is not"

    def _begin(self, action: Action) -> str:
        return "" if action.round else "; all of RAM is to be sent"


def _failed(move: Move) -> str:
    return ": the transport fails" if move.failed else ""


def _listed(pages: tuple[int, ...], what: str) -> str:
    numbers = ", ".join(map(str, pages))
    if not pages:
        return f"no page is {what}"
    return f"page {numbers} is {what}" if len(pages) == 1 else f"pages {numbers} are {what}"

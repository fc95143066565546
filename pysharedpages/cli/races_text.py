"""The text that `pysharedpages races` prints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pysharedpages.races import Survey, Verdict, columns_of, drawing_of, heading_of

if TYPE_CHECKING:
    from pysharedpages.kvmguest.races import Finding

__all__ = ["drawings_of", "findings_of", "findings_table_of", "survey_of", "table_of"]


def table_of(verdicts: Sequence[Verdict]) -> Iterator[str]:
    """Scenarios by policies: verdicts, and how many states each took."""
    cells = [_cell(each.is_safe, each.is_expected, f"{each.states:,}") for each in verdicts]
    yield from _table(verdicts, cells)
    yield from _summary(verdicts)


def findings_table_of(findings: Sequence[Finding]) -> Iterator[str]:
    """Scenarios by policies: what real guests did, and how many there were."""
    cells = [_cell(each.is_safe, each.is_expected, f"{each.runs:,}") for each in findings]
    yield from _table([each.verdict for each in findings], cells)
    yield f"{sum(each.runs for each in findings):,} guests migrated on /dev/kvm"
    yield from _summary(findings)


def _table(verdicts: Sequence[Verdict], cells: Sequence[str]) -> Iterator[str]:
    policies = list(dict.fromkeys(verdict.policy.name for verdict in verdicts))
    yield from _headings("scenario", policies)
    rows: dict[tuple[str, str], list[str]] = {}
    for each, cell in zip(verdicts, cells, strict=True):
        rows.setdefault((each.scenario.name, each.bytes), []).append(cell)
    before = None
    for (name, bytes_model), row in rows.items():
        yield _line("" if name == before else name, bytes_model, row)
        before = name
    yield ""
    broken = {each.scenario.name: each.scenario.at_fault for each in verdicts}
    at_fault = [f"{name} breaks {rule}" for name, rule in broken.items() if rule]
    if at_fault:
        yield f"guests at fault: {', '.join(at_fault)}"


def drawings_of(verdicts: Sequence[Verdict]) -> Iterator[str]:
    """Each verdict, with the interleaving behind it."""
    for number, verdict in enumerate(verdicts):
        if number:
            yield ""
        yield from drawing_of(verdict)
        if not verdict.is_expected:
            yield "this is not the expected verdict"


def findings_of(findings: Sequence[Finding]) -> Iterator[str]:
    """Each finding, with the interleaving that a real guest went through."""
    for number, finding in enumerate(findings):
        if number:
            yield ""
        verdict, outcome = finding.verdict, finding.outcome
        yield from heading_of(verdict)
        found = f"bytes {verdict.bytes} by a conversion: {'safe' if finding.is_safe else 'corrupt'}"
        guests = "a real guest" if finding.runs == 1 else f"{finding.runs:,} real guests"
        yield f"{found}, {guests} on /dev/kvm{', the last of them' if finding.runs > 1 else ''}"
        yield from columns_of(verdict.scenario, outcome.moves)
        if outcome.faults:
            yield ""
        for page, fault in outcome.faults:
            yield f"  page {page}, as the guest reads it there: {fault.what}"
        if not finding.is_expected:
            yield "this is not the expected verdict"


def survey_of(surveys: Sequence[Survey]) -> Iterator[str]:
    """Byte models by policies: how many guests lose a page."""
    programs = surveys[0].safe + surveys[0].corrupt
    policies = list(dict.fromkeys(each.policy.name for each in surveys))
    yield f"every guest of up to {surveys[0].most} steps on one page: {programs:,} guests"
    yield ""
    yield from _headings("", policies)
    rows: dict[str, list[str]] = {}
    for each in surveys:
        of_all = f"{each.corrupt:,}" if each.corrupt else ""
        rows.setdefault(each.bytes, []).append(_cell(each.is_safe, each.is_expected, of_all))
    for bytes_model, cells in rows.items():
        yield _line("", bytes_model, cells)
    yield ""
    yield f"{sum(each.states for each in surveys):,} states"
    yield from _summary(surveys)


def _headings(first: str, policies: Sequence[str]) -> Iterator[str]:
    """Two lines: a policy's name is broken at its second hyphen."""
    parts = [name.split("-") for name in policies]
    yield _line("", "", ["-".join(part[:2]) + "-" * (len(part) > 2) for part in parts])
    yield _line(first, "bytes", ["-".join(part[2:]) for part in parts])


def _cell(is_safe: bool, is_expected: bool, number: str) -> str:
    verdict = "safe" if is_safe else "corrupt"
    return f"{verdict}{'' if is_expected else '!'} {number}".rstrip()


def _line(name: str, bytes_model: str, cells: Sequence[str]) -> str:
    return f"{name:<21}{bytes_model:<11}{''.join(f'{cell:<15}' for cell in cells)}".rstrip()


def _summary(verdicts: Sequence[Verdict] | Sequence[Survey] | Sequence[Finding]) -> Iterator[str]:
    wrong = sum(not each.is_expected for each in verdicts)
    if wrong:
        yield f"{wrong:,} of {len(verdicts):,} verdicts are not the expected ones: those with !"
    else:
        yield f"{len(verdicts):,} verdicts, every one the expected one"

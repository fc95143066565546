"""One page on two hosts: its bytes, whose key they are under, and what the guest makes of them.

Each host has a key of its own, so ciphertext of one is garbage on the other, and a private page
sent plain, or a shared one sent through the platform, arrives as garbage. The page here goes on
after the move as if the guest had stayed: what it reads here is what it should read there. Contents
are told apart by what matters: whether it is what the guest wrote last.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

from pysharedpages.races.scenario import FINISHES, REWRITTEN, SHARES, Kind

__all__ = [
    "Bytes",
    "Content",
    "Fault",
    "Layer",
    "Page",
    "fault_of",
    "first_page",
    "moved",
    "sent",
    "stepped",
]


class Layer(IntEnum):
    """How bytes lie in memory: as they are, or under a host's key."""

    PLAIN = 0
    HERE = 1
    THERE = 2


class Content(IntEnum):
    """What the bytes say once they are read in the right way."""

    GARBAGE = 0
    OLD = 1
    ZERO = 2
    NEW = 3


_WORDS: Final = {
    Content.GARBAGE: "garbage",
    Content.OLD: "old content",
    Content.ZERO: "zeros",
    Content.NEW: "what the guest wrote last",
}


class Bytes(NamedTuple):
    """The memory of one page on one host."""

    layer: Layer
    content: Content


class Fault(NamedTuple):
    """What is wrong with a page: its bytes, or else only its place in the destination's list."""

    what: str
    in_bytes: bool


class Page(NamedTuple):
    """One page of the guest.

    here, there: its memory on the source, and on the destination.
    own: whether the guest's page table has it shared. told: whether the host knows it as shared.
    lost: whether nobody relies on its content: it was converted and not written since.
    begun: whether a conversion is recorded that the platform has not done yet.
    listed: whether it is shared by the destination's list; None before the move.
    """

    here: Bytes
    there: Bytes
    own: bool
    told: bool
    lost: bool = False
    begun: bool = False
    listed: bool | None = None


def first_page(shared: bool, ram: bool = True) -> Page:
    """A page before the migration, never sent; written under its type, if it is RAM."""
    layer = Layer.PLAIN if shared else Layer.HERE
    nothing = Bytes(Layer.PLAIN, Content.GARBAGE)
    return Page(Bytes(layer, Content.NEW), nothing, own=shared, told=shared, lost=not ram)


def stepped(page: Page, kind: Kind, bytes_model: str) -> Page:
    """The page after a step of the guest, on whichever host it runs."""
    if kind is Kind.WRITE:
        return _written(page)
    if kind is Kind.EARLY_WRITE:
        return _written(page._replace(own=not page.told))
    if kind in FINISHES:
        return _finished(page, bytes_model)
    begun = _begun(page, kind in SHARES)
    atomic = kind in (Kind.SET_SHARED, Kind.SET_PRIVATE)
    return _finished(begun, bytes_model) if atomic else begun


def sent(page: Page, shared: bool) -> Page:
    """The page after its transfer: the bytes as they are, or read and written by the platforms."""
    if shared:
        return page._replace(there=page.here)
    content = page.here.content if page.here.layer is Layer.HERE else Content.GARBAGE
    return page._replace(there=Bytes(Layer.THERE, content))


def moved(page: Page, listed: bool) -> Page:
    """The page once its guest runs on the destination, which has it in its list."""
    return page._replace(listed=listed)


def fault_of(page: Page, trusting: bool) -> Fault | None:
    """What is wrong with a page of a guest that has moved.

    A `trusting` guest relies on a page's content across conversions, wherever it is still readable
    by the guest that stayed.
    """
    if (trusting or not page.lost) and not page.begun:
        wanted = _read(page.here, page.own, Layer.HERE)
        found = _read(page.there, page.own, Layer.THERE)
        if wanted is not Content.GARBAGE and found is not wanted:
            return Fault(f"{_WORDS[found]} instead of {_WORDS[wanted]}", in_bytes=True)
    if page.own == page.told and page.listed != page.own:
        listed, own = ("shared" if each else "private" for each in (page.listed, page.own))
        return Fault(f"{listed} by the destination's list, {own} to the guest", in_bytes=False)
    return None


def _read(memory: Bytes, shared: bool, key: Layer) -> Content:
    readable = memory.layer is (Layer.PLAIN if shared else key)
    return memory.content if readable else Content.GARBAGE


def _written(page: Page) -> Page:
    return _filled(page, Content.NEW)._replace(lost=False)


def _begun(page: Page, shared: bool) -> Page:
    """The page once the host knows its new type; its content is lost if that is another one."""
    if page.told == shared:
        return page._replace(own=shared)
    listed = None if page.listed is None else shared
    return page._replace(own=shared, told=shared, listed=listed, lost=True, begun=True)


def _finished(page: Page, bytes_model: str) -> Page:
    """The page once the platform has converted it, if it had to."""
    if not page.begun:
        return page
    page = page._replace(begun=False)
    return _filled(page, Content.ZERO)._replace(lost=False) if bytes_model == REWRITTEN else page


def _filled(page: Page, content: Content) -> Page:
    """The page with new content under the guest's type; copies of what it was are old."""
    here = Bytes(Layer.PLAIN if page.own else Layer.HERE, content)
    there = page.there
    if page.listed is not None:
        there = Bytes(Layer.PLAIN if page.own else Layer.THERE, content)
    elif there.content is Content.NEW:
        there = Bytes(there.layer, Content.OLD)
    return page._replace(here=here, there=there)

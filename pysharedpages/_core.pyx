"""The C core for Python: sets, the tracker and its snapshots, and handles of the dirty logs.

Each method converts its arguments, lets go of the GIL where the call can be long, calls one C
function, checks its status, and wraps the result. No algorithm lives here.

Threads. A set's nodes are held by a `Pin`, which a method takes a reference to before it starts:
closing a snapshot in one thread does not pull them from under a call in another. A tracker's lock
is tried with the GIL held; only if it is taken does the call let go of the GIL to wait for it.
"""

import os as _os
import pickle as _pickle
import time as _time

import numpy as _np

from pysharedpages import _algebra, _buffers, _fork, _svg, _views, units as _units
from pysharedpages.errors import ClosedError, FormatError, RangeError, SharedPagesError
from pysharedpages.errors import SnapshotLimitError

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_FillInfo
from cpython.buffer cimport PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals, PyErr_Clear
from cpython.long cimport PyLong_CheckExact
from cpython.number cimport PyNumber_Index
from cpython.pycapsule cimport PyCapsule_Destructor, PyCapsule_GetPointer
from cpython.pycapsule cimport PyCapsule_IsValid, PyCapsule_New
from cpython.ref cimport PyObject
from libc.stdlib cimport calloc, free

cdef extern from "Python.h":
    const Py_ssize_t PY_SSIZE_T_MAX
    # Declared without its error return, which index_of looks at itself.
    uint64_t PyLong_AsUnsignedLongLong(PyObject *number)

cdef uint64_t LIMIT = SP_GFN_LIMIT

cdef enum:
    SHORT = 65536  # pages up to which a conversion is done with the GIL held
    SHORT_BYTES = 4096  # of a file that is read with the GIL held

# ---- statuses, arguments, buffers ----


cdef int check(sp_status status, object subject) except -1:
    """The one table from statuses to exceptions; `subject` says what, with value and bound."""
    if status == SP_OK:
        return 0
    if status == SP_NOMEM:
        raise MemoryError
    if status == SP_CLOSED:
        raise ClosedError(f"{subject} is closed")
    if status == SP_LIMIT:
        raise SnapshotLimitError("snapshots pin 65534 versions, all there can be: drop some first")
    if status == SP_FORKED:
        raise SharedPagesError("the process forked while another thread was changing this object")
    raise RangeError(subject)


cdef uint64_t bounded(object value, uint64_t most, str name) except? 0xdead:
    """An integer in [0, most]."""
    cdef object number
    try:
        number = PyNumber_Index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, not {type(value).__name__}") from None
    if number < 0:
        raise RangeError(f"{name} is {number}, below 0")
    if number > most:
        raise RangeError(f"{name} is {number}, above {most}")
    return number


cdef inline uint64_t index_of(object value) except? 0xdead:
    """An integer that fits 64 bits, the fast way; what is out of bounds is found out later."""
    cdef uint64_t number
    if PyLong_CheckExact(value):
        number = PyLong_AsUnsignedLongLong(<PyObject *>value)
        if number != <uint64_t>-1:
            return number
        PyErr_Clear()
    return bounded(value, <uint64_t>-1, "a gfn or count")


cdef (uint64_t, uint64_t) window(object start, object stop) except *:
    cdef uint64_t first = 0 if start is None else bounded(start, LIMIT, "start")
    cdef uint64_t end = LIMIT if stop is None else bounded(stop, LIMIT, "stop")
    if end < first:
        raise RangeError(f"the range [{first}, {end}) is inverted: {first} is above {end}")
    return first, end


@cython.final
cdef class Lease:
    """The memory of a buffer, held."""
    cdef Py_buffer view

    def __cinit__(self, array, bint writable=False):
        PyObject_GetBuffer(array, &self.view, PyBUF_WRITABLE if writable else PyBUF_SIMPLE)

    def __dealloc__(self):
        PyBuffer_Release(&self.view)


cdef object bad_range(object table, size_t bad):
    """The message about row `bad` of ranges that the core refused; None if it refused none."""
    if bad >= len(table):
        return None
    start, stop = table[bad].tolist()
    if start > LIMIT or stop > LIMIT:
        return f"range {bad} is [{start}, {stop}): gfns are below {LIMIT}"
    return f"range {bad} is [{start}, {stop}), which is inverted: {start} is above {stop}"


cdef object bad_page(object table, size_t bad):
    if bad >= len(table):
        return None
    return f"page {bad} is {int(table[bad])}: gfns are below {LIMIT}"


# ---- sets ----


@cython.final
@cython.freelist(64)
cdef class Pin:
    """The nodes of a set: owned, or a tracker's version."""
    cdef sp_pageset *pages
    cdef sp_snapshot snapshot
    cdef sp_set set

    def __cinit__(self):
        self.set.engine = &sp_engine_roaring

    def __dealloc__(self):
        sp_pageset_release(self.pages)
        if self.snapshot.tracker != NULL:
            sp_snapshot_release(&self.snapshot)


cdef PageSet adopt(sp_pageset *pages):
    """A PageSet that takes over the reference."""
    cdef PageSet made
    try:
        made = PageSet.__new__(PageSet)
    except MemoryError:
        sp_pageset_release(pages)
        raise
    made.pin.pages = pages
    made.pin.set = sp_pageset_set(pages)[0]
    return made


cdef PageSet combine(PageSet left, PageSet right, sp_op op):
    cdef Pin a = left.held(), b = right.held()
    cdef sp_pageset *pages
    cdef sp_status status
    if sp_set_combine_is_short(op, &a.set, &b.set):
        status = sp_pageset_combine(NULL, op, &a.set, &b.set, &pages)
    else:
        with nogil:
            status = sp_pageset_combine(NULL, op, &a.set, &b.set, &pages)
    check(status, None)
    return adopt(pages)


cdef list operands(PageSet first, tuple others):
    """`first` and `others`; alone, a copy of it: what it is made into is a value, not a snapshot."""
    for i, each in enumerate(others):
        if not isinstance(each, PageSet):
            raise TypeError(f"argument {i} must be PageSet, not {type(each).__name__}")
    return [first, *others] if others else [combine(first, PageSet(), SP_OR)]


cdef inline bint is_array(object given):
    return not PyLong_CheckExact(given) and _buffers.is_array(given)


cdef inline object gfn_or_none(uint64_t gfn):
    return None if gfn == LIMIT else gfn


cdef uint64_t common(PageSet left, PageSet right) except? 0xdead:
    cdef Pin a = left.held(), b = right.held()
    cdef uint64_t pages
    if sp_set_combine_is_short(SP_AND, &a.set, &b.set):
        return sp_set_intersection(sp_kernels_active(), &a.set, &b.set)
    with nogil:
        pages = sp_set_intersection(sp_kernels_active(), &a.set, &b.set)
    return pages


cdef PageSet of_roaring(const void *octets, size_t n, unsigned width):
    """The set that a Roaring file is; 0 for either width."""
    cdef size_t offset = 0
    cdef const char *why = NULL
    cdef sp_pageset *pages
    cdef sp_status status
    if n <= SHORT_BYTES:
        status = sp_portable_read(NULL, octets, n, width, &pages, &offset, &why)
    else:
        with nogil:
            status = sp_portable_read(NULL, octets, n, width, &pages, &offset, &why)
    if status == SP_INVALID:
        raise FormatError(f"byte {offset} of {n}: {why.decode()}", offset=offset)
    check(status, None)
    return adopt(pages)


cdef inline unsigned width_of(object bits) except 0:
    if bits != 32 and bits != 64:
        raise ValueError(f"bits is {bits!r}: 32 or 64")
    return bits


cdef Pin in_roaring(Pin pin):
    """The same set on the engine whose leaves the portable format writes."""
    cdef sp_pageset *pages
    cdef sp_status status
    cdef Pin nothing = PageSet().pin
    if pin.set.engine == &sp_engine_roaring:
        return pin
    with nogil:
        status = sp_pageset_combine(NULL, SP_OR, &pin.set, &nothing.set, &pages)
    check(status, None)
    return adopt(pages).pin


cdef bytes roaring_of(Pin given, bint wide, uint64_t most):
    """A set in the portable Roaring format, if that is at most so many bytes."""
    cdef Pin pin = in_roaring(given)
    cdef sp_portable plan
    cdef sp_status status
    cdef bytes octets
    cdef uint8_t *out
    cdef bint short = sp_portable_is_short(&pin.set)
    if short:
        status = sp_portable_plan(&plan, NULL, &pin.set, wide)
    else:
        with nogil:
            status = sp_portable_plan(&plan, NULL, &pin.set, wide)
    try:
        if status == SP_RANGE:
            last = sp_set_select(&pin.set, sp_set_count(&pin.set) - 1)
            raise RangeError(f"gfn {last} needs more than 32 bits")
        check(status, None)
        if sp_portable_bytes(&plan) > most:
            raise RangeError(f"the set takes {sp_portable_bytes(&plan)} bytes, more than {most}")
        octets = PyBytes_FromStringAndSize(NULL, sp_portable_bytes(&plan))
        out = <uint8_t *>PyBytes_AS_STRING(octets)
        if short:
            sp_portable_write(&plan, out)
        else:
            with nogil:
                sp_portable_write(&plan, out)
    finally:
        sp_portable_close(&plan)
    return octets


cdef class PageSet:
    """An immutable set of gfns (page numbers below 2^52).

    Hashable, equal by content, safe in any thread; copying it costs nothing. Arrays of ranges are
    (n, 2) C-contiguous uint64, half-open, sorted, disjoint and coalesced. h below is the height of
    the tree (at most 7; of runs, the logarithm of their number), n the leaves that a call touches;
    nothing is proportional to the pages.
    """
    cdef Pin pin
    cdef object cached_hash

    def __cinit__(self):
        self.pin = Pin.__new__(Pin)

    cdef Pin held(self):
        cdef Pin pin = self.pin
        if pin is None:
            raise ClosedError("the snapshot is closed")
        return pin

    @staticmethod
    def from_ranges(ranges):
        """The union of `ranges`, in any order, overlapping or empty. O(n log n).

        A buffer or a list; a PageSet; a pyroaring bitmap; or Arrow data, as in `from_arrow`, of
        `start` and `stop`.
        """
        cdef PageSet given = taken(ranges, 2)
        if given is not None:
            return given
        cdef object table = _buffers.as_ranges(ranges)
        cdef Lease data = Lease(table)
        cdef size_t n = len(table), bad = 0
        cdef sp_pageset *pages
        cdef sp_status status
        with nogil:
            status = sp_pageset_from_ranges(
                NULL, &sp_engine_roaring, <const sp_range *>data.view.buf, n, &pages, &bad
            )
        if status:
            check(status, bad_range(table, bad))
        return adopt(pages)

    @staticmethod
    def from_pages(gfns):
        """The set of `gfns`, in any order, repeated or not. O(n log n), less where sorted.

        A buffer or a list; a PageSet; a pyroaring bitmap; or Arrow data, as in `from_arrow`, of
        gfns.
        """
        cdef PageSet given = taken(gfns, 1)
        if given is not None:
            return given
        cdef object table = _buffers.as_pages(gfns)
        cdef Lease data = Lease(table)
        cdef size_t n = len(table), bad = 0
        cdef sp_pageset *pages
        cdef sp_status status
        with nogil:
            status = sp_pageset_from_pages(
                NULL, &sp_engine_roaring, <const uint64_t *>data.view.buf, n, &pages, &bad
            )
        if status:
            check(status, bad_page(table, bad))
        return adopt(pages)

    @staticmethod
    def from_bitmap(buffer, first=0, npages=None):
        """Bit i of the little-endian bitmap is gfn `first + i`; all bits, or the first `npages`.

        One pass over the buffer. FormatError if it holds fewer bits than `npages`.
        """
        cdef object bits = _buffers.as_bits(buffer)
        cdef Lease data = Lease(bits)
        cdef uint64_t start = bounded(first, LIMIT, "first"), count = 8 * <uint64_t>len(bits)
        cdef sp_pageset *pages
        cdef sp_status status
        if npages is not None:
            if bounded(npages, LIMIT, "npages") > count:
                text = f"{npages} pages need more than the bitmap's {count} bits"
                raise FormatError(text, offset=len(bits))
            count = npages
        if count > LIMIT - start:
            raise RangeError(f"{count} pages from gfn {start} go beyond {LIMIT}")
        with nogil:
            status = sp_pageset_from_bitmap(
                NULL, &sp_engine_roaring, data.view.buf, start, count, &pages
            )
        check(status, None)
        return adopt(pages)

    @staticmethod
    def from_roaring(data, bits=None):
        """The set that bytes of the portable Roaring format hold, of 64 bits, of 32, or of either.

        One pass over the buffer, which may be any; memory at most a constant times its size. What
        has a method `serialize`, as pyroaring's bitmaps do, is asked for the bytes.
        FormatError, with the offset, for bytes that are not one whole set, and for members at or
        beyond 2^52. Source: github.com/RoaringBitmap/RoaringFormatSpec.
        """
        cdef unsigned width = 0 if bits is None else width_of(bits)
        cdef Lease lease
        if type(data) is bytes:
            return of_roaring(PyBytes_AS_STRING(data), len(<bytes>data), width)
        lease = Lease(_buffers.as_bits(data.serialize() if serializes(data) else data))
        return of_roaring(lease.view.buf, lease.view.len, width)

    @staticmethod
    def from_arrow(data):
        """The set that Arrow data holds: of pyarrow, polars, DuckDB, or any that speaks PyCapsule.

        Columns `start` and `stop`, in either order, are half-open ranges; a single column, of
        whatever name, or an array, is gfns. Integers of any width, in any order, overlapping or
        repeated. `data` has `__arrow_c_stream__`, which is preferred, or `__arrow_c_array__`.

        TypeError for columns of another type; FormatError for others than these columns, nulls,
        and structures that contradict themselves; RangeError for gfns that are none and inverted
        ranges; SharedPagesError if the stream fails. O(n log n), and memory for all n rows.
        Source: arrow.apache.org/docs/format/CDataInterface.html.
        """
        cdef PageSet given = data if isinstance(data, PageSet) else None
        if given is None and not is_arrow(data):
            raise TypeError(f"{type(data).__name__} has no __arrow_c_stream__, __arrow_c_array__")
        return read_arrow(data, 0) if given is None else plain(given)

    # -- looking

    def __len__(self):
        return sp_set_count(&self.held().set)

    def __bool__(self):
        return sp_set_count(&self.held().set) != 0

    def __contains__(self, gfn):
        return sp_set_contains(&self.held().set, bounded(gfn, LIMIT - 1, "gfn"))

    def contains(self, gfns):
        """For each gfn whether it is a member: a bool array. O(h) each."""
        cdef Pin pin = self.held()
        cdef object table = _buffers.as_pages(gfns), found = _np.empty(len(table), _np.bool_)
        cdef Lease data = Lease(table), out = Lease(found, True)
        cdef size_t n = len(table)
        if n and table.max() >= LIMIT:
            raise RangeError(bad_page(table, int((table >= LIMIT).argmax())))
        with nogil:
            sp_set_contains_many(
                &pin.set, <const uint64_t *>data.view.buf, n, <uint8_t *>out.view.buf
            )
        return found

    def count(self, start=None, stop=None):
        """Members in [start, stop). O(64 h)."""
        cdef uint64_t first, end
        first, end = window(start, stop)
        return sp_set_count_range(&self.held().set, first, end)

    def rank(self, gfn):
        """Members below `gfn`; for an array of gfns an array of uint64. O(64 h) each."""
        cdef Pin pin = self.held()
        cdef object table, ranks
        cdef Lease data, out
        cdef size_t n, done
        if not is_array(gfn):
            return sp_set_rank(&pin.set, bounded(gfn, LIMIT, "gfn"))
        table = _buffers.as_pages(gfn)
        ranks = _np.empty(len(table), _np.uint64)
        data, out, n = Lease(table), Lease(ranks, True), len(table)
        with nogil:
            done = sp_set_rank_many(
                &pin.set, <const uint64_t *>data.view.buf, n, <uint64_t *>out.view.buf)
        if done < n:
            raise RangeError(f"page {done} is {int(table[done])}, above {LIMIT}")
        return ranks

    def select(self, index):
        """The member at position `index` in order; negative from the end. IndexError beyond.

        For an array of positions an array of uint64. O(64 h) each.
        """
        cdef Pin pin = self.held()
        cdef object count = sp_set_count(&pin.set), at, gfns
        cdef Lease data, out
        cdef size_t n, done
        if is_array(index):
            at = _buffers.as_positions(index, count)
            gfns = _np.empty(len(at), _np.uint64)
            data, out, n = Lease(at), Lease(gfns, True), len(at)
            with nogil:
                done = sp_set_select_many(
                    &pin.set, <const uint64_t *>data.view.buf, n, <uint64_t *>out.view.buf)
            if done < n:
                raise IndexError(f"position {done} holds an index beyond a set of {count} pages")
            return gfns
        try:
            at = PyNumber_Index(index)
        except TypeError:
            raise TypeError(f"index must be an integer, not {type(index).__name__}") from None
        at += count if at < 0 else 0
        if not 0 <= at < count:
            raise IndexError(f"index {index} of a set of {count} pages")
        return sp_set_select(&pin.set, at)

    def __getitem__(self, index):
        if is_array(index):
            raise TypeError("a set has one page at an index: select() takes arrays")
        return self.select(index)

    def min(self):
        """The first member. ValueError if there is none."""
        if not self:
            raise ValueError("an empty set has no first page")
        return self.select(0)

    def max(self):
        """The last member. ValueError if there is none."""
        if not self:
            raise ValueError("an empty set has no last page")
        return self.select(-1)

    def next_member(self, gfn):
        """The first member at or after `gfn`; None if there is none. O(64 h)."""
        cdef Pin pin = self.held()
        cdef uint64_t at = bounded(gfn, LIMIT - 1, "gfn")
        return gfn_or_none(sp_set_next(sp_kernels_active(), &pin.set, at, True))

    def next_gap(self, gfn):
        """The first gfn at or after `gfn` that is no member; None if there is none. O(64 h)."""
        cdef Pin pin = self.held()
        cdef uint64_t at = bounded(gfn, LIMIT - 1, "gfn")
        return gfn_or_none(sp_set_next(sp_kernels_active(), &pin.set, at, False))

    def prev_member(self, gfn):
        """The last member at or before `gfn`; None if there is none. O(64 h)."""
        return gfn_or_none(sp_set_prev(&self.held().set, bounded(gfn, LIMIT - 1, "gfn"), True))

    def prev_gap(self, gfn):
        """The last gfn at or before `gfn` that is no member; None if there is none.

        O(64 h) for each doubling of the run that ends at `gfn`.
        """
        return gfn_or_none(sp_set_prev(&self.held().set, bounded(gfn, LIMIT - 1, "gfn"), False))

    def contains_range(self, start, stop):
        """True if every gfn of [start, stop) is a member. O(64 h)."""
        cdef uint64_t first, end
        first, end = window(start, stop)
        return sp_set_count_range(&self.held().set, first, end) == end - first

    def __iter__(self):
        return _views.pages(self.iter_ranges())

    def __reversed__(self):
        return _views.pages_reversed(self.ranges())

    # -- as data

    def ranges(self, start=None, stop=None):
        """The members in [start, stop) as ranges. O(n + ranges)."""
        cdef Pin pin = self.held()
        cdef uint64_t first, end, n
        cdef Lease out
        cdef const sp_kernels *k = sp_kernels_active()
        first, end = window(start, stop)
        with nogil:
            n = sp_set_ranges_count(k, &pin.set, first, end)
        table = _np.empty((n, 2), _np.uint64)
        out = Lease(table, True)
        with nogil:
            sp_set_ranges_into(k, &pin.set, first, end, <sp_range *>out.view.buf, n)
        return table

    @property
    def nranges(self):
        """Maximal runs of members. O(n)."""
        cdef Pin pin = self.held()
        cdef uint64_t n
        with nogil:
            n = sp_set_nranges(sp_kernels_active(), &pin.set)
        return n

    def gaps(self, start=None, stop=None):
        """The complement within [start, stop) as ranges. O(n + ranges)."""
        first, end = window(start, stop)
        return _views.gaps(self.ranges(first, end), first, end)

    def pages(self, start=None, stop=None):
        """The members in [start, stop) as an array of uint64."""
        cdef Pin pin = self.held()
        cdef uint64_t first, end
        cdef Lease out
        first, end = window(start, stop)
        try:
            table = _np.empty(sp_set_count_range(&pin.set, first, end), _np.uint64)
        except ValueError as error:
            raise MemoryError(str(error)) from None
        out = Lease(table, True)
        with nogil:
            sp_set_pages_into(sp_kernels_active(), &pin.set, first, end, <uint64_t *>out.view.buf)
        return table

    def iter_ranges(self, batch=65536):
        """The members as arrays of at most `batch` ranges, one after the other, in bounded memory.

        Holds the version it reads until it ends.
        """
        cdef Pin pin = self.held()
        cdef size_t room = bounded(batch, 1 << 40, "batch")
        if room == 0:
            raise RangeError("a batch of 0 ranges: the least is 1")
        return iter_ranges_of(pin, room)

    def to_bitmap(self, start, npages, out=None):
        """Bits start .. start + npages, little-endian, in ceil(npages / 64) * 8 bytes of uint8.

        Written to `out`, a writable buffer of at least that size, where given; returns it.
        """
        cdef Pin pin = self.held()
        cdef uint64_t first = bounded(start, LIMIT, "start")
        cdef uint64_t n = bounded(npages, LIMIT, "npages"), size = (n + 63) // 64 * 8
        cdef Lease data
        cdef bint direct = False
        if n > LIMIT - first:
            raise RangeError(f"{n} pages from gfn {first} go beyond {LIMIT}")
        if out is not None:
            data = Lease(out, True)
            if <uint64_t>data.view.len < size:
                raise FormatError(f"the output has {data.view.len} bytes, {n} pages need {size}")
            direct = <size_t>data.view.buf % sizeof(uint64_t) == 0
        words = None if direct else _np.empty(size // 8, _np.uint64)
        if not direct:
            data = Lease(words, True)
        with nogil:
            sp_set_bitmap_into(sp_kernels_active(), &pin.set, first, n, <uint64_t *>data.view.buf)
        if out is None:
            return words.view(_np.uint8)
        if not direct:
            memoryview(out).cast("B")[:size] = words.view(_np.uint8)
        return out

    def to_roaring(self, bits=64):
        """The set as bytes of the portable Roaring format, of 64 bits or of 32. O(n + bytes).

        Equal sets are equal bytes: each 2^16 pages in the shortest of the format's containers.
        RangeError if a member needs more than 32 bits.
        Source: github.com/RoaringBitmap/RoaringFormatSpec.
        """
        return roaring_of(self.held(), width_of(bits) == 64, PY_SSIZE_T_MAX)

    def __arrow_c_schema__(self):
        """struct<start: uint64 not null, stop: uint64 not null>, as a capsule."""
        return schema_capsule()

    def __arrow_c_array__(self, requested_schema=None):
        """All ranges as one Arrow array of that struct: two capsules, of schema and array.

        The columns are made once, in memory that is the consumer's. There is one schema; another
        that is requested is passed over, as the protocol has it. O(n + ranges).
        """
        return schema_capsule(), array_capsule(self.held())

    def __arrow_c_stream__(self, requested_schema=None):
        """The ranges as a stream of Arrow arrays of at most 65,536 each, as a capsule.

        Each is made when it is asked for. The stream holds its version, also of a snapshot that is
        closed meanwhile, until it is released, in any thread.
        """
        return stream_capsule(self.held())

    # -- algebra

    def __or__(self, other):
        return combine(self, other, SP_OR) if isinstance(other, PageSet) else NotImplemented

    def __and__(self, other):
        return combine(self, other, SP_AND) if isinstance(other, PageSet) else NotImplemented

    def __sub__(self, other):
        return combine(self, other, SP_ANDNOT) if isinstance(other, PageSet) else NotImplemented

    def __xor__(self, other):
        return combine(self, other, SP_XOR) if isinstance(other, PageSet) else NotImplemented

    def union(self, *others):
        """The members of this set and of each of `others`, as a new set."""
        return _algebra.union(operands(self, others))

    def intersection(self, *others):
        """The members that each of `others` has too, as a new set."""
        return _algebra.intersection(operands(self, others))

    def difference(self, *others):
        """The members that none of `others` has, as a new set."""
        return _algebra.difference(operands(self, others))

    def symmetric_difference(self, *others):
        """The pages that an odd number of this set and `others` have, as a new set."""
        return _algebra.symmetric_difference(operands(self, others))

    def flip(self, start, stop):
        """A new set: this one, with each gfn of [start, stop) a member where it was none."""
        first, end = window(start, stop)
        return combine(self, PageSet.from_ranges([(first, end)]), SP_XOR)

    def shift(self, offset):
        """A new set: each member moved by `offset`, any integer, up or (negative) down.

        Members that would leave [0, 2^52) are dropped, as pyroaring does. O(ranges).
        """
        cdef Pin pin = self.held()
        cdef object by
        cdef uint64_t distance
        cdef bint down
        cdef sp_pageset *pages
        cdef sp_status status
        try:
            by = PyNumber_Index(offset)
        except TypeError:
            text = f"offset must be an integer, not {type(offset).__name__}"
            raise TypeError(text) from None
        down, distance = by < 0, min(abs(by), LIMIT)
        with nogil:
            status = sp_pageset_shift(NULL, &pin.set, distance, down, &pages)
        check(status, None)
        return adopt(pages)

    def intersection_count(self, PageSet other not None):
        """len(self & other), without building it."""
        return common(self, other)

    def union_count(self, PageSet other not None):
        """len(self | other), without building it."""
        return len(self) + len(other) - common(self, other)

    def difference_count(self, PageSet other not None):
        """len(self - other), without building it."""
        return len(self) - common(self, other)

    def symmetric_difference_count(self, PageSet other not None):
        """len(self ^ other), without building it."""
        return len(self) + len(other) - 2 * common(self, other)

    # pyroaring's names, for those who come from it.
    range_cardinality = count
    union_cardinality = union_count
    intersection_cardinality = intersection_count
    difference_cardinality = difference_count
    symmetric_difference_cardinality = symmetric_difference_count

    def jaccard_index(self, PageSet other not None):
        """len(self & other) / len(self | other), a float; NaN if both are empty."""
        cdef uint64_t both = common(self, other)
        return _algebra.ratio(both, len(self) + len(other) - both)

    def isdisjoint(self, PageSet other not None):
        """True if no page is a member of both."""
        return common(self, other) == 0

    def intersect(self, PageSet other not None):
        """True if a page is a member of both."""
        return common(self, other) != 0

    def issubset(self, PageSet other not None):
        """True if every member is one of `other`."""
        return common(self, other) == len(self)

    def issuperset(self, PageSet other not None):
        """True if every member of `other` is one."""
        return common(self, other) == len(other)

    def __eq__(self, other):
        if not isinstance(other, PageSet):
            return NotImplemented
        return len(self) == len(other) and common(self, other) == len(self)

    def __le__(self, other):
        if not isinstance(other, PageSet):
            return NotImplemented
        return common(self, other) == len(self)

    def __lt__(self, other):
        if not isinstance(other, PageSet):
            return NotImplemented
        return len(self) < len(other) and common(self, other) == len(self)

    # Not by `other <= self`: Python asks a Snapshot first, which would ask back without end.
    def __ge__(self, other):
        if not isinstance(other, PageSet):
            return NotImplemented
        return common(self, other) == len(other)

    def __gt__(self, other):
        if not isinstance(other, PageSet):
            return NotImplemented
        return len(self) > len(other) and common(self, other) == len(other)

    def __hash__(self):
        self.held()
        if self.cached_hash is None:
            self.cached_hash = hash(tuple(hash(part.tobytes()) for part in self.iter_ranges()))
        return self.cached_hash

    # -- cost, copies, text

    @property
    def nbytes(self):
        """Heap bytes of the nodes reachable. O(nodes)."""
        return self.stats()["bytes"]

    def stats(self):
        """A dict: pages, ranges, nodes, leaves by kind, bytes. O(nodes)."""
        cdef Pin pin = self.held()
        cdef sp_set_stats stats
        with nogil:
            sp_set_measure(&pin.set, &stats)
        return stats_dict(&stats, self.nranges)

    def __sizeof__(self):
        return object.__sizeof__(self) + self.nbytes

    def copy(self):
        """The set itself, which never changes; of a snapshot, another hold of its version."""
        return self.__copy__()

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        return self

    def __reduce_ex__(self, protocol):
        cdef bint roaring = roaring_is_shorter(self)
        octets = self.to_roaring() if roaring else self.ranges().astype("<u8", copy=False)
        data = _pickle.PickleBuffer(octets) if protocol >= 5 else bytes(memoryview(octets))
        return unpickled, ("roaring" if roaring else "ranges", data)

    def __repr__(self):
        if self.pin is None:
            return f"<{type(self).__name__}, closed>"
        return _views.shown(type(self).__name__, len(self), self.iter_ranges(_views.COUNTED))

    def _repr_html_(self):
        """The address space as a strip of SVG, for a notebook; under 20 kB, whatever the set."""
        if self.pin is None:
            return _svg.closed(type(self).__name__)
        return _svg.strips(type(self).__name__, self)


cdef bint roaring_is_shorter(PageSet pages) except -1:
    """Whether Roaring bytes are sure to be fewer than a list of ranges.

    Of a range they take at most 4, of 2^16 pages at most 18; a list takes 16 of a range. All of
    2^52 pages are one range, and 2^36 containers.
    """
    if not pages:
        return False
    return 2 * pages.nranges > 3 * ((pages.max() >> 16) - (pages.min() >> 16) + 1)


def roaring_within(PageSet pages not None, size_t most):
    """Its `to_roaring()`; RangeError, before anything is made, if that is more than `most` bytes."""
    return roaring_of(pages.held(), True, most)


def unpickled(form, data):
    """The set of a pickle: of Roaring bytes, or of little-endian pairs. FormatError, RangeError."""
    if form == "roaring":
        return PageSet.from_roaring(data)
    if form != "ranges":
        raise FormatError(f"a pickled PageSet is of 'roaring' or 'ranges', not {form!r}")
    octets = _buffers.as_bits(data)
    if len(octets) % sizeof(sp_range):
        text = f"{len(octets)} bytes are not whole ranges of {sizeof(sp_range)} bytes"
        raise FormatError(text, offset=len(octets))
    return PageSet.from_ranges(octets.view("<u8").astype(_np.uint64, copy=False))


def iter_ranges_of(Pin pin not None, size_t room):
    cdef sp_cursor cursor = sp_cursor_open(&pin.set, 0, LIMIT)
    cdef Lease out
    cdef size_t n = room
    while n == room:
        table = _np.empty((room, 2), _np.uint64)
        out = Lease(table, True)
        with nogil:
            n = sp_cursor_ranges(sp_kernels_active(), &cursor, <sp_range *>out.view.buf, room)
        if n:
            yield table[:n]


cdef dict stats_dict(sp_set_stats *stats, ranges):
    return {
        "pages": stats.pages,
        "ranges": ranges,
        "nodes": stats.nodes,
        "leaves": {
            "packed": stats.packed,
            "array": stats.arrays,
            "runs": stats.runs,
            "bitmap": stats.bitmaps,
            "narrow": stats.narrow,
            "wide": stats.wide,
        },
        "inner": stats.inner,
        "blocks": stats.blocks,
        "bytes": stats.bytes,
    }


# ---- other libraries' sets ----


cdef bint is_arrow(data) except -1:
    return hasattr(data, "__arrow_c_stream__") or hasattr(data, "__arrow_c_array__")


cdef bint serializes(data) except -1:
    return not isinstance(data, (bytes, _np.ndarray)) and callable(getattr(data, "serialize", None))


cdef PageSet plain(PageSet given):
    """The same set without a tracker's version, which a PageSet made of it must not hold."""
    return given if type(given) is PageSet else combine(given, PageSet(), SP_OR)


cdef PageSet taken(data, unsigned width):
    """The set of what is neither a buffer nor a list; None of those."""
    if isinstance(data, (_np.ndarray, list, tuple, bytes)):
        return None
    if isinstance(data, PageSet):
        return plain(data)
    if is_arrow(data):
        return read_arrow(data, width)
    return PageSet.from_roaring(data) if serializes(data) else None


@cython.final
cdef class ArrowRows:
    """Arrow data that is being read, and what it is read from: released with this, once."""
    cdef sp_arrow_rows rows
    cdef ArrowSchema schema
    cdef ArrowArray array
    cdef ArrowArrayStream stream

    def __cinit__(self):
        sp_arrow_rows_open(&self.rows, NULL)

    def __dealloc__(self):
        # The producer's callbacks may wait for a thread of its own, and that for the GIL.
        with nogil:
            sp_arrow_rows_close(&self.rows)
            if self.schema.release != NULL:
                self.schema.release(&self.schema)
            if self.array.release != NULL:
                self.array.release(&self.array)
            if self.stream.release != NULL:
                self.stream.release(&self.stream)

    cdef int check(self, sp_status status) except -1:
        if status != SP_INVALID:
            return check(status, None)
        cdef str why = self.rows.why.decode("utf-8", "replace")
        if self.rows.blame == SP_ARROW_TYPE:
            raise TypeError(why)
        if self.rows.blame == SP_ARROW_PRODUCER:
            raise SharedPagesError(why)
        raise (RangeError if self.rows.blame == SP_ARROW_BOUND else FormatError)(why)

    cdef int read_stream(self, capsule, unsigned width) except -1:
        cdef ArrowArrayStream *given = <ArrowArrayStream *>inside(capsule, b"arrow_array_stream")
        cdef sp_status status
        cdef cbool more = True
        self.stream, given.release = given[0], NULL
        with nogil:
            status = sp_arrow_rows_begin(&self.rows, &self.stream, width)
        self.check(status)
        while more:
            with nogil:
                status = sp_arrow_rows_next(&self.rows, &self.stream, &more)
            self.check(status)
            PyErr_CheckSignals()
        return 0

    cdef int read_array(self, capsules, unsigned width) except -1:
        if not isinstance(capsules, tuple) or len(capsules) != 2:
            raise TypeError("__arrow_c_array__ is to return two capsules")
        cdef ArrowSchema *schema = <ArrowSchema *>inside(capsules[0], b"arrow_schema")
        cdef ArrowArray *array = <ArrowArray *>inside(capsules[1], b"arrow_array")
        cdef sp_status status
        self.schema, schema.release = schema[0], NULL
        self.array, array.release = array[0], NULL
        with nogil:
            status = sp_arrow_rows_type(&self.rows, &self.schema, width)
            if status == SP_OK:
                status = sp_arrow_rows_add(&self.rows, &self.array)
        return self.check(status)


cdef void *inside(capsule, const char *name) except NULL:
    if not PyCapsule_IsValid(capsule, name):
        raise TypeError(f"a capsule {name.decode()!r} is needed, not {capsule!r}")
    return PyCapsule_GetPointer(capsule, name)


cdef PageSet read_arrow(data, unsigned width):
    cdef ArrowRows read = ArrowRows.__new__(ArrowRows)
    cdef sp_pageset *pages
    cdef sp_status status
    if hasattr(data, "__arrow_c_stream__"):
        read.read_stream(data.__arrow_c_stream__(), width)
    else:
        read.read_array(data.__arrow_c_array__(), width)
    with nogil:
        status = sp_arrow_rows_set(&read.rows, &sp_engine_roaring, &pages)
    check(status, None)
    return adopt(pages)


cdef void drop_schema(object capsule) noexcept:
    cdef ArrowSchema *held = <ArrowSchema *>PyCapsule_GetPointer(capsule, b"arrow_schema")
    if held.release != NULL:
        held.release(held)
    free(held)


cdef void drop_array(object capsule) noexcept:
    cdef ArrowArray *held = <ArrowArray *>PyCapsule_GetPointer(capsule, b"arrow_array")
    if held.release != NULL:
        held.release(held)
    free(held)


cdef void drop_stream(object capsule) noexcept:
    cdef ArrowArrayStream *held
    held = <ArrowArrayStream *>PyCapsule_GetPointer(capsule, b"arrow_array_stream")
    if held.release != NULL:
        held.release(held)
    free(held)


cdef boxed(size_t size, const char *name, PyCapsule_Destructor drop):
    """A capsule of a structure that is released, to be filled."""
    cdef void *made = calloc(1, size)
    if made == NULL:
        raise MemoryError
    try:
        return PyCapsule_New(made, name, drop)
    except MemoryError:
        free(made)
        raise


cdef schema_capsule():
    capsule = boxed(sizeof(ArrowSchema), b"arrow_schema", &drop_schema)
    check(sp_arrow_schema(NULL, <ArrowSchema *>inside(capsule, b"arrow_schema")), None)
    return capsule


cdef array_capsule(Pin pin):
    capsule = boxed(sizeof(ArrowArray), b"arrow_array", &drop_array)
    cdef ArrowArray *made = <ArrowArray *>inside(capsule, b"arrow_array")
    cdef sp_status status
    with nogil:
        status = sp_arrow_array(NULL, &pin.set, made)
    check(status, None)
    return capsule


cdef stream_capsule(Pin pin):
    capsule = boxed(sizeof(ArrowArrayStream), b"arrow_array_stream", &drop_stream)
    cdef ArrowArrayStream *made = <ArrowArrayStream *>inside(capsule, b"arrow_array_stream")
    cdef const sp_snapshot *snapshot = NULL if pin.snapshot.tracker == NULL else &pin.snapshot
    cdef sp_status status
    with nogil:
        status = sp_arrow_stream(NULL, &pin.set, pin.pages, snapshot, made)
    check(status, None)
    return capsule


def arrow_held():
    """Structures and columns of Arrow data that consumers have not released yet."""
    return sp_arrow_held()


# ---- snapshots ----


@cython.final
cdef class Transfer:
    """What one pass sends: the result of `Snapshot.merge`. Immutable but for the arrays' content.

    `shared` travels as plain bytes, `private` through the platform's encrypting path: (n, 2) arrays
    of uint64, half-open ranges of gfns, sorted, disjoint and coalesced, the caller's own.
    `converted` is what is sent because it was converted, dirty or not; `epoch` is the snapshot's.
    """
    cdef readonly object shared, private
    cdef readonly uint64_t shared_pages, private_pages
    cdef readonly PageSet converted
    cdef readonly uint64_t epoch

    def __init__(self):
        raise TypeError("transfers are made by Snapshot.merge()")

    def __repr__(self):
        return (f"<Transfer of {self.shared_pages} shared and {self.private_pages} private pages,"
                f" epoch {self.epoch}>")


@cython.final
@cython.freelist(64)
cdef class Snapshot(PageSet):
    """The PageSet that a SharedPages was at one epoch.

    Made by `SharedPages.snapshot`; pins its version until it is closed or collected, by any thread,
    and outlives its tracker.
    """

    def __init__(self):
        raise TypeError("snapshots are made by SharedPages.snapshot()")

    cdef Pin version(self):
        cdef Pin pin = self.held()
        if pin.snapshot.tracker == NULL:
            raise ClosedError("the snapshot is of no tracker")
        return pin

    @property
    def epoch(self):
        """The number of committed changes at that instant."""
        return sp_snapshot_epoch(&self.version().snapshot)

    def converted_since(self, Snapshot older not None):
        """Every page converted after `older` and up to this snapshot, flips and back included.

        `older` is of the same tracker and not newer, else ValueError. Proportional to what was
        converted.
        """
        cdef Pin a = self.version(), b = older.version()
        cdef sp_pageset *pages
        cdef sp_status status
        with nogil:
            status = sp_snapshot_converted(&a.snapshot, &b.snapshot, &pages)
        if status == SP_INVALID and a.snapshot.tracker != b.snapshot.tracker:
            raise ValueError("`older` is a snapshot of another tracker")
        if status == SP_INVALID:
            raise ValueError(f"`older` is newer: epoch {older.epoch} is above {self.epoch}")
        check(status, "the tracker")
        return adopt(pages)

    def merge(self, dirty, since=None, memory=None, threads=1):
        """What to send, split by the status in this snapshot: a `Transfer`.

        To send = dirty | (converted_since(since) & memory, if `since` is given). `dirty` is a
        DirtyLog (a look: it keeps its pages, and for a transfer they must be taken before the
        snapshot is), a Harvest, a PageSet, or ranges; `memory`, a GuestMemory,
        says what is RAM and is by default the log's. One pass over each dirty bitmap, shared among
        up to `threads` threads (1 to 256, RangeError outside): the caller's and others that end
        with the call. The result is the same for any number of them.
        """
        cdef size_t workers = bounded(threads, SP_THREADS_MOST, "threads")
        if workers == 0:
            raise RangeError("threads is 0: the least is 1")
        return Plan(self, dirty, since, memory).all(workers)

    def iter_merge(self, dirty, since=None, memory=None, batch=65536):
        """The same as Transfers of at most `batch` ranges in each list, in bounded memory."""
        cdef size_t room = bounded(batch, 1 << 40, "batch")
        if room == 0:
            raise RangeError("a batch of 0 ranges: the least is 1")
        return merged_of(Plan(self, dirty, since, memory), room)

    def __copy__(self):
        cdef Snapshot made = Snapshot.__new__(Snapshot)
        made.pin = self.version()
        return made

    def __deepcopy__(self, memo):
        return self.__copy__()

    def close(self):
        """Releases the version. Closing twice is nothing."""
        self.pin = None

    def __enter__(self):
        self.held()
        return self

    def __exit__(self, *exception):
        self.close()


@cython.final
cdef class Plan:
    """A merge under way, with everything it reads from."""
    cdef sp_merge *merge
    cdef Pin pin, extra_pin
    cdef Taken taken
    cdef PageSet converted
    cdef uint64_t epoch

    def __cinit__(self, Snapshot snapshot not None, dirty, since, memory):
        cdef sp_status status
        cdef sp_harvest *harvest = NULL
        cdef PageSet extra = PageSet()
        if memory is not None and not isinstance(getattr(memory, "_memory", None), Memory):
            raise TypeError(f"memory must be GuestMemory, not {type(memory).__name__}")
        self.pin = snapshot.version()
        self.epoch = snapshot.epoch
        self.converted = PageSet() if since is None else snapshot.converted_since(since)
        if isinstance(dirty, PageSet):
            extra = dirty
        elif hasattr(dirty, "_taken"):
            self.taken = dirty._taken()
            self.taken.has_pages()
            harvest = self.taken.harvest
        else:
            extra = PageSet.from_ranges(dirty)
        if self.converted and memory is None and self.taken is not None:
            memory = self.taken.memory()
        if self.converted and memory is not None:
            self.converted = self.converted & memory.pages()
        if self.converted:
            extra = extra | self.converted if extra else self.converted
        self.extra_pin = extra.held()
        with nogil:
            status = sp_merge_new(NULL, harvest, &self.extra_pin.set, &self.pin.set, &self.merge)
        check(status, None)

    def __dealloc__(self):
        sp_merge_free(self.merge)

    cdef all(self, size_t threads):
        cdef Ranges shared = Ranges(), private = Ranges()
        cdef sp_status status
        with nogil:
            status = sp_merge_all(
                self.merge, threads, &shared.mem, &shared.list, &private.list)
        check(status, None)
        return self.transfer(shared.array(), private.array(), shared.list.pages, private.list.pages)

    cdef Transfer transfer(self, shared, private, uint64_t shared_pages, uint64_t private_pages):
        cdef Transfer made = Transfer.__new__(Transfer)
        made.shared, made.private = shared, private
        made.shared_pages, made.private_pages = shared_pages, private_pages
        made.converted, made.epoch = self.converted, self.epoch
        return made


def merged_of(Plan plan not None, size_t room):
    cdef sp_list shared, private
    cdef Lease to_shared, to_private
    cdef bint over = False
    while not over:
        tables = [_np.empty((room, 2), _np.uint64) for _ in range(2)]
        to_shared, to_private = Lease(tables[0], True), Lease(tables[1], True)
        shared.ranges = <sp_range *>to_shared.view.buf
        private.ranges = <sp_range *>to_private.view.buf
        shared.n = private.n = shared.pages = private.pages = 0
        shared.room = private.room = room
        with nogil:
            over = sp_merge_next(plan.merge, &shared, &private)
        if shared.n or private.n:
            yield plan.transfer(
                tables[0][: shared.n], tables[1][: private.n], shared.pages, private.pages
            )


@cython.final
cdef class Ranges:
    """A list of ranges that the core has allocated, as the memory of an array."""
    cdef sp_mem mem
    cdef sp_list list

    def __cinit__(self):
        sp_mem_init(&self.mem, NULL)

    def __dealloc__(self):
        sp_list_free(&self.mem, &self.list)

    def __getbuffer__(self, Py_buffer *view, int flags):
        PyBuffer_FillInfo(view, self, self.list.ranges, self.list.n * sizeof(sp_range), 0, flags)

    cdef array(self):
        if not self.list.n:
            return _np.empty((0, 2), _np.uint64)
        return _np.frombuffer(self, _np.uint64).reshape(-1, 2)


# ---- the tracker ----


cdef Snapshot wrap(sp_snapshot snapshot):
    cdef Snapshot made
    try:
        made = Snapshot.__new__(Snapshot)
    except MemoryError:
        sp_snapshot_release(&snapshot)
        raise
    made.pin.snapshot = snapshot
    made.pin.set = sp_snapshot_set(&snapshot)
    return made


cdef bint is_shared(initial) except -1:
    if not isinstance(initial, str):
        raise TypeError(f"initial must be str, not {type(initial).__name__}")
    if initial not in ("private", "shared"):
        raise ValueError(f"initial is {initial!r}: 'private' or 'shared'")
    return initial == "shared"


@cython.final
cdef class SharedPages:
    """Which pages of a guest are shared with its host: the one thing here that changes.

    `npages` bounds the guest (an int, or a size as text such as "1TiB" in pages of `page_size`
    bytes); None is every gfn below 2^52. Every page is `initial` at first. `engine` is what holds
    the set: "roaring" (bitmaps and lists of numbers), "interval" (runs), or "auto", the smaller of
    the two, chosen anew as the set changes. Methods may be called from any thread; changes are
    atomic, and on any error nothing has changed.
    """
    cdef sp_tracker *tracker
    cdef readonly object page_size
    cdef uint64_t hint_events, hint_pages  # what was applied untrusted; under self's lock
    cdef object allowed  # None, False or True
    cdef object __weakref__

    def __cinit__(self, npages=None, *, initial="private", engine="auto", page_size=4096):
        cdef uint64_t bound = LIMIT
        cdef bint shared = is_shared(initial)
        cdef const sp_engine *kind = NULL
        if not isinstance(engine, str):
            raise TypeError(f"engine must be str, not {type(engine).__name__}")
        if engine not in ("roaring", "interval", "auto"):
            raise ValueError(f"engine is {engine!r}: 'roaring', 'interval' or 'auto'")
        if engine != "auto":
            kind = &sp_engine_interval if engine == "interval" else &sp_engine_roaring
        self.page_size = bounded(page_size, 1 << 40, "page_size")
        if self.page_size == 0:
            raise RangeError("page_size is 0: the least is 1")
        if isinstance(npages, str):
            bound = _units.parse_pages(npages, self.page_size)
        elif npages is not None:
            bound = bounded(npages, LIMIT, "npages")
        check(sp_tracker_new(NULL, kind, bound, shared, &self.tracker), None)
        _fork.watch(self)

    def __dealloc__(self):
        with nogil:
            sp_tracker_free(self.tracker)

    def _after_fork(self):
        sp_tracker_after_fork(self.tracker)

    cdef int opened(self) except -1:
        if sp_tracker_is_closed(self.tracker):
            raise ClosedError("the tracker is closed")
        return 0

    cdef int refuse(self, sp_status status, start, npages) except -1:
        cdef uint64_t bound = sp_tracker_bound(self.tracker)
        if status == SP_RANGE:
            raise RangeError(f"{npages} pages from gfn {start} go beyond the guest's {bound} pages")
        return check(status, "the tracker")

    cdef uint64_t turn(self, uint64_t first, uint64_t n, bint shared) except? 0xdead:
        cdef uint64_t changed
        cdef sp_status status = SP_BUSY
        if n <= SHORT:
            status = sp_tracker_convert(self.tracker, first, n, shared, False, &changed)
        if status == SP_BUSY:
            with nogil:
                status = sp_tracker_convert(self.tracker, first, n, shared, True, &changed)
        if status:
            self.refuse(status, first, n)
        return changed

    cdef uint64_t turn_all(self, table, const sp_event *batch, size_t n) except? 0xdead:
        cdef size_t bad = 0
        cdef uint64_t changed
        cdef sp_status status
        with nogil:
            status = sp_tracker_apply(self.tracker, batch, n, &changed, &bad)
        if status == SP_INVALID:
            raise RangeError(f"event {bad} has shared {int(table['shared'][bad])}: 0 or 1")
        if status == SP_RANGE:
            self.refuse(status, int(table["start"][bad]), int(table["npages"][bad]))
        check(status, "the tracker")
        return changed

    # -- changing

    def share(self, start, npages=1):
        """Makes pages [start, start + npages) shared; returns how many were not. O(h)."""
        return self.turn(index_of(start), index_of(npages), True)

    def unshare(self, start, npages=1):
        """Makes pages [start, start + npages) private; returns how many were not. O(h)."""
        return self.turn(index_of(start), index_of(npages), False)

    def convert(self, start, npages, shared):
        """Converts pages and returns those that changed, as ranges.

        A VMM that tells the platform forwards exactly these: repeating a status may clear pages.
        What the platform then clears no dirty log has, and a round of a migration may have come
        between: the VMM adds these ranges to its `DirtyLog` when the platform is done.
        """
        cdef uint64_t first = index_of(start), n = index_of(npages), changed
        cdef bint value = shared
        cdef sp_pageset *pages
        cdef sp_status status
        with nogil:
            status = sp_tracker_convert_list(self.tracker, first, n, value, &changed, &pages)
        if status:
            self.refuse(status, start, npages)
        return adopt(pages).ranges()

    def apply(self, events, *, trusted=True):
        """Converts by an array of EVENT_DTYPE, in order, all or nothing, as one change.

        Returns the number of pages whose status changed, summed over the events. With `trusted`
        false they are hints, requests about which a guest can lie (`abi.tdx.MapGpa`): they convert
        all the same, and once that is done `stats()` counts the events and those pages.
        """
        cdef object table = _buffers.as_events(events)
        cdef Lease data = Lease(table)
        cdef const sp_event *batch = <const sp_event *>data.view.buf
        cdef size_t n = len(table)
        cdef uint64_t changed
        if n == 1 and batch.shared <= 1:
            changed = self.turn(batch.start, batch.npages, batch.shared)
        else:
            changed = self.turn_all(table, batch, n)
        if not trusted:
            with cython.critical_section(self):
                self.hint_events += n
                self.hint_pages += changed
        return changed

    def set_list(self, ranges):
        """Makes the shared pages exactly those of `ranges`; returns how many changed."""
        cdef object table = _buffers.as_ranges(ranges)
        cdef Lease data = Lease(table)
        cdef size_t n = len(table), bad = 0
        cdef uint64_t changed, bound = sp_tracker_bound(self.tracker)
        cdef sp_status status
        with nogil:
            status = sp_tracker_set_list(
                self.tracker, <const sp_range *>data.view.buf, n, &changed, &bad
            )
        if status == SP_RANGE and bad == n:
            bad = int(((table[:, 1] > bound) & (table[:, 0] < table[:, 1])).argmax())
            start, stop = table[bad].tolist()
            raise RangeError(f"range {bad} is [{start}, {stop}): the guest has {bound} pages")
        if status == SP_RANGE or status == SP_INVALID:
            raise RangeError(bad_range(table, bad))
        check(status, "the tracker")
        return changed

    def reset(self, initial="private"):
        """Makes every page "private" or "shared"; returns how many changed."""
        return self.turn(0, sp_tracker_bound(self.tracker), is_shared(initial))

    # -- reading

    def snapshot(self):
        """A Snapshot of everything that had returned before the call. O(1), lock-free if nothing
        changed since the last one. SnapshotLimitError if snapshots pin 65,534 versions."""
        cdef sp_snapshot snapshot
        cdef sp_status status = sp_tracker_snapshot(self.tracker, False, &snapshot)
        if status == SP_BUSY:
            with nogil:
                status = sp_tracker_snapshot(self.tracker, True, &snapshot)
        check(status, "the tracker")
        return wrap(snapshot)

    def latest(self):
        """The newest published Snapshot: wait-free, may lag behind."""
        cdef sp_snapshot snapshot
        check(sp_tracker_latest(self.tracker, &snapshot), "the tracker")
        return wrap(snapshot)

    def get_list(self):
        """The shared ranges now: `snapshot().ranges()`, {gfn_start, gfn_end} pairs."""
        return self.snapshot().ranges()

    def __contains__(self, gfn):
        cdef uint64_t bound = sp_tracker_bound(self.tracker)
        cdef cbool shared = False
        self.opened()
        if bound == 0:
            raise RangeError(f"gfn is {gfn}: the guest has 0 pages")
        cdef uint64_t at = bounded(gfn, bound - 1, "gfn")
        cdef sp_status status = sp_tracker_contains(self.tracker, at, False, &shared)
        if status == SP_BUSY:
            with nogil:
                status = sp_tracker_contains(self.tracker, at, True, &shared)
        check(status, "the tracker")
        return bool(shared)

    def __len__(self):
        self.opened()
        return sp_tracker_count(self.tracker)

    def __bool__(self):
        return len(self) != 0

    @property
    def epoch(self):
        """The number of committed changes; wait-free."""
        self.opened()
        return sp_tracker_epoch(self.tracker)

    @property
    def npages(self):
        """The bound: gfns are below it."""
        return sp_tracker_bound(self.tracker)

    @property
    def migration_allowed(self):
        """What the guest last said of its migration: True, False, or None (it never said).

        The VMM sets it from MSR_KVM_MIGRATION_CONTROL (`abi.sev.decode_migration_control`); no
        change of the set. While it is False a `Migration` does not finish.
        """
        return self.allowed

    @migration_allowed.setter
    def migration_allowed(self, allowed):
        if allowed is not None and not isinstance(allowed, bool):
            raise TypeError(f"migration_allowed is None, False or True, not {allowed!r}")
        self.allowed = allowed

    # -- being told

    def fileno(self):
        """An eventfd that is readable after a change; the same at every call, closed by close().

        Reading eight bytes from it (`os.eventfd_read`) clears it: do that before the snapshot, or a
        change between the two wakes nobody. Until first asked for it costs a writer nothing.
        """
        cdef int fd = -1
        cdef sp_status status
        with nogil:
            status = sp_tracker_fd(self.tracker, &fd)
        if status == SP_NOMEM:
            raise OSError("no eventfd can be had")
        check(status, "the tracker")
        return fd

    def wait(self, epoch, timeout=None):
        """Sleeps until the epoch is above `epoch`, or `timeout` seconds; returns the epoch then.

        With `snapshot.epoch` it returns at once if anything changed after that snapshot.
        """
        cdef uint64_t seen = bounded(epoch, <uint64_t>-1, "epoch"), now = 0
        cdef sp_status status
        cdef int64_t left = -1
        end = None if timeout is None else _time.monotonic() + timeout
        while True:
            if end is not None:
                left = <int64_t>(max(0.0, min(end - _time.monotonic(), 1e9)) * 1e9)
            with nogil:
                status = sp_tracker_wait(self.tracker, seen, left, &now)
            PyErr_CheckSignals()
            if status != SP_AGAIN or left == 0:
                break
        if status != SP_AGAIN:
            check(status, "the tracker")
        return now

    # -- cost and end

    @property
    def nbytes(self):
        """Heap bytes: the present state, and what snapshots retain; wait-free."""
        self.opened()
        return sp_tracker_bytes(self.tracker)

    def stats(self):
        """A dict: what `PageSet.stats` has, and engine, epoch, versions (the newest and those
        held), live_nodes and live_bytes (of all versions), trail (logged conversions), hint_events
        and hint_pages (what `apply` did untrusted: events given, pages changed). O(nodes)."""
        cdef sp_tracker_stats stats
        cdef uint64_t hint_events, hint_pages
        cdef sp_status status
        with nogil:
            status = sp_tracker_measure(self.tracker, &stats)
        check(status, "the tracker")
        with cython.critical_section(self):
            hint_events, hint_pages = self.hint_events, self.hint_pages
        return {
            **stats_dict(&stats.set, stats.ranges),
            "engine": stats.engine.decode(),
            "epoch": stats.epoch,
            "versions": stats.versions,
            "live_nodes": stats.live_nodes,
            "live_bytes": stats.live_bytes,
            "trail": stats.trail,
            "hint_events": hint_events,
            "hint_pages": hint_pages,
        }

    def close(self):
        """Ends the tracker for all threads; snapshots stay. Closing twice is nothing."""
        cdef sp_status status
        with nogil:
            status = sp_tracker_close(self.tracker)
        check(status, "the tracker")

    def __enter__(self):
        self.opened()
        return self

    def __exit__(self, *exception):
        self.close()

    def __repr__(self):
        if sp_tracker_is_closed(self.tracker):
            return "<SharedPages, closed>"
        return f"<SharedPages of {self.npages} pages, {len(self)} shared, epoch {self.epoch}>"


# ---- handles of dirty logs, for dirty.py ----


@cython.final
cdef class Memory:
    """A guest's slots."""
    cdef sp_memory *memory

    def __cinit__(self, slots):
        cdef object table = _np.array(
            slots, dtype=[("gfn", "<u8"), ("npages", "<u8"), ("id", "<u4"), ("_", "<u4")]
        )
        cdef Lease data = Lease(table)
        cdef size_t bad = 0, other = 0
        cdef sp_status status
        status = sp_memory_new(
            NULL, &sp_engine_roaring, <const sp_memslot *>data.view.buf, len(table),
            &self.memory, &bad, &other,
        )
        if status == SP_RANGE or status == SP_INVALID:
            raise IndexError(bad, other)
        check(status, None)

    def __dealloc__(self):
        sp_memory_release(self.memory)

    def __len__(self):
        return sp_memory_count(self.memory)

    cdef int has(self, size_t index) except -1:
        if index >= sp_memory_count(self.memory):
            raise IndexError(f"slot at {index} of {len(self)}")
        return 0

    def at(self, size_t index):
        self.has(index)
        cdef const sp_memslot *slot = sp_memory_at(self.memory, index)
        return slot.id, slot.gfn, slot.npages

    def find(self, uint32_t id):
        """The index of a slot, or -1."""
        cdef size_t index
        return index if sp_memory_find(self.memory, id, &index) == SP_OK else -1

    def pages(self):
        cdef Pin pin = Pin.__new__(Pin)
        cdef PageSet empty = PageSet()
        pin.set = sp_memory_pages(self.memory)[0]
        cdef sp_pageset *pages
        check(sp_pageset_combine(NULL, SP_OR, &pin.set, &empty.pin.set, &pages), None)
        return adopt(pages)


cdef sp_memslot memslot(slot) except *:
    """The slot of a (slot, gfn, npages)."""
    cdef sp_memslot made
    made.id, made.gfn, made.npages = slot
    return made


@cython.final
cdef class Taken:
    """A harvest's pages. What was taken goes back to its log unless `ended` said that it arrived."""
    cdef sp_harvest *harvest
    cdef sp_log *log  # NULL: nothing is owed to a log

    cdef int has_pages(self) except -1:
        if self.harvest == NULL:
            raise ClosedError("nothing was taken")
        return 0

    def is_of(self, Memory memory not None):
        """Whether the pages were taken when the log was of just this memory."""
        return self.harvest != NULL and sp_harvest_memory(self.harvest) == memory.memory

    def memory(self):
        """The slots when the pages were taken."""
        self.has_pages()
        cdef Memory made = Memory([])
        sp_memory_release(made.memory)
        made.memory = sp_memory_retain(sp_harvest_memory(self.harvest))
        return made

    def count(self):
        cdef uint64_t pages = 0
        cdef sp_status status
        self.has_pages()
        with nogil:
            status = sp_merge_count(NULL, self.harvest, &pages)
        check(status, None)
        return pages

    def pages(self):
        """The pages as a set."""
        cdef sp_pageset *pages
        cdef sp_status status
        self.has_pages()
        with nogil:
            status = sp_merge_pages(NULL, self.harvest, &pages)
        check(status, None)
        return adopt(pages)

    cdef void settle(self, bint give_back) noexcept:
        cdef sp_log *log = self.log
        self.log = NULL
        with nogil:
            if give_back:
                sp_log_give_back(log, sp_harvest_retain(self.harvest))
            sp_log_free(log)

    def __dealloc__(self):
        if self.log != NULL:
            self.settle(True)
        sp_harvest_release(self.harvest)


@cython.final
cdef class Loan:
    """A lent bitmap: a writable buffer, until it is collected."""
    cdef sp_bits *bits
    cdef Py_ssize_t nbytes

    def __dealloc__(self):
        if self.bits != NULL:
            sp_loan_end(self.bits)

    def __getbuffer__(self, Py_buffer *view, int flags):
        if self.bits == NULL:
            raise BufferError("nothing is lent")
        PyBuffer_FillInfo(view, self, sp_loan_words(self.bits), self.nbytes, 0, flags)


@cython.final
cdef class Log:
    """A dirty log; arrays are those of _buffers, slots are (slot, gfn, npages).

    A slot that the log's memory does not have, or no longer has, is a KeyError.
    """
    cdef sp_log *log
    cdef object __weakref__

    def __cinit__(self, Memory memory not None):
        check(sp_log_new(NULL, memory.memory, &self.log), None)
        _fork.watch(self)

    def __dealloc__(self):
        sp_log_free(self.log)

    def _after_fork(self):
        sp_log_after_fork(self.log)

    @property
    def nbytes(self):
        cdef uint64_t held
        with nogil:
            held = sp_log_bytes(self.log)
        return held

    def add_bitmap(self, slot, bits, uint64_t first_page, uint64_t npages):
        cdef sp_memslot place = memslot(slot)
        cdef Lease data = Lease(bits)
        cdef sp_status status
        if (npages + 7) // 8 > <uint64_t>data.view.len:
            raise IndexError(npages)
        with nogil:
            status = sp_log_add_bitmap(self.log, &place, data.view.buf, first_page, npages)
        if status == SP_UNKNOWN:
            raise KeyError(slot)
        check(status, None)

    def lend(self, slot):
        cdef sp_memslot place = memslot(slot)
        cdef Loan loan = Loan.__new__(Loan)
        cdef sp_status status
        with nogil:
            status = sp_log_lend(self.log, &place, &loan.bits)
        if status == SP_UNKNOWN:
            raise KeyError(slot)
        check(status, None)
        loan.nbytes = (place.npages + 63) // 64 * 8
        return loan

    def settle(self, slot, Loan loan not None):
        """Adds what was written to a loan of that slot, unless the log will still read it."""
        cdef sp_memslot place = memslot(slot)
        cdef sp_status status
        if loan.bits == NULL or (place.npages + 63) // 64 * 8 != <uint64_t>loan.nbytes:
            raise BufferError(slot)
        with nogil:
            status = sp_log_settle(self.log, &place, loan.bits)
        check(status, None)

    def add_ranges(self, table):
        cdef Lease data = Lease(table)
        cdef size_t n = len(table), bad = 0
        cdef sp_status status
        with nogil:
            status = sp_log_add_ranges(self.log, <const sp_range *>data.view.buf, n, &bad)
        if status:
            check(status, bad_range(table, bad))

    def add_pages(self, table):
        cdef Lease data = Lease(table)
        cdef size_t n = len(table), bad = 0
        cdef sp_status status
        with nogil:
            status = sp_log_add_pages(self.log, <const uint64_t *>data.view.buf, n, &bad)
        if status:
            check(status, bad_page(table, bad))

    def add_ring(self, table):
        """None, or the index of the entry that is refused."""
        cdef Lease data = Lease(table)
        cdef size_t n = len(table), bad = 0
        cdef sp_status status
        with nogil:
            status = sp_log_add_ring(self.log, <const sp_ring_entry *>data.view.buf, n, &bad)
        if status == SP_UNKNOWN or status == SP_RANGE or status == SP_INVALID:
            return bad
        check(status, None)

    def take(self):
        cdef Taken taken = Taken.__new__(Taken)
        cdef sp_status status
        with nogil:
            status = sp_log_take(self.log, &taken.harvest)
        check(status, None)
        taken.log = sp_log_retain(self.log)
        return taken

    def peek(self):
        """The pages, which stay in the log."""
        cdef Taken taken = Taken.__new__(Taken)
        cdef sp_status status
        with nogil:
            status = sp_log_peek(self.log, &taken.harvest)
        check(status, None)
        return taken


def united(parts):
    """What several Taken hold together, of the last one's memory; no log is owed it."""
    cdef Taken part, sum = Taken.__new__(Taken)
    cdef sp_status status
    table = _np.empty(len(parts), _np.uintp)
    for at, part in enumerate(parts):
        part.has_pages()
        table[at] = <uintptr_t>part.harvest
    cdef Lease data = Lease(table)
    cdef size_t n = len(table)
    if n == 0:
        raise IndexError(n)
    with nogil:
        status = sp_harvest_unite(NULL, <sp_harvest **>data.view.buf, n, &sum.harvest)
    check(status, None)
    return sum


def ended(tuple parts not None, bint give_back):
    """Puts the pages of several Taken back, or drops them: of all, and no signal comes between.

    ClosedError, and nothing is done, if one of them has ended: of threads that end the same parts
    at once, one gets past this.
    """
    cdef Taken part
    for part in parts:
        if part.log == NULL:
            raise ClosedError("the harvest was already committed or aborted")
    for part in parts:
        part.settle(give_back)


def give_memory(logs, Memory memory not None):
    """Other slots for logs of one memory, each named once; new pages become dirty in the first."""
    cdef Log log
    cdef sp_status status
    table = _np.empty(len(logs), _np.uintp)
    for at, log in enumerate(logs):
        table[at] = <uintptr_t>log.log
    cdef Lease data = Lease(table)
    cdef size_t n = len(table)
    with nogil:
        status = sp_log_set_memory(<sp_log **>data.view.buf, n, memory.memory)
    check(status, None)


def count_bits(bits, uint64_t npages):
    """The set bits among the first npages of a bitmap."""
    cdef Lease data = Lease(bits)
    cdef uint64_t count
    if (npages + 7) // 8 > <uint64_t>data.view.len:
        raise IndexError(npages)
    with nogil:
        count = sp_bitmap_count(data.view.buf, npages)
    return count


@cython.final
cdef class Ring:
    """A vCPU's dirty ring over its mapping, and how far it is harvested. One thread at a time.

    Where whoever harvested before stopped is found out by the first entry that is dirty.
    """
    cdef Lease mapping
    cdef uint32_t size
    cdef uint32_t next
    cdef bint found

    def __cinit__(self, mapping):
        self.mapping = Lease(mapping, True)
        cdef Py_ssize_t entries = self.mapping.view.len // sizeof(sp_ring_entry)
        if entries < 1 or entries > 1 << 31 or entries & (entries - 1):
            raise ValueError(f"a ring of {entries} entries: their number is a power of two")
        self.size = <uint32_t>entries

    def __len__(self):
        return self.size

    def harvest(self, table, size_t used):
        """Moves dirty entries into `table` from its entry `used` on; how many."""
        cdef Lease data = Lease(table, True)
        cdef size_t room = len(table)
        if used > room:
            raise IndexError(used)
        cdef sp_ring_entry *out = <sp_ring_entry *>data.view.buf + used
        cdef sp_ring_entry *ring = <sp_ring_entry *>self.mapping.view.buf
        cdef size_t n = 0
        with nogil:
            if not self.found:
                self.found = sp_ring_find(ring, self.size, &self.next)
            if self.found:
                n = sp_ring_harvest(ring, self.size, &self.next, out, room - used)
        return n


# ---- kernels ----


def kernels():
    """Which word kernels serve: {"active": name, "available": [names, slowest first]}.

    PYSHAREDPAGES_KERNELS, read at import, names one of them; else CPUID chooses.
    """
    cdef size_t i = 0
    available = []
    while sp_kernels_at(i) != NULL:
        available.append(sp_kernels_at(i).name.decode())
        i += 1
    return {"active": sp_kernels_active().name.decode(), "available": available}


cdef int choose_kernels() except -1:
    cdef bytes name = _os.fsencode(_os.environ.get("PYSHAREDPAGES_KERNELS", ""))
    if not name:
        return 0
    if sp_kernels_find(name) == NULL:
        known = ", ".join(kernels()["available"])
        raise ImportError(f"PYSHAREDPAGES_KERNELS is {_os.fsdecode(name)!r}: this host has {known}")
    sp_kernels_use(sp_kernels_find(name))
    return 0


choose_kernels()

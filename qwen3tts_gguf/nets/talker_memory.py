"""Which stream of which context holds which sequence, and how that memory grows and shrinks.

Contexts come in sizes: 512 cells per stream, then half as much again, and so on. Sequences of one size share a context,
so that one pass reads the weights for all of them. Those of another size have their own, because memory is a table as
long as its longest row, and a pass looks at as many keys for every lane as for its longest. With one lane of 2,000
positions and seven of 300, one table of the 0.6B would take 1.9 GB, and these two take 0.65.

    512 cells:  [ a ][ b ][ idle ][   ]      the context of this size
    768 cells:  [ c ]

Nobody waits for a large context to be made, which takes 37 ms per 100 MB: another thread makes it, and sequences move
over one per step (5.5 ms per 100 positions). Until then they lie in contexts of one stream each. When sequences
leave, smaller contexts follow in the same manner; when the last one leaves, little is kept.

Where a sequence lies changes the time it takes, never what is computed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendError
from ..freed_memory import return_freed_memory
from .talker_context import CELL_STEP, Context, copy_sequence, room_for_copies

__all__ = ["Slot", "TalkerMemory"]

Rows = NDArray[np.float32]
Room = NDArray[np.uint32]

_FIRST_SIZE = 512
"""Cells: 40 s of speech with its prompt. Most sentences never leave it."""
_KEPT_CELLS = 1024
"""What may stay when it is not needed, for the next sequences: 115 MB of the 0.6B."""
_AHEAD = 32
"""Positions before its end, in frames 2.5 s of speech, at which a sequence's next context is ordered."""
_SHRINK = 4
"""A context is exchanged for a smaller one when it has so many times the streams that are needed."""


class Slot:
    """The keys and values of a sequence, open or left behind: a stream of a context."""

    def __init__(self, context: Context, stream: int, prefix: Rows) -> None:
        self.context, self.stream = context, stream
        self.n_positions = 0
        self.prefix = prefix
        """The rows [n, hidden] it begins with that another sequence may begin with as well."""
        self.open = True
        self.sound = True
        """Whether all of its values are known to be finite. Where they are not, the stream is not used again: cells
        past the end of a sequence are masked by adding to products and multiplying with 0, which NaN survives."""

    @property
    def has_prefix(self) -> bool:
        """Whether its prefix can be used by others."""
        return self.sound and self.n_positions >= len(self.prefix) > 0


class TalkerMemory:
    """new_context(n_streams, n_cells) makes a context; `maker` has it made on another thread."""

    def __init__(
        self,
        new_context: Callable[[int, int], Context],
        context_length: int,
        n_threads: int,
        maker: ThreadPoolExecutor,
    ) -> None:
        self._new_context, self._context_length, self._maker = new_context, context_length, maker
        self._n_threads = n_threads
        self._slots: dict[Context, list[Slot | None]] = {}
        """Of each context. The last context of a size is the one in which sequences of that size gather: its home."""
        self._orders: dict[int, Future[tuple[Context, Room]]] = {}
        self._room = _NO_ROOM
        """For copies, while sequences are moving."""
        self._order(self._size(1), 1)

    @property
    def n_cells(self) -> int:
        """Positions that there is memory for, in all contexts."""
        return sum(context.n_streams * context.n_cells for context in self._slots)

    def use_threads(self, n_threads: int) -> None:
        self._n_threads = n_threads
        for context in self._slots:
            context.use_threads(n_threads)

    # -- a sequence's life ---------------------------------------------------------------------------------------------

    def begin(self, n_positions: int, prefix: Rows) -> Slot:
        """A slot with room for `n_positions`. `prefix` is in it already where an earlier or concurrent sequence
        began with the same rows. Raises BackendError."""
        self.settle()
        size = self._size(n_positions + _AHEAD)
        alike = [slot for slot in self._all() if slot.has_prefix and np.array_equal(slot.prefix, prefix)]
        for slot in alike:
            if not slot.open and slot.context.n_cells == size:
                slot.open = True
                self._cut(slot, len(prefix))
                return slot
        slot = self._place(size, prefix)
        for other in alike:
            if other.n_positions <= size and self._slots[other.context][other.stream] is other:
                self._copy(other, slot)
                slot.prefix = other.prefix
                self._cut(slot, len(prefix))
                break
        return slot

    def make_room(self, slot: Slot, n_positions: int) -> None:
        """For so many more positions. Raises BackendError, at the latest where the model's context ends."""
        needed = slot.n_positions + n_positions
        if needed > self._context_length:
            raise BackendError(f"the speech is longer than this model's context of {self._context_length} positions")
        if needed > slot.context.n_cells:
            self._move(slot, self._place(self._size(needed + _AHEAD), slot.prefix))

    def settle(self) -> None:
        """Between steps: take in the contexts that were ordered, order what will be needed, and move one sequence to
        where it shares a pass with others or has room for what comes."""
        if not any(slot.open for slot in self._all()):
            return
        for size in list(self._orders):
            self._receive(size)
        gathering: dict[int, list[Slot]] = {}
        to_come: Counter[int] = Counter()  # they mostly come together: make room once
        for slot in self._all():
            if slot.open:
                gathering.setdefault(self._size(slot.n_positions + _AHEAD), []).append(slot)
                to_come[self._size(slot.n_positions + 2 * _AHEAD)] += 1
        moved = False
        for size, slots in gathering.items():
            home, wanted = self._home(size), _power_of_two(max(len(slots), to_come[size]))
            if home is None or len(slots) > self._n_usable(home) or self._is_spare(home, wanted):
                self._order(size, wanted)
            if home is not None and not moved:
                moved = self._gather(slots, home)
        if not moved and not self._orders:
            self._room = _NO_ROOM
        homes = {self._home(size) for size in gathering}
        empty = [context for context in self._slots if context not in homes and not self._n_open(context)]
        self._retire(empty)

    def leave(self, slot: Slot) -> None:
        """The sequence is closed; its prefix stays until another sequence needs the stream."""
        slot.open = False
        if slot.has_prefix:
            self._cut(slot, len(slot.prefix))
        if not any(other.open for other in self._all()):
            self._rest(slot)

    def close(self) -> None:
        self._cancel_orders()
        self._retire(list(self._slots))

    # -- streams -------------------------------------------------------------------------------------------------------

    def _all(self) -> Iterator[Slot]:
        return (slot for slots in self._slots.values() for slot in slots if slot)

    def _n_open(self, context: Context) -> int:
        return sum(slot is not None and slot.open for slot in self._slots[context])

    def _n_usable(self, context: Context) -> int:
        return sum(slot is None or slot.open or slot.sound for slot in self._slots[context])

    def _free_streams(self, context: Context) -> list[int]:
        """Empty ones first, then those with a prefix that might still be of use."""
        slots = self._slots[context]
        left_behind = [i for i, slot in enumerate(slots) if slot and not slot.open and slot.sound]
        return [i for i, slot in enumerate(slots) if slot is None] + left_behind

    def _place(self, size: int, prefix: Rows) -> Slot:
        """A new slot. What was ordered is only waited for where there is no context of this size yet."""
        if self._home(size) is None and size in self._orders:
            self._receive(size, wait=True)
        for context in reversed(self._of_size(size)):
            if free := self._free_streams(context):
                return self._occupy(Slot(context, free[0], prefix))
        context = self._new_context(1, size)
        self._add(context, first=True)
        return self._occupy(Slot(context, 0, prefix))

    def _occupy(self, slot: Slot) -> Slot:
        slot.context.forget(slot.stream)
        self._slots[slot.context][slot.stream] = slot
        return slot

    def _cut(self, slot: Slot, n_positions: int) -> None:
        slot.context.forget(slot.stream, n_positions)
        slot.n_positions = n_positions

    def _move(self, slot: Slot, place: Slot) -> None:
        """Let `slot` have the stream of `place`."""
        self._copy(slot, place)
        slot.context.forget(slot.stream)
        self._slots[slot.context][slot.stream] = None
        slot.context, slot.stream = place.context, place.stream
        self._slots[slot.context][slot.stream] = slot

    def _copy(self, slot: Slot, place: Slot) -> None:
        copy_sequence(slot.context, slot.stream, place.context, place.stream, slot.n_positions, self._room)

    def _gather(self, slots: list[Slot], home: Context) -> bool:
        """Move one of the slots into their home, or down into a gap there, since passes end at gaps."""
        free = min(self._free_streams(home), default=home.n_streams)
        outside = [slot for slot in slots if slot.context is not home]
        last = max((slot for slot in slots if slot.context is home), key=lambda slot: slot.stream, default=None)
        if free == home.n_streams or not (outside or (last and last.stream > free)):
            return False
        self._move(outside[0] if outside or last is None else last, self._occupy(Slot(home, free, _NOTHING)))
        return True

    # -- contexts ------------------------------------------------------------------------------------------------------

    def _of_size(self, size: int) -> list[Context]:
        return [context for context in self._slots if context.n_cells == size]

    def _home(self, size: int) -> Context | None:
        return next(reversed(self._of_size(size)), None)

    def _size(self, n_positions: int) -> int:
        """The cells of the smallest size that holds so many positions, as far as the model's context goes."""
        size, most = _FIRST_SIZE, _rounded_up(self._context_length)
        while size < n_positions and size < most:
            size = _rounded_up(size * 3 // 2)
        return min(size, most)

    def _is_spare(self, context: Context, n_streams: int) -> bool:
        return context.n_streams >= _SHRINK * n_streams and context.n_streams * context.n_cells > _KEPT_CELLS

    def _rest(self, last: Slot) -> None:
        """Nothing is open: keep what is small, or else the prefix of the sequence that was last."""
        self._cancel_orders()
        if self.n_cells <= _KEPT_CELLS and all(slot.sound for slot in self._all()):
            return
        used = list(self._slots)
        if last.has_prefix and last.n_positions <= _FIRST_SIZE:
            context = self._new_context(1, self._size(1))
            self._add(context)
            self._move(last, Slot(context, 0, _NOTHING))
        self._retire(used)
        return_freed_memory()
        if not self._slots:
            self._order(self._size(1), 1)

    def _order(self, size: int, n_streams: int) -> None:
        def make() -> tuple[Context, Room]:
            context = new_context(n_streams, size)
            return context, room_for_copies(context) if moving else _NO_ROOM

        new_context, moving = self._new_context, any(slot.open for slot in self._all())
        if size not in self._orders:
            self._orders[size] = self._maker.submit(make)

    def _receive(self, size: int, wait: bool = False) -> None:
        order = self._orders[size]
        if wait or order.done():
            del self._orders[size]
            with suppress(BackendError):  # no memory for it: smaller contexts must do
                context, room = order.result()
                self._add(context)
                self._room = max(self._room, room, key=len)

    def _cancel_orders(self) -> None:
        self._room = _NO_ROOM
        orders, self._orders = self._orders, {}
        for order in orders.values():
            if not (order.cancel() or order.cancelled() or order.exception()):
                order.result()[0].close()

    def _add(self, context: Context, first: bool = False) -> None:
        context.use_threads(self._n_threads)
        added: dict[Context, list[Slot | None]] = {context: [None] * context.n_streams}
        self._slots = {**added, **self._slots} if first else {**self._slots, **added}

    def _retire(self, contexts: list[Context]) -> None:
        for context in contexts:
            del self._slots[context]
            context.close()


_NOTHING: Rows = np.zeros((0, 0), np.float32)
_NO_ROOM: Room = np.zeros(0, np.uint32)


def _rounded_up(n_positions: int) -> int:
    return -(-n_positions // CELL_STEP) * CELL_STEP


def _power_of_two(n: int) -> int:
    return 1 << (n - 1).bit_length()

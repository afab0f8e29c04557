"""Gradio's queue with fair shares: nobody's calls hold up everybody else's, and what nobody waits for ends."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

from fastapi import HTTPException
from gradio.context import LocalContext
from gradio.queueing import Event, EventQueue, Queue
from gradio.server_messages import ProcessCompletedMessage
from gradio.utils import run_coro_in_background

from app.clients import owner_of
from app.link import Link, behind
from app.presence import Presence
from app.sizes import names_address, too_long, weight
from app.states import States
from app.visit import is_open
from editing.device.turns import fair_order
from editing.results import CancelToken

if TYPE_CHECKING:
    from gradio.blocks import Blocks

log = logging.getLogger("memorygan.app")

# Handlers that run at the same time, by kind of work: edits of pages, edits of programs, what renders many pictures,
# and what takes many steps. The device does one thing at a time; more handlers than it needs
# to stay busy would only lengthen everybody's answers. Those of long jobs mostly wait for their turn, see Limits.
QUICK, PROGRAM, RENDER, LONG = "quick", "program", "render", "long"
CONCURRENT = {QUICK: 10, PROGRAM: 6, RENDER: 3, LONG: 28}
THREADS = 72
_BEHIND = 6
# Characters of everything that waits.
MAX_WAITING = 64 * 2**20
_BUSY = "This application is currently busy. Please try again in a moment."
_DISPLACED = "Many others came meanwhile, so this had to go; try again in a moment."


class FairQueue(Queue):
    """See :class:`gradio.queueing.Queue`.

    Of each kind of work a bounded number waits. When it is reached, whoever has less waiting than others takes the
    place of the last one of theirs; whoever has the most is refused.

    Args:
        blocks: the page.
        presence: who listens.
        waiting: calls of one kind of work that may wait.
    """

    def __init__(self, blocks: Blocks, presence: Presence, waiting: int) -> None:
        super().__init__(
            live_updates=True,
            concurrency_count=THREADS,
            update_intervals=1,
            max_size=None,
            blocks=blocks,
            default_concurrency_limit=CONCURRENT[RENDER],
        )
        self._presence, self._waiting = presence, waiting
        self.links: dict[tuple[str, str], Link] = {}
        self._tokens: dict[str, CancelToken] = {}
        self._weights: dict[str, int] = {}
        self._quiet: dict[str, float] = {}  # when the last call of a session came
        # Gradio looks for work this often; a thousand times a second keeps a processor warm for nothing.
        self.sleep_when_free = 0.004
        presence.on_end(self._stream_ended)

    def start(self) -> None:
        """Called by Gradio when the server starts."""
        super().start()
        run_coro_in_background(self._look_after)

    def compute_analytics_summary(self, records: Any) -> Any:
        """Nothing: Gradio would tabulate the last 10,000 calls after each of them, for a page not shown here."""
        return self.cached_event_analytics_summary

    # --- coming in

    async def push(self, body: Any, request: Any, username: str | None) -> Any:
        """Called by Gradio for every call; refuses what is too long and what is too much."""
        function = self._function(body)
        session = body.session_hash
        problem = too_long(function.inputs, body.data)
        if problem:
            raise HTTPException(413, f"{problem}.")
        if self._forgotten(function, session):
            raise HTTPException(410, "This page was left alone for too long; load it again.")
        if names_address(body.data):
            raise HTTPException(422, "Files are not fetched from addresses; upload them.")
        group = self.event_queue_per_concurrency_id.get(function.concurrency_id)
        size = weight(body.data, MAX_WAITING)
        if group is not None:
            self._make_room(group, owner_of(request, username, session), size)
        answer = await super().push(body, request, username)
        event = self.event_ids_to_events.get(str(answer[1]))
        if event is not None:
            self._weights[event._id] = size
            self._quiet[event.session_hash] = time.monotonic()
        while len(self.event_analytics) > 100:
            self.event_analytics.pop(next(iter(self.event_analytics)))
        return answer

    def _function(self, body: Any) -> Any:
        try:
            return self.blocks.fns[body.fn_index]
        except (KeyError, TypeError):
            raise HTTPException(404, "There is no such function; reload the page.") from None

    def _forgotten(self, function: Any, session: str | None) -> bool:
        """Whether a page asks for something whose state is gone."""
        states = getattr(self.blocks, "state_holder", None)
        found = states.session_data.get(session) if isinstance(states, States) and session else None
        return any(
            getattr(block, "studio_needed", False)
            and not getattr(function.fn, "studio_first", False)
            and not is_open(found.state_data.get(block._id) if found else None)
            for block in function.inputs
        )

    def _make_room(self, group: EventQueue, newcomer: str, size: int) -> None:
        waiting = [*(_owner(event) for event in group.queue), newcomer]
        heavy = sum(self._weights.get(event._id, 0) for event in group.queue) + size > MAX_WAITING
        if len(waiting) <= self._waiting and not heavy:
            return
        last = fair_order(self._running(group), waiting)[-1]
        if last == len(waiting) - 1:
            raise HTTPException(503, _BUSY)
        self._drop(group.queue[last], _DISPLACED)

    def _running(self, group: EventQueue) -> list[str]:
        events = (event for job in self.active_jobs if job for event in job)
        return [_owner(event) for event in events if event.concurrency_id == group.concurrency_id]

    def _drop(self, event: Event, words: str) -> None:
        """Takes a call that waits out of the queue."""
        self.event_queue_per_concurrency_id[event.concurrency_id].queue.remove(event)
        self.send_message(
            event,
            ProcessCompletedMessage(output={"error": words, "visible": True}, title="That did not work", success=False),
        )
        self.event_ids_to_events.pop(event._id, None)
        self._ended(event)

    # --- being worked on

    def get_events(self) -> tuple[list[Event], bool, str] | None:
        """Called by Gradio: whose turn it is."""
        for name, group in self.event_queue_per_concurrency_id.items():
            free = group.concurrency_limit is None or group.current_concurrency < group.concurrency_limit
            if group.queue and free:
                place = fair_order(self._running(group), [_owner(event) for event in group.queue])[0]
                return [group.queue.pop(place)], False, name
        return None

    async def process_events(self, events: list[Event], batch: bool, begin_time: float, fn: Any) -> None:
        """Called by Gradio: carries out a call."""
        try:
            await super().process_events(events, batch, begin_time, fn)
        finally:
            for event in events:
                self._ended(event)

    def token(self, event_id: str) -> CancelToken:
        """Is cancelled as soon as nobody waits for a call's answer any more, or the call ended."""
        if event_id not in self.event_ids_to_events:
            ended = CancelToken()
            ended.cancel()
            return ended
        return self._tokens.setdefault(event_id, CancelToken())

    def _ended(self, event: Event) -> None:
        token = self._tokens.pop(event._id, None)
        if token is not None:
            token.cancel()
        self._weights.pop(event._id, None)
        states = getattr(self.blocks, "state_holder", None)
        if isinstance(states, States):
            states.finished(event.session_hash)

    # --- going away

    async def _look_after(self) -> None:
        """Every second: ends what nobody waits for."""
        while not self.stopped:
            await asyncio.sleep(1)
            try:
                await self._abandon()
            except Exception:
                log.exception("looking after the queue failed")

    async def _abandon(self) -> None:
        for event in list(self.event_ids_to_events.values()):
            if self._presence.attended((event.session_hash, event._id), event.enqueue_time):
                continue
            token = self._tokens.get(event._id)
            if token is not None:
                token.cancel()
            await self.clean_events(event_id=event._id)
            if event._id not in self.event_ids_to_events:
                self._ended(event)
        for session in list(self._quiet):
            self._forget(session)
        # Gradio takes some out itself, when a page is closed.
        self._weights = {name: size for name, size in self._weights.items() if name in self.event_ids_to_events}

    def _stream_ended(self, name: str) -> None:
        if not self.pending_event_ids_session.get(name):
            self._forget(name)

    def _forget(self, session: str) -> None:
        """Forgets the messages of a session: when all were fetched, or nobody comes to fetch them."""
        left = self.pending_event_ids_session.get(session, set())
        names = (session, *left)
        if any(name in self.event_ids_to_events for name in names) or self._presence.open(names):
            return
        if left and self._presence.attended(names, self._quiet.get(session, 0.0)):
            return
        self._quiet.pop(session, None)
        self.pending_event_ids_session.pop(session, None)
        if session in self.pending_messages_per_session:
            del self.pending_messages_per_session[session]


def _owner(event: Event) -> str:
    # A call without a session is its own session; all of those of one client count as one.
    session = None if event.session_hash == event._id else event.session_hash
    return owner_of(event.request, event.username, session)


def call_token() -> CancelToken:
    """The token of the call that is being carried out, see :meth:`FairQueue.token`; a new one outside of any."""
    blocks, event_id = LocalContext.blocks.get(None), LocalContext.event_id.get(None)
    queue = getattr(blocks, "_queue", None)
    return queue.token(event_id) if isinstance(queue, FairQueue) and event_id else CancelToken()


def call_behind() -> bool:
    """Whether whoever asked has not even been sent what was said before, so that more would only pile up."""
    blocks, request = LocalContext.blocks.get(None), LocalContext.request.get(None)
    queue, session = getattr(blocks, "_queue", None), getattr(request, "session_hash", None)
    if not isinstance(queue, FairQueue) or not session:
        return False
    messages = queue.pending_messages_per_session.get(session)
    return (messages.qsize() if messages else 0) + behind(queue.links, session) > _BEHIND


def call_login() -> str:
    """The name that whoever asks is logged in with; "" where nobody has to."""
    return getattr(LocalContext.request.get(None), "username", None) or ""


def call_owner() -> str:
    """Whose call is being carried out, as :func:`editing.device.turns.fair_order` wants it; "" outside of any."""
    request = LocalContext.request.get(None)
    if request is None:
        return ""
    session = getattr(request, "session_hash", None)
    own = session == LocalContext.event_id.get(None)  # a call without a session
    return owner_of(request, getattr(request, "username", None), None if own else session)

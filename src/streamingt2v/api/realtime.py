"""A WebSocket session: the video's segments as they are made, and prompts that change it.

The messages are those of vLLM-Omni's `/v1/realtime/video`. A session makes an ordinary job, whose video stays
available by its id. It is cancelled when the client stops it, closes the connection, or does not reconnect
after a break (see `sessions`). `session.resume` continues with the next segment, on any server of the folder.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NoReturn

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import Field, ValidationError
from starlette.concurrency import run_in_threadpool

from ..errors import RequestError, StreamingT2VError
from ..jobs.job import Job, NoSuchJob
from ..jobs.notices import Ending
from ..runs.folder import INIT, JOURNAL, PROMPTS
from ..runs.journal import Entry, Journal
from ..runs.prompts import PromptLog
from .asked import Asked
from .context import Context
from .doors import plain
from .schemas import Name, Text, Video, VideoCreate
from .uploads import Body, parsed

router = APIRouter(prefix="/v1/realtime")
START_SECONDS = 30.0  # for the first message
_GOODBYE, _WRONG, _RESTART, _TRY_AGAIN = 1000, 1008, 1012, 1013


class SessionStart(VideoCreate):
    """The first message of a session: `type`, and the fields that create a video."""

    type: Literal["session.start"]
    format: Literal["m4s"] = "m4s"
    idempotency_key: Name | None = None


class SessionResume(Asked):
    """The first message of a connection that resumes a session.

    chunks: segments received so far.
    """

    type: Literal["session.resume"]
    video_id: Annotated[Name, Field(max_length=64)]
    chunks: Annotated[int, Field(ge=0)]
    format: Literal["m4s"] = "m4s"


class Event(Asked):
    """A new prompt."""

    prompt: Text


class Interaction(Asked):
    """A change of the prompt, complete from the next chunk on."""

    event: Event
    event_id: Name | None = None
    transition_chunks: Annotated[int, Field(ge=0, le=1)] = 0


class SessionInteraction(Asked):
    """The message that changes the prompt."""

    type: Literal["session.interaction"]
    interaction: Interaction


@router.websocket("/video")
async def realtime_video(socket: WebSocket) -> None:
    """Run one session, from `session.start` to `session.done`."""
    await socket.accept()
    context: Context = socket.app.state.context
    try:
        with context.counted("sessions"):
            await _Session(socket, context).run()
    except (StreamingT2VError, OSError) as error:
        await _refuse(socket, error, _TRY_AGAIN)
    except WebSocketDisconnect:
        pass
    except Ending:
        with suppress(RuntimeError, WebSocketDisconnect):
            await socket.close(_RESTART)


@dataclass
class _Session:
    socket: WebSocket
    context: Context
    events: dict[int, str] = field(default_factory=dict)  # number of a prompt change -> its event id
    active: int = 0  # number of the change in the last segment sent
    chunks: int = 0
    stopped: bool = False

    async def run(self) -> None:
        """Start or resume the job, then send and listen until it has ended or the client has gone."""
        try:
            async with asyncio.timeout(START_SECONDS):
                job = await self._begun(await _message(self.socket))
            turn = await run_in_threadpool(self.context.service.sessions.take, job.id)
        except (TimeoutError, ValidationError, StreamingT2VError) as error:
            await _refuse(self.socket, error, _WRONG)
            return
        try:
            await self._go_on(job)
        except NoSuchJob as error:
            await _refuse(self.socket, error, _WRONG)
        finally:
            self.context.service.sessions.leave(job.id, turn)

    async def _begun(self, message: dict[str, Any]) -> Job:
        if message.get("type") == "session.resume":
            asked = SessionResume.model_validate(message)
            return await run_in_threadpool(self._resumed, asked.video_id, asked.chunks)
        return await self._started(SessionStart.model_validate(message), message)

    async def _started(self, asked: SessionStart, message: dict[str, Any]) -> Job:
        if asked.input_reference is not None:
            fix = "a session starts from text; create a video from the image instead"
            raise RequestError("input_reference", None, fix)
        service = self.context.service
        model = service.model(asked.model)
        request = asked.request(service.configs[model], None, None)
        key = Body(message).key(asked.idempotency_key, "session")
        return await run_in_threadpool(service.submit, request, model, key)

    def _resumed(self, id: str, chunks: int) -> Job:
        """Return the job and restore the state after `chunks` sent segments."""
        service = self.context.service
        job = service.get(id)
        if not service.sessions.has(id):
            raise RequestError("video_id", id, "was not created by a session; watch it by its id")
        entries = Journal.read(service.files.run(id) / JOURNAL).entries
        if chunks > len(entries):
            raise RequestError("chunks", chunks, f"must be at most {len(entries)}, those made so far")
        for entry in entries[:chunks]:
            self._taken_over(id, entry)
        self.chunks = chunks
        return job

    async def _go_on(self, job: Job) -> None:
        config = Video.of(job).model_dump()
        await self.socket.send_json(
            {"type": "video.start", "request_id": job.id, "format": "m4s", "config": config}
        )
        hearing, sending = asyncio.create_task(self._hear(job.id)), asyncio.create_task(self._send(job))
        try:
            await asyncio.wait({hearing, sending}, return_when=asyncio.FIRST_COMPLETED)
            if not hearing.done() and isinstance(sending.exception(), WebSocketDisconnect):
                await asyncio.wait({hearing}, timeout=1.0)  # for the client's close code
            ended = await (hearing if hearing.done() else sending)
            done = {"stopped": self.stopped, "chunks": self.chunks, "status": ended.status}
            about = {"request_id": job.id, "video_id": job.id}
            await self.socket.send_json({"type": "session.done", **about, **done})
            await self.socket.close()
        finally:
            for task in (hearing, sending):
                task.cancel()
            await asyncio.gather(hearing, sending, return_exceptions=True)

    async def _send(self, job: Job) -> Job:
        """Send every segment as it is made; return the job when it has ended."""
        while True:
            run = self.context.service.files.run(job.id)
            for entry in Journal.read(run / JOURNAL).entries[self.chunks :]:
                await self._send_segment(job, entry)
            if job.ended:
                return job
            job = await self.context.notices.change(job)

    async def _send_segment(self, job: Job, entry: Entry) -> None:
        run = self.context.service.files.run(job.id)
        data = (run / entry.segment).read_bytes()
        if self.chunks == 0:
            data = (run / INIT).read_bytes() + data
        started, completed = self._taken_over(job.id, entry)
        about = {
            "type": "video.chunk_metadata",
            "request_id": job.id,
            "kind": "media",
            "transport_chunk_index": self.chunks,
            "generation_chunk_index": entry.index,
            "num_frames": entry.frames,
            "byte_length": len(data),
            "started_event_ids": started,
            "active_event_ids": self._names([self.active]),
            "completed_event_ids": completed,
        }
        await self.socket.send_json(about)
        await self.socket.send_bytes(data)
        self.chunks += 1

    def _taken_over(self, id: str, entry: Entry) -> tuple[list[str], list[str]]:
        """Return ids of the prompt changes that begin within a segment, and of those that they replace."""
        log = PromptLog.read(self.context.service.files.run(id) / PROMPTS)
        end = entry.start + entry.frames
        begun = [c.number for c in log.changes if self.active < c.number and c.frame < end]
        if begun:
            self.events = self.context.service.store.events(id)
        *ended, self.active = self.active, *begun
        return self._names(begun), self._names(ended)

    def _names(self, numbers: list[int]) -> list[str]:
        return [self.events[number] for number in numbers if number in self.events]

    async def _hear(self, id: str) -> NoReturn:
        """Handle the client's messages until it goes."""
        handlers: dict[str, Callable[[str, dict[str, Any]], Awaitable[None]]] = {
            "session.interaction": self._interact,
            "session.stop": self._stop,
            "session.ping": self._ping,
        }
        while True:
            try:
                message = await _message(self.socket)
                kind = str(message.get("type"))
                if kind not in handlers:
                    raise RequestError("type", kind[:40], f"must be one of {', '.join(handlers)}")
                await handlers[kind](id, message)
            except WebSocketDisconnect as gone:
                if gone.code == _GOODBYE:
                    await run_in_threadpool(self.context.service.cancel, id)
                raise
            except (ValidationError, StreamingT2VError) as error:
                await self.socket.send_json({"type": "error", "request_id": id, **_said(self.socket, error)})

    async def _interact(self, id: str, message: dict[str, Any]) -> None:
        asked = SessionInteraction.model_validate(message).interaction
        event = asked.event_id or f"event-{secrets.token_hex(4)}"
        await run_in_threadpool(self.context.service.change_prompt, id, asked.event.prompt, event)
        await self.socket.send_json(
            {"type": "session.interaction.queued", "request_id": id, "event_id": event}
        )

    async def _stop(self, id: str, message: dict[str, Any]) -> None:
        self.stopped = True
        await run_in_threadpool(self.context.service.cancel, id)

    async def _ping(self, id: str, message: dict[str, Any]) -> None:
        await self.socket.send_json({"type": "session.pong", "request_id": id})


async def _message(socket: WebSocket) -> dict[str, Any]:
    """Return the next message. Raises RequestError unless it is a JSON object in a text frame."""
    frame = await socket.receive()
    if frame["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(frame.get("code", 1005))
    values = await run_in_threadpool(parsed, (frame.get("text") or "").encode(errors="replace"), "message")
    if not isinstance(values, dict):
        raise RequestError("message", type(values).__name__, "must be a JSON object")
    return values


async def _refuse(socket: WebSocket, error: Exception, code: int) -> None:
    with suppress(RuntimeError, WebSocketDisconnect):  # the client may have gone
        await socket.send_json({"type": "error", **_said(socket, error)})
        await socket.close(code)


def _said(socket: WebSocket, error: Exception) -> dict[str, Any]:
    if isinstance(error, TimeoutError):
        message = f"no session.start or session.resume within {START_SECONDS:.0f} s"
        return {"code": "timeout", "message": message}
    context: Context = socket.app.state.context
    said = context.refusals.of(error)
    return {"code": said.code, "message": plain(said.message, 2000), "param": plain(said.param, 200)}

"""A session over a WebSocket: the video's segments as they are made, and prompts that change it on the way.

The messages are those of vLLM-Omni's `/v1/realtime/video`. A session is a job like any other: what was made of it stays and can be had
by its id afterwards. It is cancelled when the client stops it or goes away.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from ..errors import RequestError, StreamingT2VError
from ..io.folder import INIT, JOURNAL, PROMPTS
from ..io.journal import Entry, Journal
from ..io.prompts import PromptLog
from .context import Context
from .job import Job
from .schemas import SessionInteraction, SessionStart, Video
from .store import NoSuchJob

router = APIRouter(prefix="/v1/realtime")
START_SECONDS = 30.0  # that a client may take for its first message
_TRY_AGAIN, _WRONG = 1013, 1008


@router.websocket("/video")
async def realtime_video(socket: WebSocket) -> None:
    """One session, from `session.start` to `session.done`."""
    await socket.accept()
    context: Context = socket.app.state.context
    try:
        with context.counted("sessions"):
            await _Session(socket, context).run()
    except StreamingT2VError as error:
        await _refuse(socket, error, _TRY_AGAIN)
    except WebSocketDisconnect:
        pass


@dataclass
class _Session:
    socket: WebSocket
    context: Context
    events: dict[int, str] = field(default_factory=dict)  # ids of the client's changes by their numbers
    active: int = 0  # number of the change that the newest chunk sent follows
    chunks: int = 0
    stopped: bool = False

    async def run(self) -> None:
        """Start as the client says, then send and hear until the job has ended."""
        try:
            async with asyncio.timeout(START_SECONDS):
                asked = SessionStart.model_validate(await _message(self.socket))
            job = await self._started(asked)
        except (TimeoutError, ValidationError, StreamingT2VError) as error:
            await _refuse(self.socket, error, _WRONG)
            return
        config = Video.of(job).model_dump()
        await self.socket.send_json({"type": "video.start", "request_id": job.id, "format": asked.format, "config": config})
        hearing = asyncio.create_task(self._hear(job.id))
        try:
            ended = await self._send(job)
            done = {"stopped": self.stopped, "chunks": self.chunks, "status": ended.status, "video_id": job.id}
            await self.socket.send_json({"type": "session.done", "request_id": job.id, **done})
            await self.socket.close()
        except NoSuchJob as error:
            await _refuse(self.socket, error, _WRONG)
        finally:
            hearing.cancel()
            with suppress(asyncio.CancelledError, WebSocketDisconnect):
                await hearing
            with suppress(NoSuchJob):  # nothing happens to one that has ended
                await run_in_threadpool(self.context.service.cancel, job.id)

    async def _started(self, asked: SessionStart) -> Job:
        if asked.input_reference is not None:
            raise RequestError("input_reference", None, "a session starts from text; create a video from the picture instead")
        service = self.context.service
        model = asked.model or service.default_model
        if model not in service.configs:
            raise RequestError("model", model, f"must be one of {', '.join(service.configs)}, or left out")
        return await run_in_threadpool(service.submit, asked.request(service.configs[model], None, None), model)

    async def _send(self, job: Job) -> Job:
        """Every segment as it comes; the job when it has ended."""
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
        started, completed = self._taken_over(PromptLog.read(run / PROMPTS), entry)
        about = {
            "type": "video.chunk_metadata",
            "request_id": job.id,
            "kind": "media",
            "transport_chunk_index": self.chunks,
            "generation_chunk_index": entry.index,
            "num_frames": entry.frames,
            "byte_length": len(data),
            "started_event_ids": started,
            "active_event_ids": [self.events[self.active]] if self.active in self.events else [],
            "completed_event_ids": completed,
        }
        await self.socket.send_json(about)
        await self.socket.send_bytes(data)
        self.chunks += 1

    def _taken_over(self, log: PromptLog, entry: Entry) -> tuple[list[str], list[str]]:
        """Ids of the changes that begin within a segment, and of those that they end."""
        started, completed = [], []
        for change in log.changes:
            if self.active < change.number and change.frame < entry.start + entry.frames:
                completed += [self.events[self.active]] if self.active in self.events else []
                self.active = change.number
                started += [self.events[change.number]] if change.number in self.events else []
        return started, completed

    async def _hear(self, id: str) -> None:
        """Act on what the client sends until it goes."""
        deeds: dict[str, Callable[[str, dict[str, Any]], Awaitable[None]]] = {
            "session.interaction": self._interact,
            "session.stop": self._stop,
            "session.ping": self._ping,
        }
        while True:
            try:
                message = await _message(self.socket)
                deed = deeds.get(str(message.get("type")))
                if deed is None:
                    raise RequestError("type", str(message.get("type"))[:40], f"must be one of {', '.join(deeds)}")
                await deed(id, message)
            except WebSocketDisconnect:
                await run_in_threadpool(self.context.service.cancel, id)
                raise
            except (ValidationError, StreamingT2VError) as error:
                await self.socket.send_json({"type": "error", "request_id": id, **_said(error)})

    async def _interact(self, id: str, message: dict[str, Any]) -> None:
        asked = SessionInteraction.model_validate(message).interaction
        number = await run_in_threadpool(self.context.service.change_prompt, id, asked.event.prompt)
        self.events[number] = asked.event_id or f"event-{number}"
        await self.socket.send_json({"type": "session.interaction.queued", "request_id": id, "event_id": self.events[number]})

    async def _stop(self, id: str, message: dict[str, Any]) -> None:
        self.stopped = True
        await run_in_threadpool(self.context.service.cancel, id)

    async def _ping(self, id: str, message: dict[str, Any]) -> None:
        await self.socket.send_json({"type": "session.pong", "request_id": id})


async def _message(socket: WebSocket) -> dict[str, Any]:
    """The next message. RequestError if it is no JSON object in a text frame."""
    frame = await socket.receive()
    if frame["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(frame.get("code", 1005))
    try:
        values = json.loads(frame.get("text") or "")
    except (ValueError, RecursionError) as error:
        raise RequestError("message", (frame.get("text") or "")[:40], "must be a JSON object in a text frame") from error
    if not isinstance(values, dict):
        raise RequestError("message", type(values).__name__, "must be a JSON object")
    return values


async def _refuse(socket: WebSocket, error: Exception, code: int) -> None:
    with suppress(RuntimeError, WebSocketDisconnect):  # the client has gone already
        await socket.send_json({"type": "error", **_said(error)})
        await socket.close(code)


def _said(error: Exception) -> dict[str, Any]:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return {"code": "invalid_request", "message": first["msg"], "param": ".".join(map(str, first["loc"]))}
    if isinstance(error, TimeoutError):
        return {"code": "timeout", "message": f"no session.start within {START_SECONDS:.0f} s"}
    if isinstance(error, RequestError):
        return {"code": "invalid_request", "message": str(error), "param": error.argument}
    return {"code": "refused", "message": str(error)}

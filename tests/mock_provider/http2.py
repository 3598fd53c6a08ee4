"""The mocks over HTTP/2: regular answers, resets of one stream, trailers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions

if TYPE_CHECKING:
    from .server import Mock

NOT_HTTP2 = {"connection", "transfer-encoding", "keep-alive"}


class Http2:
    """One connection of a mock that speaks HTTP/2."""

    def __init__(self, mock: "Mock", reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.mock = mock
        self.reader = reader
        self.writer = writer
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="latin-1"))
        self._requests: dict[int, Any] = {}
        self._tasks: set[asyncio.Task] = set()
        self._window = asyncio.Event()

    async def serve(self) -> None:
        """Serves until the peer leaves."""
        self.h2.initiate_connection()
        self._flush()
        try:
            while data := await self.reader.read(65536):
                for event in self.h2.receive_data(data):
                    self._on(event)
                self._flush()
        except (OSError, h2.exceptions.ProtocolError):
            pass
        finally:
            for task in self._tasks:
                task.cancel()

    def _flush(self) -> None:
        if data := self.h2.data_to_send():
            self.writer.write(data)

    def _on(self, event: Any) -> None:
        if isinstance(event, h2.events.RequestReceived):
            self._requests[event.stream_id] = self._recorded(event.headers)
        elif isinstance(event, h2.events.DataReceived):
            self._requests[event.stream_id].body += event.data
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.TrailersReceived):
            self._requests[event.stream_id].trailers = list(event.headers)
        elif isinstance(event, h2.events.StreamEnded):
            task = asyncio.ensure_future(self._answer(event.stream_id))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif isinstance(event, h2.events.StreamReset):
            self._requests[event.stream_id].gone.set()
        elif isinstance(event, h2.events.WindowUpdated):
            self._window.set()

    @staticmethod
    def _recorded(headers: list[tuple[str, str]]) -> Any:
        from .server import Recorded

        pseudo = {name: value for name, value in headers if name.startswith(":")}
        plain = [(name, value) for name, value in headers if not name.startswith(":")]
        request = Recorded(pseudo[":method"], pseudo[":path"], [("host", pseudo[":authority"]), *plain], b"")
        request.version = "HTTP/2"
        return request

    async def _answer(self, stream: int) -> None:
        request = self._requests[stream]
        behaviour = self.mock._record(request)
        if behaviour.reset == "request":
            return self._reset(stream)
        answer = self.mock._regular(request, behaviour)
        frames = answer.body if isinstance(answer.body, list) else [answer.body]
        headers = [(":status", str(answer.status)), ("content-type", answer.content_type), *answer.headers, *behaviour.headers]
        self.h2.send_headers(stream, [(name, value) for name, value in headers if name not in NOT_HTTP2])
        self._flush()
        if behaviour.reset == "headers":
            return self._reset(stream)
        for sent, frame in enumerate(frames):
            if behaviour.reset == "stream" and sent == behaviour.after:
                # What has been sent must have left before the reset overtakes it.
                await asyncio.sleep(0.05)
                return self._reset(stream)
            await self._data(stream, frame)
        if behaviour.trailers:
            self.h2.send_headers(stream, list(behaviour.trailers), end_stream=True)
        else:
            self.h2.end_stream(stream)
        self._flush()
        request.done.set()

    async def _data(self, stream: int, data: bytes) -> None:
        while data:
            room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
            if not room:
                self._window.clear()
                await self._window.wait()
                continue
            self.h2.send_data(stream, data[:room])
            self._flush()
            await self.writer.drain()
            data = data[room:]

    def _reset(self, stream: int) -> None:
        self.h2.reset_stream(stream, h2.errors.ErrorCodes.INTERNAL_ERROR)
        self._flush()

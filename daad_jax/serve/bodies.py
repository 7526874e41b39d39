"""Reads the pictures out of a request, within the limits."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from fastapi import HTTPException, Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from daad_jax.errors import printable
from daad_jax.serve.limits import RETRY_SECONDS, Limits

FIELD = "image"
_MULTIPART = "multipart/form-data"
# `curl --data-binary @picture.png` calls its body a form unless it is told otherwise.
_RAW = ("application/octet-stream", "application/x-www-form-urlencoded", "")
_MOST_NAME = 200
_MOST_TEXT = 1 << 16  # bytes of a form's field that is not a file


class Sent(NamedTuple):
    """A picture of a request: its name, made printable, and its file."""

    name: str
    content: bytes


class Busy(HTTPException):
    """The service is full: 503 with Retry-After."""

    def __init__(self, reason: str) -> None:
        """Takes the reason."""
        super().__init__(503, reason, {"Retry-After": str(RETRY_SECONDS)})


class Bodies:
    """Reads bodies, and counts the bytes of all that are in memory."""

    def __init__(self, limits: Limits) -> None:
        """Attributes: `held`, the number of bytes in memory."""
        self._limits, self.held = limits, 0

    @contextmanager
    def room(self) -> Iterator[list[int]]:
        """Makes room for one request. What was added to the list is given back at the end."""
        taken: list[int] = []
        try:
            yield taken
        finally:
            self.held -= sum(taken)

    async def read(self, request: Request, taken: list[int]) -> list[Sent]:
        """Reads the pictures of a request.

        Raises HTTPException: 400 for a body that is not what it says it is, 408 if it comes too
        slowly, 413 if it is too large, 415 for another type, and 503 if too many bodies are in
        memory.
        """
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if request.headers.get("content-encoding", "identity") != "identity":
            raise HTTPException(415, "content-encoding: send the body as it is")
        if kind != _MULTIPART and kind not in _RAW and not kind.startswith("image/"):
            advice = f"send {_MULTIPART} with the field {FIELD}, image/... or no type"
            raise HTTPException(415, f"content-type: {printable(kind)[:_MOST_NAME]}; {advice}")
        try:
            async with asyncio.timeout(self._limits.seconds):
                stream = self._stream(request, taken)
                if kind == _MULTIPART:
                    return await self._form(request, stream)
                content = b"".join([chunk async for chunk in stream])
        except ClientDisconnect as error:
            raise HTTPException(400, "the connection was closed within the body") from error
        except TimeoutError as error:
            message = f"the body took more than {self._limits.seconds:g} s"
            raise HTTPException(408, message) from error
        except UnicodeError as error:
            raise HTTPException(400, "content-type: names no character set") from error
        if not content:
            raise HTTPException(400, "the body is empty; send a picture")
        return [Sent(FIELD, content)]

    async def _stream(self, request: Request, taken: list[int]) -> AsyncGenerator[bytes, None]:
        most, total = self._limits.body_bytes, 0
        too_large = HTTPException(413, f"the body has more than {most >> 20} MiB; send fewer")
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > most:
            raise too_large
        async for chunk in request.stream():
            total += len(chunk)
            if total > most:
                raise too_large
            if self.held + len(chunk) > self._limits.held_bytes:
                raise Busy("too many large requests at once; try later")
            self.held += len(chunk)
            taken.append(len(chunk))
            yield chunk

    async def _form(self, request: Request, stream: AsyncGenerator[bytes, None]) -> list[Sent]:
        parser = _InMemory(
            request.headers,
            stream,
            max_files=self._limits.pictures,
            max_fields=8,
            max_part_size=_MOST_TEXT,
        )
        parser.spool_max_size = self._limits.body_bytes
        try:
            form = await parser.parse()
            if not parser.complete:
                raise MultiPartException("the body ends before its last boundary")
        except MultiPartException as error:
            status = 413 if error.message.startswith("Too many files") else 400
            raise HTTPException(status, f"multipart: {printable(error.message)}") from error
        sent = []
        for field, value in form.multi_items():
            if field != FIELD:
                name = printable(field)[:_MOST_NAME]
                raise HTTPException(400, f"{name}: no such field; send pictures as {FIELD}")
            if not isinstance(value, UploadFile) or not value.filename:
                raise HTTPException(400, f"{FIELD}: has no file name; send it as a file")
            sent.append(Sent(printable(value.filename)[:_MOST_NAME], await value.read()))
        await form.close()
        if not sent:
            raise HTTPException(400, f"{FIELD}: the form has none; send at least one picture")
        return sent


class _InMemory(MultiPartParser):
    """Starlette's parser, which would take a body that ends early for a whole one."""

    complete = False

    def on_end(self) -> None:
        self.complete = True

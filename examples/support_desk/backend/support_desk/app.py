"""The application: `uvicorn --factory support_desk.app:create_app`."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import APIRouter, FastAPI, HTTPException, Query, Request, Response, WebSocket
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, StringConstraints, ValidationError
from sqlalchemy import select
from starlette.websockets import WebSocketDisconnect

from support_desk import metrics, visitors
from support_desk.answers import Assistant, SessionMissingError, message_json
from support_desk.commands import failed
from support_desk.database import AWAY, Database, SchemaBehindError
from support_desk.knowledge import Knowledge, KnowledgeAwayError, open_knowledge
from support_desk.models import Memory, Message, Session, iso, now
from support_desk.settings import GUARDED, Settings, SettingsError, load_settings
from support_desk.shared import AnswerCache, Client, Hub, Store

log = logging.getLogger("support_desk")

CHECK_SECONDS = 3.0
ASKING_AT_ONCE = 4
_QUIET_PATHS = ("/health", "/ready", "/metrics", "/api/health", "/api/ready")

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)]


class NewSession(BaseModel):
    """What a new session may be called; without a title its first question names it."""

    title: Annotated[str, StringConstraints(strip_whitespace=True, max_length=120)] = ""


class Question(BaseModel):
    """A question in a session."""

    content: Text


class NewMemory(BaseModel):
    """Something to keep in mind."""

    content: Text


class Desk:
    """Everything that a running application holds on to."""

    def __init__(self, settings: Settings, knowledge: Knowledge | None = None) -> None:
        """Prepare all connections; none is opened yet."""
        self.settings = settings
        self.database = Database(settings.database_url)
        self.store = Store(settings.redis_url)
        self.cache = AnswerCache(self.store)
        self.hub = Hub(self.store)
        self.knowledge = knowledge or open_knowledge(settings.chroma_url)
        self.assistant = Assistant(settings, self.database, self.cache, self.hub, self.knowledge)

    async def close(self) -> None:
        """Finish what runs, then give everything back."""
        await self.assistant.close()
        await self.hub.stop()
        await self.store.close()
        await self.knowledge.close()
        await self.database.close()

    async def _state(self, check: Callable[[], Awaitable[object]]) -> dict[str, Any]:
        started = time.perf_counter()
        result: dict[str, Any] = {"state": "ok"}
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                value = await check()
            if isinstance(value, str):
                result["schema"] = value
        except SchemaBehindError as error:
            result = {"state": "behind", "detail": str(error)}
        except Exception as error:
            # The class only: the text may hold an address or a user.
            result = {"state": "away", "detail": type(error).__name__}
            log.debug("check failed", exc_info=error)
        result["milliseconds"] = round((time.perf_counter() - started) * 1000, 1)
        return result

    async def ready(self) -> tuple[bool, dict[str, Any]]:
        """Ask every store; the first value says whether requests can be served."""
        database, redis, chroma = await asyncio.gather(
            self._state(self.database.schema), self._state(self.store.check), self._state(self.knowledge.check)
        )
        if self.store.redis is None:
            redis["state"] = "off"
        if chroma["state"] == "ok" and self.knowledge.kind != "chroma":
            chroma["state"] = self.knowledge.kind
        serves = database["state"] == "ok" and chroma["state"] in {"ok", "in-process"}
        complete = redis["state"] == "ok" or self.settings.redis_url is None
        return serves, {
            "status": "unavailable" if not serves else "ready" if complete else "degraded",
            "version": self.settings.app_version,
            "instance": self.settings.instance,
            "environment": self.settings.environment,
            "checks": {"database": database, "redis": redis, "chroma": chroma},
        }


class _Quiet(logging.Filter):
    """Keeps probes out of the access log: they would be most of it."""

    def filter(self, record: logging.LogRecord) -> bool:
        arguments = record.args
        return not (isinstance(arguments, tuple) and len(arguments) > 2 and arguments[2] in _QUIET_PATHS)


def _configure_logging(level: str) -> None:
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stdout)
    logging.getLogger("support_desk").setLevel(level)
    # A line for every request to a store or a model is noise, and holds their addresses.
    for name in ("httpx", "httpcore", "chromadb", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    access = logging.getLogger("uvicorn.access")
    if not any(isinstance(item, _Quiet) for item in access.filters):
        access.addFilter(_Quiet())


def create_app(settings: Settings | None = None, knowledge: Knowledge | None = None) -> FastAPI:
    """Build the application; with unusable settings, say so once and leave."""
    if settings is None:
        try:
            settings = load_settings()
        except SettingsError as error:
            raise SystemExit(failed("start", error)) from None
    _configure_logging(settings.log_level)
    desk = Desk(settings, knowledge)
    metrics.BUILD.info({"version": settings.app_version, "instance": settings.instance})

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if settings.environment == "development":
            # A laptop's convenience. Elsewhere the release migrates, as another database user.
            async with desk.database.migration_lock() as connection:
                await desk.database.upgrade(connection)
        if settings.environment in GUARDED and settings.chroma_url is None:
            log.warning("CHROMA_URL is not set: the packaged articles are searched in this process")
        desk.hub.start()
        log.info("version %s on %s, %s", settings.app_version, settings.instance, settings.environment)
        yield
        await desk.close()
        log.info("stopped")

    docs = {} if settings.debug else {"docs_url": None, "redoc_url": None, "openapi_url": None}
    app = FastAPI(title="Support desk", version=settings.app_version, lifespan=lifespan, **docs)
    app.state.desk = desk
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_credentials="*" not in settings.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Content-Type"],
        )
    app.middleware("http")(_measure)
    app.include_router(router)
    app.include_router(router_health)
    app.include_router(router_health, prefix="/api")
    for error in AWAY:
        app.add_exception_handler(error, _database_away)
    app.add_exception_handler(KnowledgeAwayError, _knowledge_away)
    gc.freeze()
    gc.enable()
    return app


async def _measure(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    started = time.perf_counter()
    status = 500
    try:
        response = await call_next(request)
        status = response.status_code
    finally:
        # The route, not the path: ids in a label would be a series each.
        route = getattr(request.scope.get("route"), "path", "unknown")
        metrics.REQUESTS.labels(request.method, route, status).inc()
        metrics.SECONDS.labels(route).observe(time.perf_counter() - started)
    return response


async def _database_away(_: Request, error: Exception) -> JSONResponse:
    log.error("database: %s", type(error).__name__, exc_info=error)
    return JSONResponse({"detail": "The database does not answer."}, 503, {"Retry-After": "5"})


async def _knowledge_away(_: Request, error: Exception) -> JSONResponse:
    log.error("knowledge base: %s", error)
    return JSONResponse({"detail": "The knowledge base does not answer."}, 503, {"Retry-After": "5"})


def _desk(scope: Request | WebSocket) -> Desk:
    desk: Desk = scope.app.state.desk
    return desk


router_health = APIRouter()
router = APIRouter()


@router_health.get("/health")
async def health() -> dict[str, str]:
    """Say that the process lives; no store is asked."""
    return {"status": "healthy"}


@router_health.get("/ready")
async def ready(request: Request) -> JSONResponse:
    """Say whether this instance can serve requests."""
    serves, body = await _desk(request).ready()
    return JSONResponse(body, 200 if serves else 503, {"Cache-Control": "no-store"})


@router.get("/metrics")
async def metrics_text() -> PlainTextResponse:
    """Return the metrics of this process."""
    return PlainTextResponse(generate_latest(), media_type=CONTENT_TYPE_LATEST)


@router.get("/api/version")
async def version(request: Request) -> dict[str, str]:
    """Say what is running, and where."""
    settings = _desk(request).settings
    return {"version": settings.app_version, "instance": settings.instance, "environment": settings.environment}


def _visitor(request: Request, response: Response | None = None) -> uuid.UUID | None:
    """Return the visitor; given a response, make one and set the cookie where there is none."""
    settings = _desk(request).settings
    # The second one while the key is rotated: instances of both versions serve the same visitors.
    keys = filter(None, (settings.secret_key, settings.secret_key_accepted))
    visitor_id = visitors.verify(request.cookies.get(visitors.COOKIE), keys)
    if visitor_id is None and response is not None:
        visitor_id = uuid.uuid4()
        response.set_cookie(
            visitors.COOKIE,
            visitors.sign(visitor_id, settings.secret_key),
            max_age=visitors.COOKIE_SECONDS,
            httponly=True,
            samesite="lax",
            secure=request.url.scheme == "https",
        )
    return visitor_id


def _session_json(session: Session) -> dict[str, Any]:
    return {
        "id": str(session.id),
        "title": session.title,
        "created_at": iso(session.created_at),
        "updated_at": iso(session.updated_at),
    }


@router.post("/api/sessions", status_code=201)
async def create_session(request: Request, response: Response, body: NewSession | None = None) -> dict[str, Any]:
    """Begin a conversation."""
    visitor_id = _visitor(request, response)
    time_now = now()
    title = body.title if body else ""
    session = Session(id=uuid.uuid4(), visitor_id=visitor_id, title=title, created_at=time_now, updated_at=time_now)
    async with _desk(request).database.sessions() as database, database.begin():
        database.add(session)
    return _session_json(session)


@router.get("/api/sessions")
async def list_sessions(request: Request, limit: Annotated[int, Query(ge=1, le=200)] = 50) -> list[dict[str, Any]]:
    """Return this visitor's conversations, the latest first."""
    visitor_id = _visitor(request)
    if visitor_id is None:
        return []
    query = select(Session).where(Session.visitor_id == visitor_id).order_by(Session.updated_at.desc()).limit(limit)
    async with _desk(request).database.sessions() as database:
        return [_session_json(session) for session in await database.scalars(query)]


@router.get("/api/sessions/{session_id}")
async def get_session(request: Request, session_id: uuid.UUID) -> dict[str, Any]:
    """Return one conversation; whoever has its id may open it."""
    async with _desk(request).database.sessions() as database:
        session = await database.get(Session, session_id)
    if session is None:
        raise HTTPException(404, "There is no such session.")
    return _session_json(session)


@router.get("/api/sessions/{session_id}/messages")
async def list_messages(request: Request, session_id: uuid.UUID) -> list[dict[str, Any]]:
    """Return the messages of a session, in order."""
    await get_session(request, session_id)
    query = select(Message).where(Message.session_id == session_id).order_by(Message.created_at, Message.id)
    async with _desk(request).database.sessions() as database:
        return [message_json(message) for message in await database.scalars(query)]


@router.post("/api/sessions/{session_id}/messages", status_code=201)
async def ask(request: Request, session_id: uuid.UUID, body: Question) -> dict[str, Any]:
    """Ask, and wait for the answer."""
    try:
        return await asyncio.shield(_desk(request).assistant.begin(session_id, body.content))
    except SessionMissingError:
        raise HTTPException(404, "There is no such session.") from None


def _memory_json(memory: Memory) -> dict[str, str]:
    return {"id": str(memory.id), "content": memory.content, "created_at": iso(memory.created_at)}


@router.get("/api/memories")
async def list_memories(request: Request) -> list[dict[str, str]]:
    """Return what this visitor asked us to keep in mind."""
    visitor_id = _visitor(request)
    if visitor_id is None:
        return []
    query = select(Memory).where(Memory.visitor_id == visitor_id).order_by(Memory.created_at)
    async with _desk(request).database.sessions() as database:
        return [_memory_json(memory) for memory in await database.scalars(query)]


@router.post("/api/memories", status_code=201)
async def create_memory(request: Request, response: Response, body: NewMemory) -> dict[str, str]:
    """Keep something in mind for this visitor."""
    memory = Memory(id=uuid.uuid4(), visitor_id=_visitor(request, response), content=body.content, created_at=now())
    async with _desk(request).database.sessions() as database, database.begin():
        database.add(memory)
    return _memory_json(memory)


@router.delete("/api/memories/{memory_id}", status_code=204)
async def delete_memory(request: Request, memory_id: uuid.UUID) -> None:
    """Forget one thing."""
    visitor_id = _visitor(request)
    async with _desk(request).database.sessions() as database, database.begin():
        memory = await database.get(Memory, memory_id)
        if memory is None or memory.visitor_id != visitor_id:
            raise HTTPException(404, "There is no such memory.")
        await database.delete(memory)


@router.get("/api/search")
async def search(
    request: Request,
    q: Annotated[str, Query(min_length=1, max_length=2000)],
    limit: Annotated[int, Query(ge=1, le=20)] = 5,
) -> list[dict[str, Any]]:
    """Return the articles that fit the text best."""
    hits = await _desk(request).knowledge.search(q, limit)
    return [hit.source() | {"body": hit.body} for hit in hits]


def _same_site(websocket: WebSocket, settings: Settings) -> bool:
    """Refuse pages of other sites: browsers let any page open a WebSocket, cookies included."""
    origin = websocket.headers.get("origin")
    if origin is None or origin.rstrip("/") in settings.cors_origins or "*" in settings.cors_origins:
        return True
    # Host names only: a proxy may leave the port out of Host.
    own = urlsplit(f"//{websocket.headers.get('host', '')}").hostname
    return urlsplit(origin).hostname == own


@router.websocket("/ws")
async def live(websocket: WebSocket) -> None:
    """Carry questions in, and the events of the sessions that the client joined out."""
    desk = _desk(websocket)
    if not _same_site(websocket, desk.settings):
        await websocket.close(1008)
        return
    await websocket.accept()
    connection = _Connection(websocket, desk)
    metrics.WEBSOCKETS.inc()
    try:
        await connection.run(websocket.query_params.get("session_id"))
    finally:
        metrics.WEBSOCKETS.dec()
        await connection.leave()


class _Connection:
    """One WebSocket: what it joined, and what it is waiting for."""

    def __init__(self, websocket: WebSocket, desk: Desk) -> None:
        self._websocket = websocket
        self._desk = desk
        self._client = Client()
        self._joined: set[str] = set()
        self._asking = 0
        self._watched: set[asyncio.Task[None]] = set()

    async def run(self, session_id: str | None) -> None:
        settings = self._desk.settings
        self._client.offer({"type": "hello", "version": settings.app_version, "instance": settings.instance})
        jobs = [asyncio.create_task(self._send()), asyncio.create_task(self._drop_slow())]
        try:
            if session_id is not None:
                await self._handle({"type": "join", "session_id": session_id})
            while True:
                await self._handle(await self._websocket.receive_json())
        except WebSocketDisconnect:
            pass
        except (ValueError, KeyError, RuntimeError):
            # Not JSON, not text, or closed by one of the jobs meanwhile.
            with contextlib.suppress(RuntimeError, WebSocketDisconnect):
                await self._websocket.close(1003)
        finally:
            for job in jobs:
                job.cancel()
            await asyncio.gather(*jobs, return_exceptions=True)

    async def leave(self) -> None:
        for session_id in self._joined:
            await self._desk.hub.leave(session_id, self._client)

    async def _send(self) -> None:
        while True:
            await self._websocket.send_json(await self._client.queue.get())

    async def _drop_slow(self) -> None:
        await self._client.overflowed.wait()
        await self._websocket.close(1013)

    def _error(self, code: str, detail: str, session_id: object = None) -> None:
        self._client.offer({"type": "error", "code": code, "detail": detail, "session_id": session_id})

    async def _handle(self, message: Any) -> None:
        kind = message.get("type") if isinstance(message, dict) else None
        if kind == "ping":
            self._client.offer({"type": "pong"})
            return
        if kind not in {"join", "leave", "ask"}:
            self._error("unknown", "Send type join, leave, ask or ping.")
            return
        try:
            session_id = uuid.UUID(str(message.get("session_id")))
        except ValueError:
            self._error("no_session", "session_id is not an id.", message.get("session_id"))
            return
        if kind == "leave":
            self._joined.discard(str(session_id))
            await self._desk.hub.leave(str(session_id), self._client)
        elif await self._join(session_id) and kind == "ask":
            self._ask(session_id, message)

    async def _join(self, session_id: uuid.UUID) -> bool:
        name = str(session_id)
        if name in self._joined:
            return True
        try:
            async with self._desk.database.sessions() as database:
                known = await database.get(Session, session_id) is not None
        except AWAY:
            self._error("unavailable", "The database does not answer.", name)
            return False
        if not known:
            self._error("no_session", "There is no such session.", name)
            return False
        self._joined.add(name)
        await self._desk.hub.join(name, self._client)
        self._client.offer({"type": "joined", "session_id": name})
        return True

    def _ask(self, session_id: uuid.UUID, message: dict[str, Any]) -> None:
        if self._asking >= ASKING_AT_ONCE:
            self._error("busy", "Wait for the answers to your other questions.", str(session_id))
            return
        try:
            question = Question(content=message.get("content", message.get("question")))
        except ValidationError:
            self._error("invalid", "A question has 1 to 2000 characters.", str(session_id))
            return
        self._asking += 1
        answer = self._desk.assistant.begin(session_id, question.content)
        watch = asyncio.create_task(self._watch(answer, str(session_id)))
        self._watched.add(watch)
        watch.add_done_callback(self._watched.discard)

    async def _watch(self, answer: asyncio.Task[dict[str, Any]], session_id: str) -> None:
        try:
            await answer
        except SessionMissingError:
            self._error("no_session", "There is no such session.", session_id)
        except KnowledgeAwayError as error:
            log.error("knowledge base: %s", error)  # noqa: TRY400 - its message says all
            self._error("unavailable", "The knowledge base does not answer. Try again in a moment.", session_id)
        except AWAY as error:
            log.error("database: %s", type(error).__name__, exc_info=error)  # noqa: TRY400 - its message says all
            self._error("unavailable", "The database does not answer. Try again in a moment.", session_id)
        finally:
            self._asking -= 1

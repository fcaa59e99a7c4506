#!/bin/sh
# aiohttp keeps applications that have ended, with all that their handlers and middlewares belong to.
#
# Version: aiohttp 3.14.5 of PyPI.
# Expected: an application whose runner was cleaned up, and to which nothing refers any more, is collected.
# Behaviour: what a handler behind middlewares was made to is remembered in a cache of the module, by handler, middlewares and
#   application, for the last thousand of them in the process. Whoever starts and ends servers in one process, as tests and
#   programs with a node of their own do, keeps the last thousand handlers' applications. One without middlewares goes.
# Output seen:
#   with a middleware: 20 of 20 applications are kept; without: 0 of 20
# Needs: python3 with venv. Fails if the behaviour is another.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q --disable-pip-version-check aiohttp==3.14.5
"$place/venv/bin/python" - <<'P'
import asyncio, gc, weakref

from aiohttp import ClientSession, web


class Owner:
    async def answer(self, request):
        return web.Response(text="hello")

    @web.middleware
    async def pass_on(self, request, handler):
        return await handler(request)


async def one(guarded):
    owner = Owner()
    app = web.Application(middlewares=[owner.pass_on] if guarded else [])
    app.router.add_get("/", owner.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    async with ClientSession() as session, session.get(f"http://127.0.0.1:{port}/") as reply:
        assert await reply.text() == "hello"
    await runner.cleanup()
    return weakref.ref(owner)


async def kept(guarded):
    ended = [await one(guarded) for _ in range(20)]
    await asyncio.sleep(0.1)
    gc.collect()
    return sum(each() is not None for each in ended)


with_one, without = asyncio.run(kept(True)), asyncio.run(kept(False))
print(f"with a middleware: {with_one} of 20 applications are kept; without: {without} of 20")
assert (with_one, without) == (20, 0), "the behaviour has changed"
P

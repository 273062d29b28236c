"""A router within an ASGI application: no second service, no second process.

    UNIROUTE_POOL=pool.uniroute gunicorn -k uvicorn.workers.UvicornWorker --preload app:app

`--preload` loads the pool before the workers are forked, which then share its memory. A decision
takes microseconds, with the GIL released, so the event loop may make it itself.
"""

import json
import os

import uniroute_fast as uf

router = uf.Router.load(os.environ["UNIROUTE_POOL"])


async def app(scope, receive, send):
    """Answer a posted chat with the LLM that should answer it."""
    if scope["type"] != "http":
        return
    body, more = b"", True
    while more:
        event = await receive()
        body += event.get("body", b"")
        more = event.get("more_body", False)
    try:
        chat = json.loads(body)
        decision = router.route(uf.chat_text(chat["messages"]), chat.get("cost_weight", 0.0))
        status, answer = 200, {"model": decision.model, "version": decision.version}
    except (ValueError, TypeError, KeyError) as error:
        status, answer = 400, {"error": str(error)}
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(answer).encode()})

"""The description of the service and the service agree: Schemathesis asks whatever it allows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from serving import TEXTS, TOKEN, call, make_router, route
from uniroute_fast.serving import Server

pytest.importorskip("schemathesis", reason="schemathesis is not installed (extra dev)")


def test_whatever_the_description_allows_is_answered(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    router = make_router()
    with Server(router, port=0, log="off", admin_token_file=token) as server:
        document = call(server, "GET", "/openapi.json").json
        assert document["openapi"].startswith("3.1")
        done = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli", "run", server.url + "/openapi.json"),
                *("--header", f"Authorization: Bearer {TOKEN}", "--seed", "1"),
                *("--max-examples", "25", "--no-color", "--generation-database", "none"),
                *(
                    "--checks",
                    "not_a_server_error,status_code_conformance,content_type_conformance",
                ),
                *("--exclude-path", "/v1/chat/completions"),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        assert call(server, "GET", "/healthz").status == 200


def test_answers_are_as_described(tmp_path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    with Server(make_router(), port=0, log="off") as server:
        document = call(server, "GET", "/openapi.json").json
        everything = {"components": document["components"]}

        def check(name: str, value: object) -> None:
            schema = {"$ref": f"#/components/schemas/{name}", **everything}
            jsonschema.Draft202012Validator(schema).validate(value)

        for extra in ({}, {"explain": True}, {"top": 0}, {"constraints": {"max_cost": 2}}):
            body = {"text": TEXTS[0], **extra}
            check("Question", body)
            check("Decided", route(server, **body))
        check("Decisions", route(server, texts=[TEXTS[0], "", None]))
        check("Model", call(server, "GET", "/v1/models/small").json)
        check("Refusal", call(server, "POST", "/v1/route", {"text": ""}).json)
        with pytest.raises(jsonschema.ValidationError):
            check("Decided", json.loads("{}"))

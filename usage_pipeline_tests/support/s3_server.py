"""moto's S3 in a process of its own, behind a recorder: `python -m usage_pipeline_tests.support.s3_server FOLDER`.

A process of its own, since DuckDB holds Python's lock in places while it waits for the store. FOLDER/log.jsonl gets
one line a request (method, path and query, bytes sent); FOLDER/answer.json makes it refuse: {"status", "code",
"times" (absent: always), "but" (requests whose query holds this go through)}; FOLDER/port says where it listens.
"""

import json
import sys
from pathlib import Path
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server


def main(folder: Path) -> None:
    app = DomainDispatcherApplication(create_backend_app)
    log = (folder / "log.jsonl").open("a", buffering=1)
    orders = folder / "answer.json"
    refused = 0

    def refusal(environ: dict[str, Any]) -> dict[str, Any] | None:
        nonlocal refused
        order = json.loads(orders.read_text()) if orders.exists() else None
        if order is None or refused >= order.get("times", sys.maxsize):
            return None
        if "but" in order and order["but"] in environ["QUERY_STRING"]:
            return None
        refused += 1
        found: dict[str, Any] = order
        return found

    def answer(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        asked = environ["PATH_INFO"] + ("?" + environ["QUERY_STRING"] if environ["QUERY_STRING"] else "")
        order = refusal(environ)
        if order is None:
            body = b"".join(app(environ, start_response))
        else:
            start_response(f"{order['status']} Refused", [("Content-Type", "application/xml")])
            body = f"<Error><Code>{order['code']}</Code><Message>no</Message></Error>".encode()
        sent = len(body) if environ["REQUEST_METHOD"] == "GET" else 0
        log.write(json.dumps([environ["REQUEST_METHOD"], asked, sent]) + "\n")
        return [body]

    server = make_server("127.0.0.1", 0, answer, threaded=True)
    (folder / "port").write_text(str(server.server_port))
    server.serve_forever()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""`kingpost predict`: call a model and print its answer as it comes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from kingpost.cli.session import Session, with_remote

if TYPE_CHECKING:
    from kingpost.client.inference import Answered


@click.command()
@click.argument("model", metavar="MODEL")
@click.option(
    "-d",
    "--data",
    metavar="JSON|@FILE|-",
    help="The input: JSON, a file's content, or stdin (`-`, the default for a pipe).",
)
@click.option("--environment", metavar="ENV", help="Default: production.")
@click.option("--deployment", metavar="NAME|ID", help="One deployment instead of an environment.")
@click.option("--development", is_flag=True, help="The development deployment.")
@click.option(
    "--path", metavar="PATH", help="A path of the model's own server, such as /v1/chat/completions."
)
@with_remote
def predict(
    session: Session,
    model: str,
    data: str | None,
    environment: str | None,
    deployment: str | None,
    development: bool,
    path: str | None,
) -> None:
    """Call a model and print its answer as it comes."""
    if sum(1 for chosen in (environment, deployment, development) if chosen) > 1:
        raise click.UsageError("Choose one of --environment, --deployment and --development.")
    body = read_input(data, sys.stdin.buffer, interactive=sys.stdin.isatty())
    from kingpost.client import inference
    from kingpost.client.resolve import find_deployment, find_model

    action = inference.action_of(path)
    api = session.api()
    found = find_model(api, model)
    deployment_id = find_deployment(api, found, deployment)["id"] if deployment else None
    target = inference.target_of(
        environment=environment, deployment_id=deployment_id, development=development
    )
    with inference.call(
        api.remote, found["id"], f"{target}/{action}", body, content_type="application/json"
    ) as answered:
        if session.out.as_json:
            session.out.json(_gathered(answered))
        else:
            _stream(answered, sys.stdout.buffer)


def read_input(data: str | None, stdin: IO[bytes], *, interactive: bool) -> bytes:
    """The request's body, which must be JSON. Raises UsageError otherwise."""
    if data is None and interactive:
        raise click.UsageError("Nothing to send: use --data JSON, --data @FILE, or a pipe.")
    if data is None or data == "-":
        body, source = stdin.read(), "stdin"
    elif data.startswith("@"):
        body, source = Path(data[1:]).read_bytes(), data[1:]
    else:
        body, source = data.encode(), "--data"
    try:
        json.loads(body)
    except ValueError as error:
        raise click.UsageError(f"{source} is no JSON: {error}.") from None
    return body


def _stream(answered: Answered, out: IO[bytes]) -> None:
    last = b""
    for chunk in answered.chunks:
        out.write(chunk)
        out.flush()
        last = chunk or last
    if not last.endswith(b"\n") and sys.stdout.isatty():
        out.write(b"\n")
        out.flush()


def _gathered(answered: Answered) -> dict[str, Any]:
    body = b"".join(answered.chunks)
    try:
        output = json.loads(body)
    except ValueError:
        output = body.decode(errors="replace")
    return {"status": answered.status, "request_id": answered.request_id, "output": output}

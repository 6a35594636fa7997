"""`POST /graphql/`: read, execute, answer. Errors are told the way the truss CLI reads them."""

from __future__ import annotations

from inspect import isawaitable
from typing import Any, Final

import msgspec
from graphql import (
    DocumentNode,
    ExecutionResult,
    FieldNode,
    GraphQLError,
    GraphQLSchema,
    OperationDefinitionNode,
    execute,
)
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from kingpost.api import address, inputs
from kingpost.api.auth import Access, authorize
from kingpost.api.errors import MethodNotAllowedError, describe, graphql_error
from kingpost.api.graphql.context import Context
from kingpost.api.graphql.schema import make_schema, read_query
from kingpost.api.views import Views
from kingpost.control.platform import Platform
from kingpost.errors import InvalidInputError

PATH: Final = "/graphql"
UPLOAD_FIELD: Final = "model_s3_upload_credentials"


class Query(msgspec.Struct, frozen=True):
    query: str
    variables: dict[str, Any] | None = None
    operationName: str | None = None  # noqa: N815 (the protocol's name)


def routes(platform: Platform) -> list[Route]:
    endpoint = _Endpoint(platform, make_schema())
    return [Route(PATH, endpoint), Route(f"{PATH}/", endpoint)]


class _Endpoint:
    def __init__(self, platform: Platform, schema: GraphQLSchema) -> None:
        self._platform = platform
        self._schema = schema
        self._views = Views(platform)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if request.method != "POST":
            raise MethodNotAllowedError(request.method, ("POST",))
        authorization = request.headers.get("authorization")
        context = Context(
            self._platform,
            self._views,
            authorize(self._platform.keys, authorization, Access.MANAGE),
            address.base_url(request, self._platform.settings),
        )
        query = inputs.decode(await inputs.read_body(request), Query)
        body = await self._run(query, context, scope["kingpost.request_id"])
        response = Response(msgspec.json.encode(body), media_type="application/json")
        await response(scope, receive, send)

    async def _run(self, query: Query, context: Context, request_id: str) -> dict[str, Any]:
        try:
            document = read_query(self._schema, query.query)
        except GraphQLError as error:
            return {"data": None, "errors": [_error(error, request_id)]}
        outcome = execute(
            self._schema,
            document,
            context_value=context,
            variable_values=query.variables,
            operation_name=query.operationName,
        )
        result: ExecutionResult = await outcome if isawaitable(outcome) else outcome
        data = result.data
        if data is not None:
            _add_endpoint_url(document, data, address.upload_url(context.base_url))
        if result.errors:
            return {"data": data, "errors": [_error(error, request_id) for error in result.errors]}
        return {"data": data}


def _add_endpoint_url(document: DocumentNode, data: dict[str, Any], url: str) -> None:
    """Tell the CLI where to upload to: it passes the whole reply on to boto3 as arguments."""
    for node in document.definitions:
        if not isinstance(node, OperationDefinitionNode):
            continue
        for field in node.selection_set.selections:
            if isinstance(field, FieldNode) and field.name.value == UPLOAD_FIELD:
                key = field.alias.value if field.alias else field.name.value
                if isinstance(data.get(key), dict):
                    data[key]["endpoint_url"] = url


def _error(error: GraphQLError, request_id: str) -> dict[str, Any]:
    """An error of a resolver as the platform tells it; one of the query itself in its words."""
    cause = error.original_error
    while isinstance(cause, GraphQLError) and cause.original_error is not None:
        cause = cause.original_error
    if cause is None or isinstance(cause, GraphQLError):
        cause = InvalidInputError(f"The GraphQL request can't be carried out: {error.message}")
    told = graphql_error(describe(cause, request_id))
    return told | ({"path": error.path} if error.path else {})

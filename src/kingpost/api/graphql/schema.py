"""The executable schema: the SDL beside this module with its resolvers, and bounds on queries."""

from __future__ import annotations

from importlib.resources import files
from typing import Any, Final

import msgspec
from graphql import (
    DocumentNode,
    FieldNode,
    GraphQLError,
    GraphQLObjectType,
    GraphQLScalarType,
    GraphQLSchema,
    build_schema,
    parse,
    validate,
)
from graphql.language import (
    FragmentDefinitionNode,
    FragmentSpreadNode,
    InlineFragmentNode,
    OperationDefinitionNode,
)
from graphql.language.ast import SelectionSetNode

from kingpost.api.graphql import mutations, queries

MAX_TOKENS: Final = 5_000
MAX_FIELDS: Final = 500
MAX_DEPTH: Final = 16


def make_schema() -> GraphQLSchema:
    schema = build_schema(files(__package__).joinpath("schema.graphql").read_text())
    _bind(schema.query_type, queries.RESOLVERS)
    _bind(schema.mutation_type, mutations.RESOLVERS)
    json_string = schema.type_map["JSONString"]
    assert isinstance(json_string, GraphQLScalarType)  # noqa: S101 (the SDL says so)
    json_string.parse_value = parse_json_string  # type: ignore[method-assign]
    return schema


def read_query(schema: GraphQLSchema, text: str) -> DocumentNode:
    """A document that is valid and within bounds. Raises GraphQLError."""
    try:
        document = parse(text, no_location=True, max_tokens=MAX_TOKENS)
        _check_size(document)
        errors = validate(schema, document, max_errors=5)
    except RecursionError as error:
        raise GraphQLError("The query is nested too deeply.") from error
    if errors:
        raise errors[0]
    return document


def parse_json_string(value: Any) -> Any:
    """What a `JSONString` holds. Raises GraphQLError when it is no JSON."""
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, TypeError, RecursionError) as error:
        raise GraphQLError("A JSONString must be a string that holds valid JSON.") from error


def _bind(kind: GraphQLObjectType | None, resolvers: dict[str, Any]) -> None:
    """Every field of `kind` gets its resolver; a missing or a spare one is an error."""
    fields = kind.fields if kind else {}
    if fields.keys() != resolvers.keys():
        raise TypeError(f"fields and resolvers differ: {fields.keys() ^ resolvers.keys()}")
    for name, field in fields.items():
        field.resolve = resolvers[name]


def _check_size(document: DocumentNode) -> None:
    """Bounds on fields and depth, fragments counted wherever they are used."""
    fragments = {
        node.name.value: node.selection_set
        for node in document.definitions
        if isinstance(node, FragmentDefinitionNode)
    }
    budget = MAX_FIELDS

    def walk(selections: SelectionSetNode | None, depth: int) -> None:
        nonlocal budget
        if depth > MAX_DEPTH:
            raise GraphQLError(f"The query is nested more than {MAX_DEPTH} levels deep.")
        for node in selections.selections if selections else ():
            budget -= 1
            if budget < 0:
                raise GraphQLError(f"The query asks for more than {MAX_FIELDS} fields.")
            if isinstance(node, FieldNode):
                walk(node.selection_set, depth + 1)
            elif isinstance(node, InlineFragmentNode):
                walk(node.selection_set, depth)
            elif isinstance(node, FragmentSpreadNode):
                walk(fragments.get(node.name.value), depth)

    for node in document.definitions:
        if isinstance(node, OperationDefinitionNode):
            walk(node.selection_set, 0)

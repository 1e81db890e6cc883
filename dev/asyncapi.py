"""Makes docs/reference/asyncapi.json, which describes the topics that others may read.

The schemas are those of the very types that the consumer parses.
"""

import json
from typing import Any

import msgspec

from passport import __version__, event
from passport.settings import Kafka

# The kinds of records: the word on the wire, its summary, the type that is parsed.
MESSAGES = {
    "row": ("a row of obs changed, or was read", event.RowEvent),
    "notice": (
        "a row changed in a table that obs are enriched from or matched by",
        event.KeyChangeEvent,
    ),
    "chunk": ("every other obs in this range of keys is gone", event.ChunkEvent),
    "heartbeat": ("all up to this position is published", event.HeartbeatEvent),
}
KEY = {"type": "string", "description": "The hospital's id, which has a partition of its own."}
TRACEPARENT = {
    "type": "string",
    "description": "W3C Trace Context, of a transaction that is traced.",
}
DEAD_LETTER = {
    "type": "string",
    "contentEncoding": "binary",
    "description": "The record as it came, or null: settled.",
}


def page() -> str:
    """Return the text of the document."""
    return json.dumps(_document(), indent=1) + "\n"


def _document() -> dict[str, Any]:
    kafka = Kafka(bootstrap="localhost")  # for the topics' default names
    messages = {kind: _message(kind, summary) for kind, (summary, _) in MESSAGES.items()}
    dead_letter = {"summary": "a record that could not be carried", "payload": DEAD_LETTER}
    channels = {
        "changes": _channel(
            kafka.topic, "One partition a hospital, in commit order.", list(messages)
        ),
        "deadLetters": _channel(
            kafka.dead_letters_topic, "Why each is here stands in its headers.", ["letter"]
        ),
    }
    operations = {}
    for name in channels:
        operations[name] = {"action": "send", "channel": {"$ref": f"#/channels/{name}"}}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "openmrs-passport",
            "version": __version__,
            "description": "What travels in Kafka; events.md tells it in words.",
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {
            # `letter` is a name that other tools may know: it stays.
            "messages": {**messages, "letter": dead_letter},
            "schemas": _schemas(),
        },
    }


def _channel(topic: str, description: str, messages: list[str]) -> dict[str, Any]:
    refs = {name: {"$ref": f"#/components/messages/{name}"} for name in messages}
    return {"address": topic, "description": description, "messages": refs}


def _message(kind: str, summary: str) -> dict[str, Any]:
    return {
        "summary": summary,
        "headers": {
            "type": "object",
            "properties": {"ce_type": {"const": kind}, "traceparent": TRACEPARENT},
            "required": ["ce_type"],
        },
        "payload": {"$ref": f"#/components/schemas/{MESSAGES[kind][1].__name__}"},
        "bindings": {"kafka": {"key": KEY}},
    }


def _schemas() -> dict[str, Any]:
    """Return the schemas of the events, as the parser has them."""
    events = [event_type for _, event_type in MESSAGES.values()]
    _, schemas = msgspec.json.schema_components(events, ref_template="#/components/schemas/{name}")
    return schemas

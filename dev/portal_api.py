"""``make portal-api`` writes docs/reference/portal-api.json, the OpenAPI document of the portal."""

import json
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from pymongo import MongoClient

from passport.settings import Portal
from portal.app import create

DOCUMENT = Path(__file__).parents[1] / "docs/reference/portal-api.json"


def main() -> None:
    """Write the document. No server is needed: the client never connects."""
    client: MongoClient[dict[str, Any]] = MongoClient("mongodb://127.0.0.1", connect=False)
    settings = Portal(jwt_secret=SecretStr("of nobody, for the document alone"))
    app = create(settings, {}, client["none"], list)
    text = json.dumps(app.openapi(), indent=1, ensure_ascii=False)
    DOCUMENT.write_text(f"{text}\n", encoding="utf-8")
    client.close()


if __name__ == "__main__":
    main()

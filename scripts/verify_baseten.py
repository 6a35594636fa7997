"""Takes a small model to Baseten and back, on a real account: states its price and asks first.

Usage: verify_baseten.py [options of `kingpost deploy`]. Needs BASETEN_API_KEY. What it made is
destroyed at the end, also when something fails. Exits 0 when all of it went well.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from typing import Any

DEFAULTS = ["--model", "Qwen/Qwen3-0.6B", "--gpu", "T4", "--max-model-len", "1024"]


def main(options: list[str]) -> int:
    if not os.environ.get("BASETEN_API_KEY"):
        print("Set BASETEN_API_KEY to a key of the account that is to pay.")
        return 1
    yes = "--yes" in options
    chosen = [option for option in options if option != "--yes"] or DEFAULTS
    service = f"verify-{secrets.token_hex(3)}"
    command = ["deploy", *chosen, "--provider", "baseten", "--service-name", service]
    plan = said("deploy", "--plan", *command[1:])
    print(f"This deploys {plan['request']['model']} as {service} on Baseten.")
    print(f"A replica costs {plan['usd_per_hour']} USD per hour, as of {plan['price_as_of']}.")
    if not yes and input("Go on? [y/N] ").strip().lower() != "y":
        return 1
    try:
        made = said(*command, "--yes")
        print(f"It serves and has answered: {made['endpoint']}")
        now = said("status", service)
        print(f"Its state there is {now['provider_state']}.")
        told = said("cost", service)
        print(f"It cost between {told['usd_at_least']} and {told['usd_at_most']} USD, estimated.")
    finally:
        if any(entry["service"] == service for entry in said("list")):
            (gone,) = said("destroy", service, "--yes")
            print(f"{service} is {gone['state']}.")
    return 0 if now["state"] in {"active", "idle"} else 1


def said(*arguments: str) -> Any:
    """What a kingpost command prints as JSON; its progress goes to our stderr."""
    command = [sys.executable, "-m", "kingpost", *arguments, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Speaks to the control server of a development replica (truss/templates/control)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kingpost.engine.base import Address

PATCH_TIMEOUT_S = 300.0
_FULL_DEPLOY = frozenset({"unsupported_patch", "patch_failed_unrecoverable"})


@dataclass(frozen=True)
class Applied:
    """`took_hold` says that the replica's code is now as the patch says, reloaded or not."""

    took_hold: bool
    error: str | None = None
    needs_full_deploy: bool = False


class ControlServer:
    def __init__(self, address: Address) -> None:
        self._base = f"http://{address.host}:{address.port}"

    async def patch(
        self, *, prev_hash: str, next_hash: str, operations: list[dict[str, Any]]
    ) -> Applied:
        """Apply operations that lead from one state of the code to another."""
        import httpx

        body = {"hash": next_hash, "prev_hash": prev_hash, "patches": operations}
        try:
            async with httpx.AsyncClient(
                base_url=self._base, timeout=PATCH_TIMEOUT_S, trust_env=False
            ) as client:
                answer = await client.post("/control/patch", json=body)
                said = answer.json()
                if "error" not in said:
                    return Applied(took_hold=True)
                now = (await client.get("/control/truss_hash")).json()
        except (httpx.HTTPError, ValueError) as error:
            return Applied(took_hold=False, error=f"The replica did not take the patch: {error}")
        failure = said["error"]
        kind = failure.get("type", "") if isinstance(failure, dict) else ""
        message = failure.get("msg", "") if isinstance(failure, dict) else str(failure)
        return Applied(
            took_hold=now.get("result") == next_hash,
            error=message or kind or "The replica refused the patch.",
            needs_full_deploy=kind in _FULL_DEPLOY,
        )

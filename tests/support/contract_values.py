"""Values of the management API for scripted answers."""

from __future__ import annotations

from typing import Any


def model(**changes: Any) -> dict[str, Any]:
    return {
        "id": "m1234567",
        "created_at": "2026-11-21T10:00:00Z",
        "name": "tiny-chat",
        "deployments_count": 1,
        "production_deployment_id": None,
        "development_deployment_id": None,
        "instance_type_name": "1x2",
        "team_name": "default",
        **changes,
    }


def deployment(**changes: Any) -> dict[str, Any]:
    return {
        "id": "d1234567",
        "created_at": "2026-11-21T10:00:00Z",
        "name": "deployment-1",
        "model_id": "m1234567",
        "is_production": False,
        "is_development": False,
        "status": "BUILDING",
        "active_replica_count": 0,
        "autoscaling_settings": None,
        "instance_type_name": "1x2",
        "environment": None,
        "request_backpressure_settings": {"policy": None},
        **changes,
    }


def environment(**changes: Any) -> dict[str, Any]:
    return {
        "name": "production",
        "created_at": "2026-11-21T10:00:00Z",
        "model_id": "m1234567",
        "current_deployment": None,
        "candidate_deployment": None,
        "in_progress_promotion": None,
        "autoscaling_settings": {
            "min_replica": 0,
            "max_replica": 1,
            "autoscaling_window": 60,
            "scale_down_delay": 900,
            "concurrency_target": 1,
            "target_utilization_percentage": 70,
        },
        "promotion_settings": {"redeploy_on_promotion": False},
        "instance_type": {
            "id": "1x2",
            "name": "1x2",
            "memory_limit_mib": 2048,
            "millicpu_limit": 1000,
            "gpu_count": 0,
            "gpu_type": None,
            "gpu_memory_limit_mib": None,
        },
        "request_backpressure_settings": {"policy": None},
        **changes,
    }


def log_line(at_ns: int, message: str, **changes: Any) -> dict[str, Any]:
    return {
        "timestamp": str(at_ns),
        "message": message,
        "replica": None,
        "request_id": None,
        "level": None,
        **changes,
    }

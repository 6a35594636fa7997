"""Operations of the contract that this platform does not have yet: they answer 501, not 404."""

from __future__ import annotations

from typing import Final

_TABLE: Final = """
Chains are:
    GET /v1/chains
    DELETE GET /v1/chains/{chain_id}
    GET /v1/chains/{chain_id}/audit_logs
    GET /v1/chains/{chain_id}/deployments
    DELETE GET /v1/chains/{chain_id}/deployments/{chain_deployment_id}
    POST /v1/chains/{chain_id}/deployments/{chain_deployment_id}/deactivate
    GET /v1/chains/{chain_id}/deployments/{chain_deployment_id}/chainlets/{chainlet_id}/logs
    GET POST /v1/chains/{chain_id}/environments
    GET PATCH /v1/chains/{chain_id}/environments/{env_name}
    POST /v1/chains/{chain_id}/environments/{env_name}/promote
    PATCH /v1/chains/{chain_id}/environments/{env_name}/chainlet_settings/autoscaling_settings
    POST /v1/chains/{chain_id}/environments/{env_name}/chainlet_settings/instance_types/update
Training is:
    POST /v1/teams/{team_id}/training_projects
    GET POST /v1/training_projects
    GET POST /v1/training_projects/{project_id}/jobs
    DELETE GET PATCH /v1/training_projects/{project_id}/jobs/{job_id}
    GET /v1/training_projects/{project_id}/jobs/{job_id}/download
    POST /v1/training_projects/{project_id}/jobs/{job_id}/recreate
    GET POST /v1/training_projects/{project_id}/jobs/{job_id}/logs
    GET POST /v1/training_projects/{project_id}/jobs/{job_id}/metrics
    POST /v1/training_projects/{project_id}/jobs/{job_id}/stop
    GET /v1/training_projects/{project_id}/jobs/{job_id}/checkpoints
    GET /v1/training_projects/{project_id}/jobs/{job_id}/checkpoint_files
    GET /v1/training_projects/{project_id}/jobs/{job_id}/auth_codes
    PATCH /v1/training_projects/{project_id}/jobs/{job_id}/interactive_sessions/{session_id}
    POST /v1/training_projects/{project_id}/jobs/{job_id}/ssh/sign
    GET /v1/training_projects/{project_id}/cache/summary
    DELETE GET /v1/training_projects/{project_id}
    POST /v1/training_jobs/search
    GET PATCH /v1/training/capacity
    GET /v1/training/jobs/{job_id}/queue_context
    GET /v1/blobs/credentials/train
Loops are:
    GET PATCH /v1/loops/user_config
    GET /v1/loops/capabilities
    POST /v1/loops/sessions
    GET /v1/loops/sessions/{session_id}
    GET POST /v1/loops/runs
    POST /v1/loops/runs/{run_id}/deactivate
    GET /v1/loops/runs/{run_id}
    POST /v1/loops/trainers
    GET POST /v1/loops/samplers
    GET /v1/loops/samplers/{sampler_id}
    GET /v1/loops/checkpoints
    POST /v1/loops/checkpoints/validate
    GET /v1/loops/checkpoints/{checkpoint_id}/files
    GET /v1/loops/deployments
    POST /v1/loops/deployments/{deployment_id}/deactivate
    GET /v1/loops/deployments/{deployment_id}
    POST /v1/loops/deployments/{deployment_id}/metrics
    GET /v1/loops/deployments/{deployment_id}/logs
    POST /v1/teams/{team_id}/loops/sessions
    GET POST /v1/teams/{team_id}/loops/runs
    POST /v1/teams/{team_id}/loops/trainers
    GET POST /v1/teams/{team_id}/loops/samplers
Model APIs are:
    GET /v1/model_apis
    GET /v1/model_apis/usage
    GET /v1/model_apis/{model_api_name}
LLM models without an archive are:
    POST /v1/llm_models
    POST /v1/teams/{team_id}/llm_models
    POST /v1/llm_models/{model_id}/deployments
Library listings are:
    GET POST /v1/library_listings
    DELETE GET PATCH /v1/library_listings/{listing_id}
    GET POST /v1/library_listings/{listing_id}/versions
    DELETE GET PATCH /v1/library_listings/{listing_id}/versions/{version_tag}
Gateway endpoints and groups are:
    GET POST /v1/gateway/endpoints
    DELETE GET PATCH /v1/gateway/endpoints/{endpoint_id}
    GET POST /v1/gateway/groups
    GET PATCH /v1/gateway/groups/{group_id}
    GET POST /v1/gateway/groups/{group_id}/api_keys
    POST /v1/gateway/groups/{group_id}/api_keys/register
    GET /v1/gateway/groups/{group_id}/api_keys/{api_key_prefix}
Audit logs are:
    GET /v1/audit_logs
    GET /v1/models/{model_id}/audit_logs
Metrics over this API are:
    GET /v1/models/{model_id}/deployments/{deployment_id}/metrics
    GET /v1/models/{model_id}/environments/{env_name}/metrics
Patches over this API are:
    POST /v1/models/{model_id}/deployments/{deployment_id}/patches
    GET /v1/models/{model_id}/deployments/{deployment_id}/patches/state
    POST /v1/models/{model_id}/deployments/{deployment_id}/patches/sync
Pausing, resuming and forcing a promotion are:
    POST /v1/models/{model_id}/environments/{env_name}/pause_promotion
    POST /v1/models/{model_id}/environments/{env_name}/resume_promotion
    POST /v1/models/{model_id}/environments/{env_name}/force_cancel_promotion
    POST /v1/models/{model_id}/environments/{env_name}/force_roll_forward_promotion
Environment groups are:
    GET /v1/environment_groups
    GET PATCH /v1/environment_groups/{env_name}
    GET /v1/teams/{team_id}/environment_groups
    GET PATCH /v1/teams/{team_id}/environment_groups/{env_name}
Billing summaries are:
    GET /v1/billing/usage_summary
Accounts of people are:
    GET /v1/users
    GET /v1/users/{user_id}
Ending single replicas is:
    DELETE /v1/models/{model_id}/deployments/{deployment_id}/replicas/{replica_id}
SSH into replicas is:
    POST /v1/models/{model_id}/deployments/{deployment_id}/ssh/sign
"""


def _operations() -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for line in _TABLE.strip().splitlines():
        if line.endswith(":"):
            feature = line[:-1]
            found[feature] = ()
            continue
        *methods, path = line.split()
        found[feature] += tuple(f"{method} {path}" for method in methods)
    return found


UNSUPPORTED: Final = _operations()
"""By feature, as the beginning of a sentence: its operations, each `METHOD /path/template`."""

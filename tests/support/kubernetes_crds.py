"""Schemas of the custom resources that deploy/kubernetes uses, strict: what is not listed is wrong.

KEDA: keda.sh/v1alpha1 as of 2.20 (`fallback.behavior` needs 2.17; the fields of the metrics-api
trigger are those of its documentation). Prometheus operator: monitoring.coreos.com/v1. Only fields
that the manifests may sensibly use are here.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string", "minLength": 1}
COUNT: Schema = {"type": "integer", "minimum": 0}


def _object(required: dict[str, Schema], **optional: Schema) -> Schema:
    return {
        "type": "object",
        "properties": required | optional,
        "required": list(required),
        "additionalProperties": False,
    }


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items, "minItems": 1}


LABELS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
METADATA = _object({"name": TEXT, "namespace": TEXT}, labels=LABELS, annotations=LABELS)

_RULES = _object(
    {},
    stabilizationWindowSeconds={"type": "integer", "minimum": 0, "maximum": 3600},
    selectPolicy={"enum": ["Max", "Min", "Disabled"]},
    policies=_list(
        _object(
            {
                "type": {"enum": ["Pods", "Percent"]},
                "value": {"type": "integer", "minimum": 1},
                "periodSeconds": {"type": "integer", "minimum": 1, "maximum": 1800},
            }
        )
    ),
)

# Every value in a trigger's metadata is a string: a bare number is refused by the API server.
_NUMBER: Schema = {"type": "string", "pattern": r"^\d+(\.\d+)?$"}
_METRICS_API = _object(
    {
        "url": {"type": "string", "pattern": "^https?://"},
        "valueLocation": TEXT,
        "targetValue": _NUMBER,
    },
    activationTargetValue=_NUMBER,
    format={"enum": ["json", "xml", "yaml", "prometheus"]},
    authMode={"enum": ["apiKey", "basic", "tls", "bearer"]},
    method={"enum": ["header", "query"]},
    keyParamName=TEXT,
    timeout=TEXT,
    unsafeSsl={"enum": ["true", "false"]},
)

SCALED_OBJECT = _object(
    {
        "apiVersion": {"const": "keda.sh/v1alpha1"},
        "kind": {"const": "ScaledObject"},
        "metadata": METADATA,
        "spec": _object(
            {
                "scaleTargetRef": _object(
                    {"name": TEXT}, apiVersion=TEXT, kind=TEXT, envSourceContainerName=TEXT
                ),
                "triggers": _list(
                    _object(
                        {"type": {"const": "metrics-api"}, "metadata": _METRICS_API},
                        name=TEXT,
                        metricType={"enum": ["AverageValue", "Value"]},
                        useCachedMetrics={"type": "boolean"},
                        authenticationRef=_object(
                            {"name": TEXT},
                            kind={
                                "enum": ["TriggerAuthentication", "ClusterTriggerAuthentication"]
                            },
                        ),
                    )
                ),
            },
            pollingInterval=COUNT,
            cooldownPeriod=COUNT,
            initialCooldownPeriod=COUNT,
            idleReplicaCount=COUNT,
            minReplicaCount=COUNT,
            maxReplicaCount=COUNT,
            fallback=_object(
                {"failureThreshold": COUNT, "replicas": COUNT},
                behavior={
                    "enum": [
                        "static",
                        "currentReplicas",
                        "currentReplicasIfHigher",
                        "currentReplicasIfLower",
                    ]
                },
            ),
            advanced=_object(
                {},
                restoreToOriginalReplicaCount={"type": "boolean"},
                horizontalPodAutoscalerConfig=_object(
                    {}, name=TEXT, behavior=_object({}, scaleUp=_RULES, scaleDown=_RULES)
                ),
            ),
        ),
    }
)

TRIGGER_AUTHENTICATION = _object(
    {
        "apiVersion": {"const": "keda.sh/v1alpha1"},
        "kind": {"const": "TriggerAuthentication"},
        "metadata": METADATA,
        "spec": _object(
            {"secretTargetRef": _list(_object({"parameter": TEXT, "name": TEXT, "key": TEXT}))}
        ),
    }
)

POD_MONITOR = _object(
    {
        "apiVersion": {"const": "monitoring.coreos.com/v1"},
        "kind": {"const": "PodMonitor"},
        "metadata": METADATA,
        "spec": _object(
            {
                "selector": _object({}, matchLabels=LABELS),
                "podMetricsEndpoints": _list(
                    _object({"port": TEXT}, path=TEXT, interval=TEXT, scrapeTimeout=TEXT)
                ),
            }
        ),
    }
)

SCHEMAS = {
    "ScaledObject": SCALED_OBJECT,
    "TriggerAuthentication": TRIGGER_AUTHENTICATION,
    "PodMonitor": POD_MONITOR,
}

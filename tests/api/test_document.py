"""Requests generated from the OpenAPI document get only documented responses, never a 5xx."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings


def test_no_request_brings_it_down(service, url):
    import schemathesis  # takes seconds, of every process of a test run if it stood above
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks

    expected = [
        not_a_server_error,
        checks.content_type_conformance,
        checks.response_schema_conformance,
        checks.status_code_conformance,
    ]
    document = schemathesis.openapi.from_url(f"{url}/openapi.json")
    for result in document.get_all_operations():
        operation = result.ok()
        if operation.path.endswith("/events"):  # streams to the end of a job; tested by itself
            continue

        @settings(
            max_examples=8,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def answers(case) -> None:
            case.call_and_validate(checks=expected, timeout=20)

        answers()
    for job in service.list(100)[0]:
        service.delete(job.id)

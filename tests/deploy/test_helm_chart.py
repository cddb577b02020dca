from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "atoll"
TEMPLATES = sorted((CHART / "templates").iterdir())
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
OPENS = re.compile(r"^(if|with|range|define|block)\b")
PYTHON = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
}
KNOWN = {
    *("$schema", "title", "type", "enum", "const", "pattern", "minLength", "minimum", "maximum"),
    *("properties", "required", "additionalProperties", "items", "not", "if", "then"),
    *("$ref", "definitions"),
}


def values() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
    return read


def wrong(value: Any, schema: Mapping[str, Any], where: str = "values") -> Iterator[str]:
    """What of a value its JSON schema does not allow; knows the keywords that this chart uses."""
    assert set(schema) <= KNOWN, f"teach this test {set(schema) - KNOWN}"
    if "$ref" in schema:
        schema = SCHEMA["definitions"][schema["$ref"].rpartition("/")[2]]
    kind = schema.get("type")
    if kind is not None and (
        not isinstance(value, PYTHON[kind]) or (kind == "integer" and isinstance(value, bool))
    ):
        yield f"{where} is no {kind}"
        return
    if value not in schema.get("enum", [value]) or value != schema.get("const", value):
        yield f"{where} may not be {value!r}"
    if isinstance(value, str):
        if not re.search(schema.get("pattern", ""), value):
            yield f"{where} has another form"
        if len(value) < schema.get("minLength", 0):
            yield f"{where} is empty"
    if isinstance(value, int) and not (
        schema.get("minimum", value) <= value <= schema.get("maximum", value)
    ):
        yield f"{where} is out of range"
    if isinstance(value, list) and "items" in schema:
        for place, item in enumerate(value):
            yield from wrong(item, schema["items"], f"{where}[{place}]")
    if isinstance(value, dict):
        known = schema.get("properties", {})
        yield from (
            f"{where}.{key} is missing" for key in schema.get("required", []) if key not in value
        )
        for key, item in value.items():
            if key in known:
                yield from wrong(item, known[key], f"{where}.{key}")
            elif schema.get("additionalProperties") is False:
                yield f"{where}.{key} is unknown"
    if "not" in schema and not list(wrong(value, schema["not"], where)):
        yield f"{where} may not be {value!r}"
    if "if" in schema and not list(wrong(value, schema["if"], where)):
        yield from wrong(value, schema["then"], where)


def changed(**told: Any) -> dict[str, Any]:
    """The values with sections of one level put over them, as `helm --set` does."""
    made = values()
    for key, value in told.items():
        made[key] = {**made[key], **value} if isinstance(value, dict) else value
    return made


def test_the_chart_is_of_this_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.M)
    assert version
    assert (chart["apiVersion"], chart["name"], chart["appVersion"]) == ("v2", "atoll", version[1])


def test_the_values_fit_their_schema() -> None:
    assert list(wrong(values(), SCHEMA)) == []


@pytest.mark.parametrize(
    ("told", "fault"),
    [
        ({"role": "both"}, "values.role may not be 'both'"),
        ({"role": "client"}, "values.client.platform is empty"),
        ({"image": {"tag": "latest"}}, "values.image.tag may not be 'latest'"),
        ({"image": {"digest": "sha256:1"}}, "values.image.digest has another form"),
        ({"client": {"port": 0}}, "values.client.port is out of range"),
        ({"server": {"ports": 1}}, "values.server.ports is unknown"),
        ({"maintenance": "no"}, "values.maintenance is no boolean"),
    ],
)
def test_wrong_values_are_refused(told: dict[str, Any], fault: str) -> None:
    assert fault in list(wrong(changed(**told), SCHEMA))


def test_a_clients_values_fit() -> None:
    told = changed(role="client", client={"platform": "[platform]", "rows": {"claim": "rows"}})
    assert list(wrong(told, SCHEMA)) == []


def test_every_value_has_a_place_in_the_schema_and_a_use_in_a_template() -> None:
    used = {path[0] for template in TEMPLATES for path in paths(template.read_text())}
    assert set(values()) == set(SCHEMA["properties"]) - {"global"} == used


def paths(text: str) -> Iterator[list[str]]:
    """Every `.Values.a.b` of a template, as its parts."""
    for found in re.findall(r"\.Values\.([\w.]+)", text):
        yield found.split(".")


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_a_template_names_only_values_that_exist(template: Path) -> None:
    for path in paths(template.read_text()):
        value: Any = values()
        for part in path:
            assert isinstance(value, dict), path
            assert part in value, path
            value = value[part]


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_a_template_closes_what_it_opens_and_includes_what_there_is(template: Path) -> None:
    text = template.read_text()
    assert text.count("{{") == text.count("}}")
    actions = [action.strip("- ") for action in re.findall(r"{{(.*?)}}", text, re.S)]
    opened = sum(OPENS.match(action) is not None for action in actions)
    assert opened == sum(action == "end" for action in actions)
    everything = "".join(it.read_text() for it in TEMPLATES)
    defined = set(re.findall(r'define "([\w.]+)"', everything))
    assert set(re.findall(r'include "([\w.]+)"', text)) <= defined


def test_the_pod_meets_the_restricted_standard_and_has_no_token() -> None:
    text = (CHART / "templates" / "statefulset.yaml").read_text()
    for line in (
        "runAsNonRoot: true",
        "runAsUser: 10001",
        "type: RuntimeDefault",
        "allowPrivilegeEscalation: false",
        "readOnlyRootFilesystem: true",
        "drop: [ALL]",
        "automountServiceAccountToken: false",
        "terminationGracePeriodSeconds: 60",
        "fsGroupChangePolicy: OnRootMismatch",
        "replicas: 1",
    ):
        assert line in text, line
    assert not re.search(r"hostPath|hostNetwork|hostPID|hostPort|privileged", text)
    account = (CHART / "templates" / "serviceaccount.yaml").read_text()
    assert "automountServiceAccountToken: false" in account


def test_a_platform_is_reached_by_nobody_and_the_server_connects_to_nobody() -> None:
    text = (CHART / "templates" / "networkpolicy.yaml").read_text()
    server, _, client = text.partition("{{- else }}")
    assert "policyTypes: [Ingress, Egress]" in server
    assert "egress: []" in server
    assert "ingress: []" in client

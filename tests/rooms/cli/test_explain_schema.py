"""`attndsl explain --json` is what docs/explain.schema.json says, neither more nor less."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from attndsl.cli import main

SCHEMA = json.loads(
    (Path(__file__).parents[3] / "docs" / "explain.schema.json").read_text(encoding="utf-8")
)
KINDS = {"object": dict, "array": list, "string": str, "number": int | float, "integer": int}


def faults(value: Any, schema: dict[str, Any], at: str = "$") -> list[str]:
    """Where a value is not as the schema says: the part of JSON Schema that ours is written in."""
    if "$ref" in schema:
        return faults(value, SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]], at)
    if "anyOf" in schema:
        tried = [faults(value, each, at) for each in schema["anyOf"]]
        return [] if [] in tried else tried[-1]
    if schema["type"] == "null":
        return [] if value is None else [f"{at}: not null"]
    if not isinstance(value, KINDS[schema["type"]]) or isinstance(value, bool):
        return [f"{at}: {value!r} is no {schema['type']}"]
    found = []
    if "minimum" in schema and value < schema["minimum"]:
        found.append(f"{at}: {value} is too small")
    if isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", 1 << 30):
            found.append(f"{at}: {len(value)} items")
        for number, item in enumerate(value):
            found += faults(item, schema["items"], f"{at}[{number}]")
    if isinstance(value, dict):
        known = schema.get("properties", {})
        found += [
            f"{at}: {name} is missing" for name in schema.get("required", ()) if name not in value
        ]
        for name, item in value.items():
            other = known.get(name, schema["additionalProperties"])
            found += faults(item, other, f"{at}.{name}") if other else [f"{at}: {name} is unknown"]
    return found


@pytest.mark.parametrize(
    "line",
    [
        "block -p b=120 --q-len 1024",
        "strided -p s=16 --q-len 2048 --heads 3",
        "neighborhood2d -p sy=13 --extents y=48,x=48 --head-dim 32",
        "strided_by_head -p s=16 --q-len 1024 --heads 2",
        "nothing --q-len 256",
        "documents --q-len 512",
        "latent_read --extents g=4,m=8,n=32",
    ],
)
def test_the_record_is_as_its_schema_says(line: str, capsys: pytest.CaptureFixture[str]):
    assert main(shlex.split(f"explain {line} --json")) == 0
    record = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert faults(record, SCHEMA) == []


def test_the_schema_is_strict():
    assert faults({"forward": 1, "backward": "2"}, SCHEMA["$defs"]["passes"]) == [
        "$.backward: '2' is no number"
    ]
    assert faults({"forward": 1, "sideways": 2}, SCHEMA["$defs"]["passes"]) == [
        "$: backward is missing",
        "$: sideways is unknown",
    ]
    assert len(faults({}, SCHEMA)) == len(SCHEMA["properties"])


def test_other_tiles_are_told_of_short_relations_alone(capsys: pytest.CaptureFixture[str]):
    spread = " or ".join(f"(q - k == {3 * i + 1} and q % {i + 2} == 0)" for i in range(400))
    for relation, many in (("causal_window(9)", 3), (spread, 0)):
        assert main(["explain", relation, "--q-len", "300", "--json"]) == 0
        assert len(json.loads(capsys.readouterr().out)["tiles"]) == many

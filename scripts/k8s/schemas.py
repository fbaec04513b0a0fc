"""Turns the OpenAPI v2 description of a Kubernetes into the strict, stand-alone JSON schemas that kubeconform reads.

schemas.py SWAGGER.json DIR; the swagger lies in the k8s.io/kubernetes module, api/openapi-spec/swagger.json.
"""
import json
import pathlib
import sys


def resolve(node, definitions, seen):
    """node without references; objects of known shape take no other keys."""
    if isinstance(node, list):
        return [resolve(x, definitions, seen) for x in node]
    if not isinstance(node, dict):
        return node
    if isinstance(node.get("$ref"), str):
        return follow(node["$ref"].split("/")[-1], definitions, seen)
    out = {k: resolve(v, definitions, seen) for k, v in node.items() if not k.startswith("x-kubernetes-")}
    if "properties" in out:
        out.setdefault("additionalProperties", False)
    return out


def follow(name, definitions, seen):
    if name in seen:  # only schemas of CRDs contain themselves
        return {"type": "object"} if "JSONSchemaProps" in name else {}
    if name.endswith("IntOrString"):
        return {"type": ["string", "integer", "null"]}
    if name.endswith("resource.Quantity"):
        return {"type": ["string", "number", "null"]}
    return resolve(definitions[name], definitions, seen | {name})


def main(swagger, out):
    definitions = json.loads(pathlib.Path(swagger).read_text())["definitions"]
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    for name, definition in definitions.items():
        for gvk in definition.get("x-kubernetes-group-version-kind", []):
            schema = resolve(definition, definitions, frozenset({name}))
            version = f"{gvk['group']}/{gvk['version']}".lstrip("/")
            for key, value in (("apiVersion", version), ("kind", gvk["kind"])):
                if key in schema.get("properties", {}):
                    schema["properties"][key]["enum"] = [value]
            group = gvk["group"].split(".")[0]
            file = "-".join(x for x in (gvk["kind"].lower(), group, gvk["version"]) if x)
            (out / f"{file}.json").write_text(json.dumps(schema))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])

"""The HTTP API of a daemon as a client sees it, and whether JSON is what a schema says."""
import http.client
import json
import os
import secrets
import socket
import ssl

from daemon import write_private
from lab import run

PORT = 7780


class Api:
    """`address` is reached from the namespace `ns`; with `authority` (a file) through TLS."""

    def __init__(self, ns, address="127.0.0.1", token=None, authority=None):
        self.ns = ns
        self.address = address
        self.token = token
        self.context = ssl.create_default_context(cafile=authority) if authority else None

    def connect(self, seconds=10):
        """A connected socket."""
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        client = self.ns.socket(family, socket.SOCK_STREAM)
        client.settimeout(seconds)
        client.connect((self.address, PORT))
        if self.context:
            client = self.context.wrap_socket(client, server_hostname=self.address)
        return client

    def connection(self):
        connection = http.client.HTTPConnection(self.address, PORT, timeout=10)
        connection.sock = self.connect()
        return connection

    def ask(self, method, path, body=None, token=None, fields=None):
        """The status and what was answered: JSON as what it means, all else as text."""
        fields = dict(fields or {})
        token = token or self.token
        if token:
            fields["Authorization"] = "Bearer " + token
        if body is not None:
            fields["Content-Type"] = "application/json"
            body = json.dumps(body)
        connection = self.connection()
        try:
            connection.request(method, path, body, fields)
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        is_json = (answer.getheader("Content-Type") or "").startswith("application/json")
        return answer.status, json.loads(text) if is_json and text else text

    def get(self, path):
        status, result = self.ask("GET", path)
        assert status == 200, (path, status, result)
        return result


def make_token(lab, name="http.token"):
    """A file with a token, and the token."""
    token = secrets.token_hex(32)
    path = os.path.join(lab.folder, name)
    write_private(path, token + "\n")
    return path, token


def make_certificate(lab, address, name="http"):
    """The files of a certificate and of its key."""
    certificate, key = (os.path.join(lab.folder, name + end) for end in (".crt", ".key"))
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
        "-nodes", "-days", "2", "-subj", "/CN=braid", "-addext", f"subjectAltName=IP:{address}",
        "-keyout", key, "-out", certificate)
    os.chmod(key, 0o600)
    return certificate, key


_TYPES = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
}
_PROSE = {"description", "example", "nullable"}


class Schemas:
    """Of an OpenAPI 3.0 document; knows the keywords that braid's uses and fails at others."""

    def __init__(self, document):
        self.document = document

    def resolve(self, schema):
        while "$ref" in schema:
            at = self.document
            for step in schema["$ref"].removeprefix("#/").split("/"):
                at = at[step]
            schema = at
        return schema

    def mistakes(self, value, schema, place=""):
        """What in `value` is not as the schema says, each with its place."""
        schema = self.resolve(schema)
        if value is None and schema.get("nullable"):
            return []
        wrong = []
        for keyword, wanted in schema.items():
            if keyword in _PROSE:
                continue
            check = getattr(self, "_" + keyword, None)
            if check is None:
                wrong.append(f"{place}: the schema's keyword {keyword} is not known")
            else:
                wrong += check(value, wanted, place, schema)
        return wrong

    def _type(self, value, wanted, place, _):
        return [] if _TYPES[wanted](value) else [f"{place}: {value!r} is not of type {wanted}"]

    def _enum(self, value, wanted, place, _):
        return [] if value in wanted else [f"{place}: {value!r} is none of {wanted}"]

    def _required(self, value, wanted, place, _):
        return [f"{place}: has no {name}" for name in wanted
                if isinstance(value, dict) and name not in value]

    def _properties(self, value, wanted, place, _):
        return [mistake for name, schema in wanted.items()
                if isinstance(value, dict) and name in value
                for mistake in self.mistakes(value[name], schema, f"{place}/{name}")]

    def _additionalProperties(self, value, wanted, place, schema):
        others = {name: one for name, one in value.items()
                  if name not in schema.get("properties", {})} if isinstance(value, dict) else {}
        if wanted is False:
            return [f"{place}: {name} is not known" for name in others]
        return [mistake for name, one in others.items()
                for mistake in self.mistakes(one, wanted, f"{place}/{name}")]

    def _items(self, value, wanted, place, _):
        return [mistake for index, one in enumerate(value if isinstance(value, list) else [])
                for mistake in self.mistakes(one, wanted, f"{place}/{index}")]

    def _oneOf(self, value, wanted, place, _):
        fitting = sum(not self.mistakes(value, schema, place) for schema in wanted)
        return [] if fitting == 1 else [f"{place}: {value!r} fits {fitting} schemas"]

    def _minimum(self, value, wanted, place, _):
        return [] if value >= wanted else [f"{place}: {value} is less than {wanted}"]

    def _maximum(self, value, wanted, place, _):
        return [] if value <= wanted else [f"{place}: {value} is more than {wanted}"]

    def _minLength(self, value, wanted, place, _):
        return [] if len(value) >= wanted else [f"{place}: {value!r} is too short"]

    def _maxLength(self, value, wanted, place, _):
        return [] if len(value) <= wanted else [f"{place}: {value!r} is too long"]

    def _minProperties(self, value, wanted, place, _):
        return [] if len(value) >= wanted else [f"{place}: has too few members"]

    def _maxProperties(self, value, wanted, place, _):
        return [] if len(value) <= wanted else [f"{place}: has too many members"]

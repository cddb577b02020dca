"""Cases that are large or deep on purpose, made by rule since no repository should hold them.

A bomb is small on the wire or on the disk and asks for much: levels, keys, digits, elements.
"""

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import Callable, Iterator, Mapping

from tests.fuzz.fuzz_target import Target

Bomb = Callable[[int], bytes]  # of a size: levels, keys or digits

ANY: Mapping[str, Bomb] = {
    "zeros": lambda size: b"\0" * size,
    "ones": lambda size: b"\xff" * size,
    "lists": lambda size: b"[" * size,
    "closed lists": lambda size: b"[" * size + b"]" * size,
    "empty lines": lambda size: b"\n" * size,
    "one long line": lambda size: b"a" * size,
    "quotes": lambda size: b'"' * size,
    "not UTF-8": lambda size: b"a\xff\xfe" * (size // 3),
    "separators": lambda size: b"," * size,
}
JSON: Mapping[str, Bomb] = {
    "objects": lambda size: b'{"a":' * size + b"1" + b"}" * size,
    "digits": lambda size: b'{"time": ' + b"9" * size + b"}",
    "decimals": lambda size: b'{"time": 0.' + b"9" * size + b"}",
    "an exponent": lambda size: b'{"time": 1e' + b"9" * min(size, 4000) + b"}",
    "keys": lambda size: b"{" + b",".join(b'"k%d":1' % it for it in range(size)) + b"}",
    "elements": lambda size: b"[" + b",".join([b"{}"] * size) + b"]",
    "escapes": lambda size: b'"' + b"\\ud83d" * size + b'"',
    "the same key": lambda size: b"{" + b",".join([b'"a":{}'] * size) + b"}",
}
TOML: Mapping[str, Bomb] = {
    "lists": lambda size: b"a = " + b"[" * size + b"]" * size,
    "inline tables": lambda size: b"a = " + b"{a = " * size + b"1" + b"}" * size,
    "a dotted key": lambda size: b"a." * size + b"a = 1",
    "a dotted header": lambda size: b"[" + b"a." * size + b"a]",
    "dotted keys": lambda size: b"".join(b"b%d.a.a = 1\n" % it for it in range(min(size, 15_000))),
    "tables": lambda size: b"".join(b"[t%d]\n" % it for it in range(min(size, 25_000))),
    "lists of tables": lambda size: b"[[a]]\n" * min(size, 40_000),
    "digits": lambda size: b"a = " + b"9" * size,
    "hexadecimal digits": lambda size: b"a = 0x" + b"f" * size,
    "decimals": lambda size: b"a = 0." + b"9" * size,
    "keys": lambda size: b"".join(b"k%d = 1\n" % it for it in range(min(size, 20_000))),
    "an open text": lambda size: b'a = """' + b'\\"""' * size,
    "escapes": lambda size: b'a = "' + b"\\u00e9" * size + b'"',
    "a byte order mark": lambda _size: b"\xef\xbb\xbf",
}


def _tensors(header: bytes, data: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header + data


def _many_tensors(size: int) -> bytes:
    one = b'"t%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    return _tensors(b"{" + b",".join(one % it for it in range(size)) + b"}")


TENSORS: Mapping[str, Bomb] = {
    "a header of 2^63 bytes": lambda _size: (2**63).to_bytes(8, "little") + b"{}",
    "a header longer than the file": lambda size: size.to_bytes(8, "little") + b"{}",
    "tensors": _many_tensors,
    "10^9 elements": lambda _size: _tensors(
        b'{"a":{"dtype":"F32","shape":[1000000000],"data_offsets":[0,4000000000]}}', b"\0" * 16
    ),
    "a shape that overflows": lambda _size: _tensors(
        b'{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}'
    ),
    "axes": lambda size: _tensors(
        b'{"a":{"dtype":"F32","shape":[' + b",".join([b"1"] * size) + b'],"data_offsets":[0,4]}}',
        b"\0" * 4,
    ),
    "metadata": lambda size: _tensors(
        b'{"__metadata__":{' + b",".join(b'"k%d":"v"' % it for it in range(size)) + b"}}"
    ),
    "a long version": lambda size: _tensors(
        b'{"__metadata__":{"format":"atoll-adapter-1","version":"' + b"9" * size + b'"}}'
    ),
    "deep JSON in the metadata": lambda size: _tensors(
        b'{"__metadata__":{"format":"atoll-backbone-1","spec":"' + b"[" * size + b'"}}'
    ),
    "a shape of 10^9 columns in the metadata": lambda _size: _tensors(
        b'{"__metadata__":{"format":"atoll-backbone-1","digest":"","spec":'
        b'"{\\"encoder\\":\\"e\\",\\"text_width\\":1000000,\\"width\\":100000,\\"heads\\":1}"}}'
    ),
}


def _zip(size: int, method: int, members: int = 1) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method) as archive:
        for place in range(members):
            archive.writestr(f"a{place}.py", b"\0" * (size // members))
    return content.getvalue()


def _gzip_table(size: int) -> bytes:
    return gzip.compress(b"user,item,ts\n" + b"s0,i0,2024-01-01\n" * size, 1)


OTHER: Mapping[str, Mapping[str, Bomb]] = {
    "bundle": {
        "one member that unpacks to much": lambda size: _zip(100 * size, zipfile.ZIP_DEFLATED),
        "members": lambda size: _zip(size, zipfile.ZIP_STORED, max(1, size // 20)),
    },
    "health request": {
        "headers": lambda size: b"GET /live HTTP/1.1\r\n" + b"a: b\r\n" * size + b"\r\n",
        "a long path": lambda size: b"GET /" + b"a" * size + b" HTTP/1.1\r\n\r\n",
        "a long header": lambda size: b"GET / HTTP/1.1\r\na: " + b"b" * size + b"\r\n\r\n",
    },
    "addresses": {"colons": lambda size: b":" * size, "digits": lambda size: b"a:" + b"9" * size},
    "objects of a message": {
        "one chunk named again and again": lambda size: (
            b'["RecordDict",{"u":"$0"},[["ArrayRecord",{"w":"$0"},[["Array",{"dtype":"float32",'
            b'"shape":[1],"stype":"raw.little-endian","arraychunk_ids":['
            + b",".join([b"0"] * size)
            + b']},[["ArrayChunk","'
            + b"a" * 20_000
            + b'",[]]]]]]]]'
        ),
        "axes": lambda size: (
            b'["RecordDict",{"u":"$0"},[["ArrayRecord",{"w":"$0"},[["Array",{"dtype":"float32",'
            b'"shape":['
            + b",".join([b"2147483647"] * size)
            + b'],"stype":"raw.little-endian","arraychunk_ids":[]},[]]]]]]'
        ),
    },
    "records of a message": {
        "axes": lambda size: (
            b'{"update":["arrays",{"w":{"dtype":"float32","stype":"raw.little-endian","bytes":0,'
            b'"shape":[' + b",".join([b"2147483647"] * size) + b"]}}]}"
        ),
        "tensors": lambda size: (
            b'{"adapter":["arrays",{'
            + b",".join(
                b'"t%d":{"dtype":"float32","stype":"raw.little-endian","bytes":0,"shape":[0]}' % it
                for it in range(size // 10)
            )
            + b"}]}"
        ),
    },
    "tables: csv.gz": {"rows": _gzip_table},
    "certificates": {
        "blocks": lambda size: b"-----BEGIN CERTIFICATE-----\n" * (size // 10),
    },
}


def bombs(target: Target, size: int) -> Iterator[tuple[str, bytes]]:
    """The bombs of a target's form, each made when it is its turn."""
    forms = {"json": JSON, "toml": TOML, "tensors": TENSORS}
    for group in (ANY, forms.get(target.form, {}), OTHER.get(target.name, {})):
        for name, bomb in group.items():
            yield name, bomb(size)

#!/usr/bin/env python3
"""Verify an audit export with nothing but the bundle and this file.

Usage: verify_audit.py EXPORT BUNDLE

Written from docs/formats/audit.md, bundle.md and registry.md alone, and sharing no code with the service, so that agreement
means something. Python 3.11, standard library only. Prints one line: `ok N records, root HEX, C checkpoints` (exit 0), or
the first fault with the record that it belongs to (exit 1).
"""
import base64
import hashlib
import re
import struct
import sys


class Fault(Exception):
    """What is wrong, and where."""


def require(condition, sentence):
    if not condition:
        raise Fault(sentence)


# Deterministic CBOR (RFC 8949, 4.2.1), the part that the formats use: numbers, bytes, text, arrays, maps with number keys.

def cbor_item(data, at, depth=0):
    require(depth < 8 and at < len(data), "CBOR ends early or is nested too deeply")
    major, argument, at = data[at] >> 5, data[at] & 31, at + 1
    if argument >= 24:
        require(argument <= 27, "CBOR with an indefinite or reserved length")
        width = 1 << (argument - 24)
        require(at + width <= len(data), "CBOR ends early")
        argument, at = int.from_bytes(data[at:at + width], "big"), at + width
        require(argument >= (24 if width == 1 else 1 << (4 * width)), "CBOR number that is not the shortest")
    if major == 0:
        return argument, at
    if major in (2, 3):
        require(argument <= len(data) - at, "CBOR string longer than its content")
        text = data[at:at + argument]
        try:
            return (text if major == 2 else text.decode("utf-8")), at + argument
        except UnicodeDecodeError:
            raise Fault("CBOR text that is not UTF-8") from None
    if major == 4:
        items = []
        for _ in range(argument):
            item, at = cbor_item(data, at, depth + 1)
            items.append(item)
        return items, at
    require(major == 5, "CBOR of a kind that the formats do not use")
    entries, last = {}, -1
    for _ in range(argument):
        key, at = cbor_item(data, at, depth + 1)
        require(type(key) is int and key > last, "CBOR map keys are not ascending numbers")
        entries[key], at = cbor_item(data, at, depth + 1)
        last = key
    return entries, at


def fits(value, shape):
    """Shapes: a type; an int n: n bytes; [shape]: a list of any length; (shapes): a list of that length; {..}: a map."""
    if isinstance(shape, type):
        return type(value) is shape
    if isinstance(shape, int):
        return type(value) is bytes and len(value) == shape
    if isinstance(shape, list):
        return type(value) is list and all(fits(item, shape[0]) for item in value)
    if isinstance(shape, tuple):
        return type(value) is list and len(value) == len(shape) and all(map(fits, value, shape))
    required = {key for key in shape if key >= 0}  # a negative key -n stands for an optional n
    return (type(value) is dict and required <= value.keys()
            and all(fits(item, shape.get(key, shape.get(-key))) if key in shape or -key in shape else False
                    for key, item in value.items()))


def cbor(data, shape, what):
    try:
        value, end = cbor_item(data, 0)
    except Fault as fault:
        raise Fault(f"{what}: {fault}") from None
    require(end == len(data), f"{what}: bytes after the CBOR map")
    require(fits(value, shape), f"{what}: a field is missing, unknown or of the wrong type")
    require(value[0] == 1, f"{what}: version {value[0]} is not known")
    return value


SIGNED = {0: int, 1: bytes, 2: 64}
PARTITION, NAMED_KEY = {0: str, 1: str, 2: int}, {0: 16, 1: 65}
BUNDLE = {0: int, 1: 16, 2: str, 3: str, 4: int, 5: int, 6: int, 8: 32, 9: 32, 10: PARTITION, 11: PARTITION, 12: NAMED_KEY,
          7: [{0: str, 1: 65, 2: 65, 3: int, 4: 32, 5: 32}], 13: NAMED_KEY, 14: 16, 15: [{0: int, 1: 16, 2: str}],
          16: [{0: str, 1: 65}], 17: [str]}
RECORD = {0: int, 1: str, 2: str, -3: str, 4: str, 5: str, 6: str, -7: 16, -8: int, 9: [(str, str)], -10: bytes}
HEAD = {0: int, 1: 16, 2: int, 3: int, 4: int, 5: 32, 6: int, 7: str, 8: 16}
SEGMENT = {0: int, 1: bytes, 2: bytes, 3: 64}
CHECKPOINT = {0: int, 1: 16, 2: int, 3: int, 4: 32, 5: int}


# Hashes. Not every OpenSSL build has SM3, so there is one here (GB/T 32905).

def sm3_plain(message):
    def turn(word, by):
        return (word << by % 32 | word >> (32 - by) % 32) & 0xFFFFFFFF
    state = [0x7380166F, 0x4914B2B9, 0x172442D7, 0xDA8A0600, 0xA96F30BC, 0x163138AA, 0xE38DEE4D, 0xB0FB0E4E]
    padded = message + b"\x80" + bytes((55 - len(message)) % 64) + struct.pack(">Q", 8 * len(message))
    for at in range(0, len(padded), 64):
        w = list(struct.unpack(">16L", padded[at:at + 64]))
        for j in range(16, 68):
            x = w[j - 16] ^ w[j - 9] ^ turn(w[j - 3], 15)
            w.append(x ^ turn(x, 15) ^ turn(x, 23) ^ turn(w[j - 13], 7) ^ w[j - 6])
        a, b, c, d, e, f, g, h = state
        for j in range(64):
            s = turn(turn(a, 12) + e + turn(0x79CC4519 if j < 16 else 0x7A879D8A, j) & 0xFFFFFFFF, 7)
            first = a ^ b ^ c if j < 16 else a & b | a & c | b & c
            second = e ^ f ^ g if j < 16 else e & f | ~e & g
            t = first + d + (s ^ turn(a, 12)) + (w[j] ^ w[j + 4]) & 0xFFFFFFFF
            u = second + h + s + w[j] & 0xFFFFFFFF
            a, b, c, d, e, f, g, h = t, a, turn(b, 9), c, u ^ turn(u, 9) ^ turn(u, 17), e, turn(f, 19), g
        state = [old ^ new for old, new in zip(state, (a, b, c, d, e, f, g, h))]
    return struct.pack(">8L", *state)


def sm3(message):
    try:
        return hashlib.new("sm3", message).digest()
    except ValueError:
        return sm3_plain(message)


def sha256(message):
    return hashlib.sha256(message).digest()


# Signatures on y^2 = x^3 - 3x + b. One complete addition in projective coordinates (Renes, Costello, Batina 2015) has no
# exceptional cases; the verifier handles public values only, so its time may depend on them.

P256 = (0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF,
        0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B,
        0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
        0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
        0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5)
SM2 = (0xFFFFFFFEFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF00000000FFFFFFFFFFFFFFFF,
       0x28E9FA9E9D9F5E344D5A9E4BCF6509A7F39789F515AB8F92DDBCBD414D940E93,
       0xFFFFFFFEFFFFFFFFFFFFFFFFFFFFFFFF7203DF6B21C6052B53BBF40939D54123,
       0x32C4AE2C1F1981195F9904466A39C9948FE30BBFF2660BE1715A4589334C74C7,
       0xBC3736A2F4F6779C59BDCEE36B692153D0A9877CC62A474002DF32E52139F0A0)
USER_ID = b"1234567812345678"


def add(one, two, p, b):
    (x1, y1, z1), (x2, y2, z2) = one, two
    xx, yy, zz = x1 * x2 % p, y1 * y2 % p, z1 * z2 % p
    xy, xz, yz = (x1 * y2 + x2 * y1) % p, (x1 * z2 + x2 * z1) % p, (y1 * z2 + y2 * z1) % p
    m, w, t = 3 * (b * zz - xz) % p, 3 * (b * xz - xx - 3 * zz) % p, 3 * (xx - zz)
    return (xy * (yy - m) - yz * w) % p, (t * w + (yy + m) * (yy - m)) % p, (yz * (yy + m) + xy * t) % p


def point(key, p, b):
    """The affine coordinates of an uncompressed point; `None` if it is not on the curve."""
    x, y = int.from_bytes(key[1:33], "big"), int.from_bytes(key[33:], "big")
    return (x, y) if key[0] == 4 and x < p and y < p and (y * y - x**3 + 3 * x - b) % p == 0 else None


def combined_x(u, v, key, curve):
    """The x coordinate of u * generator + v * key; `None` at infinity."""
    p, b, _, gx, gy = curve
    generator, key = (gx, gy, 1), (*key, 1)
    table, total = [None, generator, key, add(generator, key, p, b)], (0, 1, 0)
    for bit in range(255, -1, -1):
        total = add(total, total, p, b)
        if choice := (u >> bit & 1) + 2 * (v >> bit & 1):
            total = add(total, table[choice], p, b)
    return total[0] * pow(total[2], -1, p) % p if total[2] else None


def signature_verifies(suite, key, domain, message, signature):
    hash_of, curve = SUITES[suite]
    p, b, n, gx, gy = curve
    message, key = domain + b"\0" + message, point(key, p, b)
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    if key is None or not (0 < r < n and 0 < s < n):
        return False
    if suite == "intl":
        e, inverse = int.from_bytes(hash_of(message), "big"), pow(s, -1, n)
        x = combined_x(e * inverse % n, r * inverse % n, key, curve)
        return x is not None and x % n == r
    words = b"".join(value.to_bytes(32, "big") for value in (p - 3, b, gx, gy, *key))
    z = hash_of(struct.pack(">H", 8 * len(USER_ID)) + USER_ID + words)
    e, t = int.from_bytes(hash_of(z + message), "big"), (r + s) % n
    x = combined_x(s, t, key, curve) if t else None
    return x is not None and (e + x) % n == r


SUITES = {"intl": (sha256, P256), "sm": (sm3, SM2)}


class Tree:
    """An RFC 6962 tree that only grows: the roots of its full subtrees, largest first, with their sizes."""

    def __init__(self, hash_of):
        self.hash_of, self.full, self.size = hash_of, [], 0

    def append(self, leaf):
        node, size = self.hash_of(b"\0" + leaf), 1
        while self.full and self.full[-1][0] == size:
            node, size = self.hash_of(b"\1" + self.full.pop()[1] + node), 2 * size
        self.full.append((size, node))
        self.size += 1

    def root(self):
        if not self.full:
            return self.hash_of(b"")
        node = self.full[-1][1]
        for _, left in reversed(self.full[:-1]):
            node = self.hash_of(b"\1" + left + node)
        return node


def open_bundle(pem):
    found = re.fullmatch(rb"-----BEGIN KMS BUNDLE-----\r?\n([A-Za-z0-9+/=\r\n]+)-----END KMS BUNDLE-----\s*", pem)
    require(found, "bundle: not a PEM file with the label KMS BUNDLE")
    try:
        content = base64.b64decode(re.sub(rb"[\r\n]", b"", found[1]), validate=True)
    except ValueError:
        raise Fault("bundle: the PEM content is not base64") from None
    signed = cbor(content, SIGNED, "bundle")
    bundle = cbor(signed[1], BUNDLE, "bundle body")
    require(bundle[3] in SUITES, f"bundle: suite {bundle[3]} is not known")
    require(signature_verifies(bundle[3], bundle[12][1], b"kms/v1/bundle", signed[1], signed[2]),
            "bundle: its signature is not by its core key")
    custodians, nodes, (p, b, *_) = bundle[7], bundle[16], SUITES[bundle[3]][1]
    custodian_keys = [key for custodian in custodians for key in (custodian[1], custodian[2])]
    for what, values in (("custodian names", [custodian[0] for custodian in custodians]),
                         ("custodian keys", custodian_keys), ("share indexes", [custodian[3] for custodian in custodians]),
                         ("node names", [node[0] for node in nodes]), ("principals", bundle[17])):
        require(len(set(values)) == len(values), f"bundle: two equal {what}")
    for key in (*custodian_keys, *(node[1] for node in nodes), bundle[12][1], bundle[13][1]):
        require(point(key, p, b), "bundle: a public key is not on the suite's curve")
    require(2 <= bundle[6] <= len(custodians), f"bundle: a threshold of {bundle[6]} of {len(custodians)}")
    require(bundle[15], "bundle: no master key")
    return bundle


def frames(export):
    require(export.read(8) == b"KMSAUDIT", "export: does not begin with KMSAUDIT")
    while header := export.read(5):
        require(len(header) == 5, "export: ends inside a frame")
        kind, length = struct.unpack(">BL", header)
        require(kind in (1, 2), f"export: frame of unknown type {kind}")
        require(length <= 1 << 24, f"export: frame of {length} bytes")
        payload = export.read(length)
        require(len(payload) == length, "export: ends inside a frame")
        yield kind, payload


class Verification:
    """Section "Verification" of audit.md, step by step. `record` is the one under examination."""

    def __init__(self, bundle):
        self.bundle, self.suite = bundle, bundle[3]
        self.nodes = {node[0]: node[1] for node in bundle[16]}
        self.tree, self.record, self.last_time = Tree(SUITES[self.suite][0]), 0, 0
        self.checkpoints, self.roots = 0, {}

    def accept(self, kind, payload):
        if kind == 1:
            return self.accept_segment(payload)
        require(self.tree.size == 0, "a checkpoint stands after a segment")
        what = f"checkpoint {self.checkpoints}"
        signed = cbor(payload, SIGNED, what)
        checkpoint = cbor(signed[1], CHECKPOINT, what)
        what += f" (of {checkpoint[3]} records)"
        require(checkpoint[1] == self.bundle[1], f"{what}: another cluster's")
        require(signature_verifies(self.suite, self.bundle[13][1], b"kms/v1/checkpoint", signed[1], signed[2]),
                f"{what}: its signature is not by the checkpoint key")
        require(checkpoint[3] > 0 or checkpoint[4] == self.tree.root(), f"{what}: not the root of the empty tree")
        require(self.roots.setdefault(checkpoint[3], checkpoint[4]) == checkpoint[4], f"{what}: differs from another one")
        self.checkpoints += 1

    def accept_segment(self, payload):
        first = self.record = self.tree.size
        segment = cbor(payload, SEGMENT, "segment")
        head = cbor(segment[2], HEAD, "batch head")
        require(head[3] == first, f"missing or out of place: the next batch begins with record {head[3]}")
        require(head[1] == self.bundle[1], "the batch head is another cluster's")
        require(head[7] in self.nodes, f"the batch head names the unknown node {head[7]!r}")
        require(signature_verifies(self.suite, self.nodes[head[7]], b"kms/v1/batch-head", segment[2], segment[3]),
                f"the signature of the batch that begins here is not by node {head[7]!r}")
        require(segment[1], "the segment holds no record")
        for leaf in self.leaves(segment[1]):
            if self.record > first:
                self.compare_with_checkpoint()  # in the middle of the batch; its end is compared below
            self.tree.append(leaf)
            self.record += 1
        self.record = first
        require(head[4] == self.tree.size, f"the batch that begins here ends at {self.tree.size}, its head says {head[4]}")
        require(head[5] == self.tree.root(), f"changed, or one up to {self.tree.size - 1}: the signed root is another")
        self.compare_with_checkpoint()

    def leaves(self, data):
        at = 0
        while at < len(data):
            require(at + 20 <= len(data), "the leaf ends early")
            index, time, length = struct.unpack(">QQL", data[at:at + 20])
            leaf, at = data[at:at + 20 + length], at + 20 + length
            require(at <= len(data), "the leaf ends early")
            require(index == self.record, f"its place holds record {index}")
            require(time >= self.last_time, "its time is before the last one")
            body = cbor(leaf[20:], RECORD, "body")
            require(body[2] in ("done", "refused", "failed"), f"unknown outcome {body[2]!r}")
            require((3 in body) == (body[2] != "done"), "a reason must stand exactly with `refused` and `failed`")
            self.last_time = time
            yield leaf

    def compare_with_checkpoint(self):
        expected = self.roots.get(self.tree.size)
        require(expected is None or expected == self.tree.root(),
                f"changed, or one before it: the root differs from the checkpoint of {self.tree.size} records")

    def finish(self):
        self.record = self.tree.size
        beyond = max(self.roots, default=0)
        require(beyond <= self.tree.size, f"missing: a checkpoint was made of {beyond} records")
        return f"ok {self.tree.size} records, root {self.tree.root().hex()}, {self.checkpoints} checkpoints"


def main(arguments):
    if len(arguments) != 3:
        print(__doc__.split("\n\n")[1], file=sys.stderr)
        return 2
    verification = None
    try:
        with open(arguments[2], "rb") as file:
            verification = Verification(open_bundle(file.read()))
        with open(arguments[1], "rb") as export:
            for kind, payload in frames(export):
                verification.accept(kind, payload)
        print(verification.finish())
        return 0
    except Fault as fault:
        print(f"record {verification.record}: {fault}" if verification else fault)
    except OSError as error:
        print(error)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv))

#!/usr/bin/env python3
"""Read an encrypted file with nothing but its data key.

Written from docs/formats/file.md and ciphertext.md alone, and sharing no code with the client library, so that agreement means
something. Python 3.11 and `cryptography` (requirements.txt).
"""
import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

CHUNK, TAG, BODY = 65_536, 16, 2 + 8_258 + 2 + 4_096
CIPHERS = {1: (algorithms.AES, 32), 2: (algorithms.SM4, 16), 3: (algorithms.AES, 16), 4: (algorithms.AES, 24)}
HASHES = {1: hashes.SHA256, 2: hashes.SM3, 3: hashes.SHA256, 4: hashes.SHA256}
# Bytes behind the chunk length: the nonce prefix of format 1, the salt of format 2. Behind the header: the commitment.
STARTS, COMMITMENTS = {1: 7, 2: 16}, {1: 0, 2: 32}


class CiphertextInvalid(Exception):
    """The one refusal of everything that is not a file, or not all of one."""


def take(data, at, length):
    if at + length > len(data):
        raise CiphertextInvalid
    return data[at:at + length], at + length


class Header:
    """What stands before the first chunk."""

    def __init__(self, file):
        data = file.read(30 + BODY + 32)
        fixed, at = take(data, 0, 14)
        magic, self.format, self.algorithm, chunk = struct.unpack(">7sBHL", fixed)
        if magic != b"KMSFILE" or self.format not in STARTS or self.algorithm not in CIPHERS or chunk != CHUNK:
            raise CiphertextInvalid
        self.start, at = take(data, at, STARTS[self.format])
        fields = []
        for shortest, longest in ((2, 8_258), (1, 4_096)):
            length, at = take(data, at, 2)
            (length,) = struct.unpack(">H", length)
            if not shortest <= length <= longest:
                raise CiphertextInvalid
            field, at = take(data, at, length)
            fields.append(field)
        self.context, self.data_key = pairs(fields[0]), fields[1]
        self.bytes = data[:at]
        self.commitment, at = take(data, at, COMMITMENTS[self.format])
        file.seek(at)

    def chunk_key(self, data_key):
        """What the chunks are encrypted with, and how their nonces begin."""
        if self.format == 1:
            return data_key, self.start
        kdf = HKDF(HASHES[self.algorithm](), length=71, salt=self.start, info=b"kms/v1/file\0" + self.bytes)
        derived = kdf.derive(data_key)
        if derived[32:64] != self.commitment:
            raise CiphertextInvalid
        return derived[:len(data_key)], derived[64:]


def pairs(data):
    count, at = take(data, 0, 2)
    found = []
    for _ in range(struct.unpack(">H", count)[0]):
        pair = []
        for _ in range(2):
            length, at = take(data, at, 2)
            text, at = take(data, at, struct.unpack(">H", length)[0])
            pair.append(text)
        found.append(tuple(pair))
    keys = [key for key, _ in found]
    if at != len(data) or keys != sorted(set(keys)) or b"" in keys:
        raise CiphertextInvalid
    return [(key.decode("utf-8"), value.decode("utf-8")) for key, value in found]


def plaintext(header, data_key, file):
    """Chunk after chunk. What came out before an exception must be discarded."""
    cipher, key_length = CIPHERS[header.algorithm]
    if len(data_key) != key_length:
        raise CiphertextInvalid
    key, nonce_prefix = header.chunk_key(data_key)
    number, ahead = 0, file.read(CHUNK + TAG)
    while True:
        chunk, ahead = ahead, file.read(CHUNK + TAG)
        is_last = not ahead
        if len(chunk) < TAG or (len(chunk) == TAG and number > 0):
            raise CiphertextInvalid
        nonce = nonce_prefix + struct.pack(">LB", number, is_last)
        opening = Cipher(cipher(key), modes.GCM(nonce, chunk[-TAG:])).decryptor()
        opening.authenticate_additional_data(header.bytes)
        try:
            opened = opening.update(chunk[:-TAG]) + opening.finalize()
        except InvalidTag:
            raise CiphertextInvalid from None
        yield opened
        if is_last:
            return
        number += 1

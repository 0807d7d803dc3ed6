#!/usr/bin/env python3
"""The main calls from another language: a client that was generated from proto/ alone.

Usage: client.py PROFILES STUBS SPEC FILE PLAINTEXT

PROFILES holds admin.toml and app.toml, STUBS the generated modules. FILE was made by `kms encrypt` of PLAINTEXT under the key
`payroll`; this reads it with read_file.py. Anything that is not as it must be is an exception.
"""
import io
import pathlib
import struct
import sys
import time
import tomllib
import uuid

import grpc
from cryptography.hazmat.primitives import hpke, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.rpc import error_details_pb2, status_pb2

import read_file

profiles, stubs, spec_name, file_name, plaintext_name = sys.argv[1:]
sys.path.insert(0, stubs)
from kms.v1 import crypto_pb2, crypto_pb2_grpc, keys_pb2, keys_pb2_grpc, system_pb2, system_pb2_grpc  # noqa: E402


def channel(name):
    folder = pathlib.Path(profiles)
    profile = tomllib.loads((folder / f"{name}.toml").read_text())
    ca, certificate, key = ((folder / profile[one]).read_bytes() for one in ("server_ca", "certificate", "key"))
    credentials = grpc.ssl_channel_credentials(ca, key, certificate)
    return grpc.secure_channel(profile["endpoint"].removeprefix("https://"), credentials)


def refusal(call, request):
    """The stable reason and the field of a call that is refused."""
    try:
        call(request, timeout=10)
    except grpc.RpcError as error:
        details = dict(error.trailing_metadata())["grpc-status-details-bin"]
        reason, field = None, None
        for detail in status_pb2.Status.FromString(details).details:
            info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
            if detail.Unpack(info):
                reason = info.reason
                assert info.domain == "kms", info
            if detail.Unpack(bad):
                field = bad.field_violations[0].field
        return error.code(), reason, field
    raise AssertionError(f"{call} was not refused")


def context(**pairs):
    return [crypto_pb2.ContextPair(key=key, value=value) for key, value in pairs.items()]


admin, app = channel("admin"), channel("app")
keys, crypto = keys_pb2_grpc.KeysStub(admin), crypto_pb2_grpc.CryptoStub(app)
spec = keys_pb2.KeySpec.Value("KEY_SPEC_" + spec_name.upper().replace("-", "_"))

assert system_pb2_grpc.SystemStub(app).GetStatus(system_pb2.GetStatusRequest()).seal_state == system_pb2.SEAL_STATE_UNSEALED
assert system_pb2_grpc.SystemStub(app).WhoAmI(system_pb2.WhoAmIRequest()).principal == "kms://default/operator/app"

# The life of a key.
create = keys_pb2.CreateKeyRequest(name="python", spec=spec, protection=keys_pb2.PROTECTION_HSM_WRAPPED, idempotency_token="1")
create.expires.FromSeconds(int(time.time()) + 3_600)
made = keys.CreateKey(create)
assert (made.name, made.state, made.current_version) == ("python", keys_pb2.KEY_STATE_ACTIVE, 1)
assert keys.CreateKey(create) == made, "the same token gives the same key"
assert keys.RotateKey(keys_pb2.RotateKeyRequest(key="python")).current_version == 2
states = [version.state for version in keys.DescribeKey(keys_pb2.DescribeKeyRequest(key=made.key_id)).versions]
assert states == [keys_pb2.KEY_STATE_DEACTIVATED, keys_pb2.KEY_STATE_ACTIVE]
listed = [key.name for key in keys.ListKeys(keys_pb2.ListKeysRequest()).keys]
assert listed == sorted(listed) and {"python", "payroll"} <= set(listed)

# Data and data keys.
bound = context(file="payroll.csv")
sealed = crypto.Encrypt(crypto_pb2.EncryptRequest(key="python", plaintext=b"salary", context=bound))
assert sealed.key_version == 2 and b"salary" not in sealed.ciphertext
opened = crypto.Decrypt(crypto_pb2.DecryptRequest(ciphertext=sealed.ciphertext, context=bound, expected_key="python"))
assert opened.plaintext == b"salary"
data_key = crypto.GenerateDataKey(crypto_pb2.GenerateDataKeyRequest(key="python", context=bound))
assert len(data_key.plaintext) == {"sm4": 16, "aes-128": 16, "aes-192": 24, "aes-256": 32}[spec_name]
again = crypto.DecryptDataKey(crypto_pb2.DecryptDataKeyRequest(ciphertext=data_key.ciphertext, context=bound))
assert again.plaintext == data_key.plaintext
without = crypto.GenerateDataKey(crypto_pb2.GenerateDataKeyRequest(key="python", without_plaintext=True))
assert without.plaintext == b"" and without.ciphertext

# A data key that only its recipient sees, opened as docs/formats/recipient.md says.
private = ec.generate_private_key(ec.SECP256R1())
public = private.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
recipient = crypto_pb2.Recipient(public_key=public, algorithm=crypto_pb2.RECIPIENT_ALGORITHM_HPKE_P256)
suite = hpke.Suite(hpke.KEM.P256, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)


def info(purpose, answer, answer_spec):
    bound_bytes = struct.pack(">H4sH11s", 4, b"file", 11, b"payroll.csv")
    where = uuid.UUID(answer.key_id).bytes + struct.pack(">IH", answer.key_version, 1)
    return b"kms/v1/recipient\0" + struct.pack(">BH", purpose, answer_spec) + where + bound_bytes


for_other = crypto.GenerateDataKey(crypto_pb2.GenerateDataKeyRequest(key="python", context=bound, recipient=recipient))
assert for_other.plaintext == b""
secret = suite.decrypt(for_other.recipient_ciphertext, private, info(2, for_other, spec))
again = crypto_pb2.DecryptDataKeyRequest(ciphertext=for_other.ciphertext, context=bound)
assert crypto.DecryptDataKey(again).plaintext == secret
again.recipient.CopyFrom(recipient)
opened = crypto.DecryptDataKey(again)
assert opened.plaintext == b"" and suite.decrypt(opened.recipient_ciphertext, private, info(2, opened, spec)) == secret
# The same under another context, and several calls at once.
moved = crypto.ReEncrypt(crypto_pb2.ReEncryptRequest(ciphertext=sealed.ciphertext, context=bound, new_context=context(file="b.csv")))
assert (moved.key_version, moved.old_key_version, moved.old_key_id) == (2, 2, made.key_id)
results = crypto.Batch(crypto_pb2.BatchRequest(items=[
    crypto_pb2.BatchItem(decrypt=crypto_pb2.DecryptRequest(ciphertext=moved.ciphertext, context=context(file="b.csv"))),
    crypto_pb2.BatchItem(decrypt=crypto_pb2.DecryptRequest(ciphertext=moved.ciphertext, context=bound)),
])).results
assert results[0].decrypt.plaintext == b"salary"
assert (results[1].error.reason, results[1].error.code) == ("CIPHERTEXT_INVALID", grpc.StatusCode.INVALID_ARGUMENT.value[0])

# MACs and random bytes.
mac_key = keys.CreateKey(keys_pb2.CreateKeyRequest(name="python-mac", spec=keys_pb2.KEY_SPEC_HMAC_SHA_384))
mac = crypto.GenerateMac(crypto_pb2.GenerateMacRequest(key="python-mac", message=b"salary"))
assert (mac.key_id, mac.key_version, len(mac.mac)) == (mac_key.key_id, 1, 48)
assert keys.RotateKey(keys_pb2.RotateKeyRequest(key="python-mac")).current_version == 2
verify = crypto_pb2.VerifyMacRequest(key="python-mac@1", message=b"salary", mac=mac.mac)
assert crypto.VerifyMac(verify) == crypto_pb2.VerifyMacResponse(key_id=mac.key_id, key_version=1)
verify.key = "python-mac"
assert refusal(crypto.VerifyMac, verify) == (grpc.StatusCode.INVALID_ARGUMENT, "MAC_INVALID", None)
wrong = crypto_pb2.EncryptRequest(key="python-mac", plaintext=b"salary")
assert refusal(crypto.Encrypt, wrong) == (grpc.StatusCode.FAILED_PRECONDITION, "KEY_USAGE_FORBIDS", "key")
random = [crypto.GenerateRandom(crypto_pb2.GenerateRandomRequest(byte_count=32)).random for _ in range(2)]
assert [len(one) for one in random] == [32, 32] and random[0] != random[1]

# Refusals carry a reason, and the field where there is one.
other = crypto_pb2.DecryptRequest(ciphertext=sealed.ciphertext, context=context(file="other.csv"))
assert refusal(crypto.Decrypt, other) == (grpc.StatusCode.INVALID_ARGUMENT, "CIPHERTEXT_INVALID", None)
unnamed = keys_pb2.CreateKeyRequest(name="No Name", spec=spec)
assert refusal(keys.CreateKey, unnamed) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID", "name")
mine = keys_pb2_grpc.KeysStub(app).CreateKey
assert refusal(mine, create) == (grpc.StatusCode.PERMISSION_DENIED, "NOT_PERMITTED", None)
keys.SuspendKey(keys_pb2.SuspendKeyRequest(key="python"))
encrypt = crypto_pb2.EncryptRequest(key="python", plaintext=b"salary")
assert refusal(crypto.Encrypt, encrypt) == (grpc.StatusCode.FAILED_PRECONDITION, "KEY_STATE_FORBIDS", None)
assert keys.ResumeKey(keys_pb2.ResumeKeyRequest(key="python")).state == keys_pb2.KEY_STATE_ACTIVE

# A file that `kms encrypt` made.
whole, expected = pathlib.Path(file_name).read_bytes(), pathlib.Path(plaintext_name).read_bytes()
header = read_file.Header(io.BytesIO(whole))
assert header.context == [("file", "payroll.csv"), ("owner", "薪资")], header.context
pairs = [crypto_pb2.ContextPair(key=key, value=value) for key, value in header.context]
file_key = crypto.DecryptDataKey(crypto_pb2.DecryptDataKeyRequest(ciphertext=header.data_key, context=pairs)).plaintext


def read(data):
    file = io.BytesIO(data)
    return b"".join(read_file.plaintext(read_file.Header(file), file_key, file))


assert read(whole) == expected
start, step = len(header.bytes) + len(header.commitment), read_file.CHUNK + read_file.TAG
assert len(whole) > start + 2 * step, "the file has three chunks"
first, second = whole[start:start + step], whole[start + step:start + 2 * step]
spoiled = [
    whole[:-1], whole + b"\0", whole[:start + step], whole[:start + 2 * step], whole[:start], whole[:10],
    whole[:start] + second + first + whole[start + 2 * step:], whole[:start] + first + first + whole[start + 2 * step:],
    *(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1:] for at in (0, 7, 9, 13, 14, 29, len(header.bytes) - 1, start - 1, start, len(whole) - 1)),
]
for number, one in enumerate(spoiled):
    try:
        read(one)
    except read_file.CiphertextInvalid:
        continue
    raise AssertionError(f"spoiled file {number} was read")
print("ok")

"""Asks an OCSP responder as Python's cryptography does, and prints what it says.

ocsp.py <url> <PEM file of the CA> <serial number, hexadecimal> <sha1|sha256> <GET|POST> <nonce, hexadecimal, or ->
"""

import base64
import datetime
import sys
import urllib.parse
import urllib.request

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

url, issuer_path, serial, digest, method, nonce = sys.argv[1:]
with open(issuer_path, "rb") as file:
    issuer = x509.load_pem_x509_certificate(file.read())
algorithm = {"sha1": hashes.SHA1(), "sha256": hashes.SHA256()}[digest]

# A request takes nothing but the serial number from the certificate.
key = ec.generate_private_key(ec.SECP256R1())
day = datetime.timedelta(days=1)
leaf = (
    x509.CertificateBuilder()
    .subject_name(issuer.subject)
    .issuer_name(issuer.subject)
    .public_key(key.public_key())
    .serial_number(int(serial, 16))
    .not_valid_before(datetime.datetime(2026, 1, 1))
    .not_valid_after(datetime.datetime(2026, 1, 1) + day)
    .sign(key, hashes.SHA256())
)
builder = ocsp.OCSPRequestBuilder().add_certificate(leaf, issuer, algorithm)
if nonce != "-":
    builder = builder.add_extension(x509.OCSPNonce(bytes.fromhex(nonce)), critical=False)
request = builder.build().public_bytes(serialization.Encoding.DER)

if method == "GET":
    asked = urllib.request.Request(url + "/" + urllib.parse.quote(base64.b64encode(request).decode(), safe="/"))
else:
    asked = urllib.request.Request(url, data=request, headers={"Content-Type": "application/ocsp-request"})
with urllib.request.urlopen(asked, timeout=10) as answer:
    headers = answer.headers
    response = ocsp.load_der_ocsp_response(answer.read())
assert headers["Content-Type"] == "application/ocsp-response", headers["Content-Type"]

if response.response_status != ocsp.OCSPResponseStatus.SUCCESSFUL:
    assert headers["Cache-Control"] == "no-store", headers["Cache-Control"]
    print(response.response_status.name.lower())
    sys.exit()

# Delegation (RFC 6960, 4.2.2.2): certified by the CA itself, for this alone, and named by its key.
(signer,) = response.certificates
signer.verify_directly_issued_by(issuer)
usage = signer.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
assert list(usage) == [ExtendedKeyUsageOID.OCSP_SIGNING], usage
signer.extensions.get_extension_for_class(x509.OCSPNoCheck)
assert response.responder_name is None
assert response.responder_key_hash == x509.SubjectKeyIdentifier.from_public_key(signer.public_key()).digest
signer.public_key().verify(
    response.signature, response.tbs_response_bytes, ec.ECDSA(response.signature_hash_algorithm)
)
assert response.serial_number == int(serial, 16)
assert type(response.hash_algorithm) is type(algorithm)

if nonce == "-":
    for directive in ("max-age=", "public", "no-transform", "must-revalidate"):
        unknown = response.certificate_status == ocsp.OCSPCertStatus.UNKNOWN
        assert unknown or directive in headers["Cache-Control"], headers["Cache-Control"]
    assert len(response.extensions) == 0, response.extensions
else:
    assert headers["Cache-Control"] == "no-store", headers["Cache-Control"]
    echoed = response.extensions.get_extension_for_class(x509.OCSPNonce).value
    assert echoed.nonce == bytes.fromhex(nonce), echoed

reason = response.revocation_reason
print(response.certificate_status.name.lower(), *([reason.value] if reason else []))

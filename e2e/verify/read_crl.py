"""What Python's cryptography reads in a CRL: read_crl.py ca.pem list.pem. Fails when the CA did not sign it."""

import sys

from cryptography import x509

with open(sys.argv[1], "rb") as file:
    ca = x509.load_pem_x509_certificate(file.read())
with open(sys.argv[2], "rb") as file:
    crl = x509.load_pem_x509_crl(file.read())

if not crl.is_signature_valid(ca.public_key()):
    sys.exit("the CA did not sign it")
if crl.issuer != ca.subject:
    sys.exit("the issuer is another")
key_id = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
if crl.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier != key_id:
    sys.exit("the authority key identifier is another")
print("number", crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number)
for extension in crl.extensions:
    if isinstance(extension.value, x509.IssuingDistributionPoint):
        print("scope", extension.critical, extension.value.full_name[0].value)
for entry in crl:
    print("revoked", format(entry.serial_number, "x"), int(entry.revocation_date_utc.timestamp()))

package main

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// verifyChain builds and verifies the path of a leaf, and, when a CRL is given, checks that it is the issuer's and
// covers the leaf.
func verifyChain(args []string) error {
	flags := flag.NewFlagSet("chain", flag.ContinueOnError)
	root := flags.String("root", "", "PEM file of the anchor")
	intermediates := flags.String("intermediates", "", "PEM file of the certificates in between")
	leafPath := flags.String("leaf", "", "PEM file of the leaf")
	usage := flags.String("usage", "client", "client, server, or a dotted object identifier")
	name := flags.String("name", "", "the DNS name that a server must have")
	at := flags.Int64("time", 0, "Unix time of the verification")
	crlPath := flags.String("crl", "", "DER file of the CRL that covers the leaf")
	if err := flags.Parse(args); err != nil {
		return err
	}

	roots, err := pool(*root)
	if err != nil {
		return err
	}
	between := x509.NewCertPool()
	if *intermediates != "" {
		if between, err = pool(*intermediates); err != nil {
			return err
		}
	}
	der, err := firstBlock(*leafPath)
	if err != nil {
		return err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}

	options := x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: time.Unix(*at, 0), DNSName: *name,
	}
	switch *usage {
	case "client":
		options.KeyUsages = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	case "server":
		options.KeyUsages = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	default:
		// Go has no name for it, so the path is verified without one and the extension is compared.
		options.KeyUsages = []x509.ExtKeyUsage{x509.ExtKeyUsageAny}
		oid, err := parseOID(*usage)
		if err != nil {
			return err
		}
		if len(leaf.ExtKeyUsage) != 0 || !slices.ContainsFunc(leaf.UnknownExtKeyUsage, oid.Equal) {
			return fmt.Errorf("the leaf has the usages %v %v, not only %s", leaf.ExtKeyUsage, leaf.UnknownExtKeyUsage, oid)
		}
	}
	chains, err := leaf.Verify(options)
	if err != nil {
		return err
	}
	if *crlPath == "" {
		return nil
	}
	return checkCRL(*crlPath, leaf, chains[0][1])
}

func checkCRL(path string, leaf, issuer *x509.Certificate) error {
	der, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		return err
	}
	if err := list.CheckSignatureFrom(issuer); err != nil {
		return err
	}
	if !bytes.Equal(list.AuthorityKeyId, issuer.SubjectKeyId) {
		return fmt.Errorf("the CRL's AKI %x is not the issuer's SKI %x", list.AuthorityKeyId, issuer.SubjectKeyId)
	}
	for _, entry := range list.RevokedCertificateEntries {
		if entry.SerialNumber.Cmp(leaf.SerialNumber) == 0 {
			return fmt.Errorf("revoked: %x", leaf.SerialNumber)
		}
	}
	return nil
}

func pool(path string) (*x509.CertPool, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s: no certificate", path)
	}
	return pool, nil
}

func parseOID(text string) (asn1.ObjectIdentifier, error) {
	var oid asn1.ObjectIdentifier
	for part := range strings.SplitSeq(text, ".") {
		arc, err := strconv.Atoi(part)
		if err != nil {
			return nil, fmt.Errorf("%q is not an object identifier", text)
		}
		oid = append(oid, arc)
	}
	return oid, nil
}

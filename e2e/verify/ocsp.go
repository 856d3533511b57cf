package main

import (
	"crypto"
	"crypto/x509"
	"flag"
	"fmt"
	"os"

	"github.com/zmap/zlint/v3"
	zl "github.com/zmap/zlint/v3/lint"
	"golang.org/x/crypto/ocsp"
)

// askOCSP writes the request that Go's client makes for a certificate.
func askOCSP(args []string) error {
	flags := flag.NewFlagSet("ocsp-request", flag.ContinueOnError)
	issuerPath := flags.String("issuer", "", "PEM file of the CA")
	leafPath := flags.String("leaf", "", "PEM file of the certificate")
	hash := flags.String("hash", "sha1", "sha1 or sha256, by which the CA is named")
	out := flags.String("out", "", "where the DER request is written")
	if err := flags.Parse(args); err != nil {
		return err
	}
	issuer, err := certificate(*issuerPath)
	if err != nil {
		return err
	}
	leaf, err := certificate(*leafPath)
	if err != nil {
		return err
	}
	options := &ocsp.RequestOptions{Hash: crypto.SHA1}
	if *hash == "sha256" {
		options.Hash = crypto.SHA256
	}
	der, err := ocsp.CreateRequest(leaf, issuer, options)
	if err != nil {
		return err
	}
	return os.WriteFile(*out, der, 0o600)
}

// readOCSP checks a response for a certificate, the delegated responder included, lints it, and prints what it says: status, this
// update, next update, and of a revoked one its time and reason code.
func readOCSP(args []string) error {
	flags := flag.NewFlagSet("ocsp", flag.ContinueOnError)
	issuerPath := flags.String("issuer", "", "PEM file of the CA")
	leafPath := flags.String("leaf", "", "PEM file of the certificate")
	path := flags.String("response", "", "DER file of the response")
	if err := flags.Parse(args); err != nil {
		return err
	}
	issuer, err := certificate(*issuerPath)
	if err != nil {
		return err
	}
	leaf, err := certificate(*leafPath)
	if err != nil {
		return err
	}
	der, err := os.ReadFile(*path)
	if err != nil {
		return err
	}
	response, err := ocsp.ParseResponseForCert(der, leaf, issuer)
	if err != nil {
		return err
	}
	return judgeOCSP(*path, response)
}

// judgeOCSP lints a response and prints what it says; place is where it is from.
func judgeOCSP(place string, response *ocsp.Response) error {
	if response.Certificate == nil {
		return fmt.Errorf("the response has no certificate of a delegated responder")
	}
	if err := lintStatus(place, func(registry zl.Registry) *zlint.ResultSet {
		return zlint.LintOcspResponseEx(response, registry)
	}); err != nil {
		return err
	}
	status := map[int]string{ocsp.Good: "good", ocsp.Revoked: "revoked", ocsp.Unknown: "unknown"}[response.Status]
	fmt.Print(status, " ", response.ThisUpdate.Unix(), " ", response.NextUpdate.Unix())
	if response.Status == ocsp.Revoked {
		fmt.Print(" ", response.RevokedAt.Unix(), " ", response.RevocationReason)
	}
	fmt.Println()
	return nil
}

func certificate(path string) (*x509.Certificate, error) {
	der, err := firstBlock(path)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

package main

import (
	"crypto/x509"
	"flag"
	"fmt"
	"os"
)

// readCRL checks that a CRL is the issuer's and prints what it says: its number and dates in the first line, then each
// entry as serial number, Unix time and reason code.
func readCRL(args []string) error {
	flags := flag.NewFlagSet("crl", flag.ContinueOnError)
	issuerPath := flags.String("issuer", "", "PEM file of the CA")
	path := flags.String("crl", "", "DER file of the CRL")
	if err := flags.Parse(args); err != nil {
		return err
	}
	issuer, err := certificate(*issuerPath)
	if err != nil {
		return err
	}
	der, err := os.ReadFile(*path)
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
	fmt.Println(list.Number, list.ThisUpdate.Unix(), list.NextUpdate.Unix())
	for _, entry := range list.RevokedCertificateEntries {
		fmt.Printf("%x %d %d\n", entry.SerialNumber, entry.RevocationTime.Unix(), entry.ReasonCode)
	}
	return nil
}

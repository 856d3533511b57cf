package main

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/crypto/ocsp"
)

// queryOCSP asks a responder about a serial number and prints what it says, as readOCSP does; of a failure, its name.
func queryOCSP(args []string) error {
	flags := flag.NewFlagSet("ocsp-query", flag.ContinueOnError)
	issuerPath := flags.String("issuer", "", "PEM file of the CA")
	serial := flags.String("serial", "", "serial number, hexadecimal")
	hash := flags.String("hash", "sha1", "sha1 or sha256, by which the CA is named")
	method := flags.String("method", "POST", "GET or POST")
	responder := flags.String("url", "", "the responder's URL")
	if err := flags.Parse(args); err != nil {
		return err
	}
	issuer, err := certificate(*issuerPath)
	if err != nil {
		return err
	}
	number, ok := new(big.Int).SetString(*serial, 16)
	if !ok {
		return fmt.Errorf("%q is no serial number", *serial)
	}
	// Of the certificate, requests and answers hold the serial number alone.
	leaf := &x509.Certificate{SerialNumber: number}
	options := &ocsp.RequestOptions{Hash: crypto.SHA1}
	if *hash == "sha256" {
		options.Hash = crypto.SHA256
	}
	request, err := ocsp.CreateRequest(leaf, issuer, options)
	if err != nil {
		return err
	}
	der, err := exchange(*method, *responder, request)
	if err != nil {
		return err
	}
	response, err := ocsp.ParseResponseForCert(der, leaf, issuer)
	var failure ocsp.ResponseError
	if errors.As(err, &failure) {
		fmt.Println(failure.Status)
		return nil
	}
	if err != nil {
		return err
	}
	return judgeOCSP(*responder, response)
}

func exchange(method, responder string, request []byte) ([]byte, error) {
	client := http.Client{Timeout: 10 * time.Second}
	var answer *http.Response
	var err error
	if method == http.MethodGet {
		answer, err = client.Get(responder + "/" + url.QueryEscape(base64.StdEncoding.EncodeToString(request)))
	} else {
		answer, err = client.Post(responder, "application/ocsp-request", bytes.NewReader(request))
	}
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", responder, answer.Status)
	}
	if kind := answer.Header.Get("Content-Type"); kind != "application/ocsp-response" {
		return nil, fmt.Errorf("%s answers with %s", responder, kind)
	}
	return io.ReadAll(answer.Body)
}

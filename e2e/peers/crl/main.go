// Makes a CRL of as many entries as the argument says with crypto/x509, as the other makers of `make bench-peers` do, and prints
// the seconds that it took, the most bytes of memory above the CRL and what was there before, and the CRL's length.
package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"os"
	"strconv"
	"time"
)

// keyCompromise is the reason code of RFC 5280, 5.3.1.
const keyCompromise = 1

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "crl:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return errors.New("usage: crl ENTRIES")
	}
	entries, err := strconv.ParseUint(args[0], 10, 32)
	if err != nil {
		return err
	}
	issuer, key, err := authority()
	if err != nil {
		return err
	}
	// proc(5): 5 sets the peak back to what is resident now.
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil {
		return err
	}
	before, err := memory("VmRSS:")
	if err != nil {
		return err
	}
	start := time.Now()
	list, err := revocationList(uint32(entries), issuer, key)
	if err != nil {
		return err
	}
	seconds := time.Since(start).Seconds()
	peak, err := memory("VmHWM:")
	if err != nil {
		return err
	}
	fmt.Println(seconds, max(0, peak-before-len(list)), len(list))
	return nil
}

// authority makes a CA with a P-256 key.
func authority() (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "bench"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	issuer, err := x509.ParseCertificate(der)
	return issuer, key, err
}

func revocationList(entries uint32, issuer *x509.Certificate, key *ecdsa.PrivateKey) ([]byte, error) {
	now := time.Now()
	list := &x509.RevocationList{
		Number:                    big.NewInt(1),
		ThisUpdate:                now,
		NextUpdate:                now.Add(24 * time.Hour),
		RevokedCertificateEntries: make([]x509.RevocationListEntry, entries),
	}
	for n := range entries {
		list.RevokedCertificateEntries[n] = x509.RevocationListEntry{
			SerialNumber:   serial(n),
			RevocationTime: now.Add(-time.Minute),
			ReasonCode:     keyCompromise,
		}
	}
	return x509.CreateRevocationList(rand.Reader, list, issuer, key)
}

// serial makes 16 bytes that look like a random serial number and differ for each n: the same as the other makers'.
func serial(n uint32) *big.Int {
	number := bytes.Repeat([]byte{0x5a}, 16)
	binary.BigEndian.PutUint64(number[1:9], uint64(n)*0x9e37_79b9_7f4a_7c15)
	binary.BigEndian.PutUint32(number[12:], n)
	return new(big.Int).SetBytes(number)
}

// memory reads a line of /proc/self/status, in bytes.
func memory(line string) (int, error) {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for field := range bytes.Lines(text) {
		if value, found := bytes.CutPrefix(field, []byte(line)); found {
			kib, err := strconv.Atoi(string(bytes.TrimSuffix(bytes.TrimSpace(value), []byte(" kB"))))
			return kib * 1024, err
		}
	}
	return 0, fmt.Errorf("no %s", line)
}

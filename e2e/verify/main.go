// Command verify checks certificates with verifiers that share no code with Certwave: Go's crypto/x509 and
// x/crypto/ocsp, and zlint.
//
//	verify chain -root root.pem -leaf leaf.pem -usage client|server|1.2.3 -time unix [-intermediates chain.pem] [-name dns]
//	verify lint certificate.pem...
//	verify crl -issuer ca.pem -crl list.der
//	verify ocsp-request -issuer ca.pem -leaf leaf.pem -out request.der [-hash sha1|sha256]
//	verify ocsp -issuer ca.pem -leaf leaf.pem -response response.der
//	verify ocsp-query -issuer ca.pem -serial hex -url http://... [-hash sha1|sha256] [-method GET|POST]
//
// lint prints one line per finding, the others what they read; each exits with 1 when something is wrong.
package main

import (
	"encoding/pem"
	"errors"
	"fmt"
	"os"
)

func main() {
	if len(os.Args) < 2 {
		fail(errors.New("usage: verify chain|lint|crl|ocsp-request|ocsp|ocsp-query ..."))
	}
	var err error
	switch os.Args[1] {
	case "chain":
		err = verifyChain(os.Args[2:])
	case "lint":
		err = lint(os.Args[2:])
	case "crl":
		err = readCRL(os.Args[2:])
	case "ocsp-request":
		err = askOCSP(os.Args[2:])
	case "ocsp":
		err = readOCSP(os.Args[2:])
	case "ocsp-query":
		err = queryOCSP(os.Args[2:])
	default:
		err = fmt.Errorf("unknown command %q", os.Args[1])
	}
	if err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// firstBlock is the DER of the first PEM block of a file.
func firstBlock(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s: no PEM block", path)
	}
	return block.Bytes, nil
}

// Issues as many certificates as the second argument says with the authority of step-ca, 256 at a time, and prints the seconds and
// the CPU seconds that it took. Its database, of the sort that `step ca init` chooses, is in the directory of the first argument.
//
// What goes in are P-256 requests, made before the clock starts, and what comes out are certificates that the database holds: no
// HTTP, no one-time tokens.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/smallstep/certificates/authority"
	"github.com/smallstep/certificates/authority/provisioner"
	"github.com/smallstep/certificates/db"
	"go.step.sm/crypto/x509util"
	"golang.org/x/sync/errgroup"
)

// As many devices as answer together; the same as for the other issuer.
const atOnce = 256

const validity = 90 * 24 * time.Hour

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "step-ca:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 2 {
		return errors.New("usage: step-ca DIRECTORY CERTIFICATES")
	}
	count, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	database, err := db.New(&db.Config{Type: "badgerv2", DataSource: args[0]})
	if err != nil {
		return err
	}
	issuer, err := newAuthority(database)
	if err != nil {
		return err
	}
	requests := make([]*x509.CertificateRequest, count)
	for n := range requests {
		if requests[n], err = request(fmt.Sprintf("meter-%06d", n)); err != nil {
			return err
		}
	}
	cpu, err := cpuSeconds()
	if err != nil {
		return err
	}
	start := time.Now()
	var group errgroup.Group
	group.SetLimit(atOnce)
	for _, request := range requests {
		group.Go(func() error { return issue(issuer, request) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	seconds := time.Since(start).Seconds()
	after, err := cpuSeconds()
	if err != nil {
		return err
	}
	fmt.Println(seconds, after-cpu)
	return issuer.Shutdown()
}

// newAuthority makes an authority whose one CA has a P-256 key, and which keeps all it issues.
func newAuthority(database db.AuthDB) (*authority.Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "bench"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(2 * validity),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	ca, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return authority.NewEmbedded(
		authority.WithX509RootCerts(ca),
		authority.WithX509Signer(ca, key),
		authority.WithDatabase(database),
		authority.WithQuietInit(),
	)
}

func request(name string) (*x509.CertificateRequest, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificateRequest(der)
}

// issue signs a request as a provisioner without a template of its own has it done.
func issue(issuer *authority.Authority, request *x509.CertificateRequest) error {
	data := x509util.CreateTemplateData(request.Subject.CommonName, nil)
	template, err := provisioner.TemplateOptions(nil, data)
	if err != nil {
		return err
	}
	now := time.Now()
	valid := provisioner.CertificateModifierFunc(func(leaf *x509.Certificate, _ provisioner.SignOptions) error {
		leaf.NotBefore, leaf.NotAfter = now.Add(-time.Minute), now.Add(validity)
		return nil
	})
	_, err = issuer.SignWithContext(context.Background(), request, provisioner.SignOptions{}, template, valid)
	return err
}

// cpuSeconds is the CPU time of this process so far, user and system.
func cpuSeconds() (float64, error) {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0, err
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds(), nil
}

package main

import (
	"fmt"
	"os"
	"slices"

	"github.com/zmap/zcrypto/x509"
	"github.com/zmap/zlint/v3"
	zl "github.com/zmap/zlint/v3/lint"
)

// sources are the documents whose lints apply. Those of the CA/Browser Forum, the root programmes and CT are rules of
// the public Web PKI: a device certificate has no public name, no policy of theirs and no log entry.
// No lint of the sources taken is excluded.
var sources = zl.SourceList{zl.RFC3279, zl.RFC5280, zl.RFC5480, zl.RFC5891, zl.RFC8813}

// statusSources are those for CRLs and OCSP responses, also without exclusions: the rules of the CA/Browser Forum forbid
// certificateHold, which a private PKI may use.
var statusSources = zl.SourceList{zl.RFC5280, zl.RFC6960, zl.Community}

// lint prints every finding of level notice and above and fails when there is any.
func lint(paths []string) error {
	registry, err := zl.GlobalRegistry().Filter(zl.FilterOptions{IncludeSources: sources})
	if err != nil {
		return err
	}
	findings := 0
	for _, path := range paths {
		der, err := firstBlock(path)
		if err != nil {
			return err
		}
		certificate, err := x509.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		found, err := report(path, zlint.LintCertificateEx(certificate, registry).Results)
		if err != nil {
			return err
		}
		findings += found
	}
	if findings > 0 {
		return fmt.Errorf("%d findings", findings)
	}
	return nil
}

// lintStatus does the same for a CRL or an OCSP response, whose results apply gets from the lints that hold.
func lintStatus(path string, apply func(zl.Registry) *zlint.ResultSet) error {
	registry, err := zl.GlobalRegistry().Filter(zl.FilterOptions{IncludeSources: statusSources})
	if err != nil {
		return err
	}
	findings, err := report(path, apply(registry).Results)
	if err == nil && findings > 0 {
		err = fmt.Errorf("%d findings", findings)
	}
	return err
}

// report prints the findings and counts them; that no lint applied is an error.
func report(path string, results map[string]*zl.LintResult) (int, error) {
	ran := 0
	lines := []string{}
	for name, result := range results {
		if result.Status >= zl.Pass {
			ran++
		}
		if result.Status >= zl.Notice {
			lines = append(lines, fmt.Sprintf("%s: %s: %s %s", path, result.Status, name, result.Details))
		}
	}
	if ran == 0 {
		return 0, fmt.Errorf("%s: no lint applied", path)
	}
	slices.Sort(lines)
	for _, line := range lines {
		fmt.Fprintln(os.Stdout, line)
	}
	return len(lines), nil
}

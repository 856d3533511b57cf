module certwave.dev/e2e/peers/crl

go 1.26.0

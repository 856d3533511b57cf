# The images of Certwave's programs: certwave (operator, responder, companion) with kubectl-certwave, which `helm test` runs; and
# certwave-agent (devices, real and simulated).
#
#   docker buildx build --platform linux/amd64,linux/arm64 --sbom=true --provenance=true -t example/certwave:0.1.0 .
#   docker build --target agent -t example/certwave-agent:0.1.0 .
#
# The same final images around static binaries that were built on the host (`make images` does that): the targets prebuilt and
# prebuilt-agent, with a directory as context that holds certwave, kubectl-certwave, certwave-agent,
# ca-certificates.crt and Cargo.lock.
# The stages stand in this order as Docker's classic builder makes every stage before the target.

# What the images have in common: no shell, no package manager, no root.
FROM scratch AS base
ARG VERSION=0.1.0
ARG REVISION=
ARG CREATED=
LABEL org.opencontainers.image.title="Certwave" \
      org.opencontainers.image.description="Rotates and revokes the certificates of device fleets" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/certwave/certwave" \
      org.opencontainers.image.documentation="https://github.com/certwave/certwave/tree/main/docs" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      dev.certwave.sbom.source="/usr/share/certwave/Cargo.lock"
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
    PATH=/usr/bin
# By number, so that Kubernetes can see that it is not root.
USER 65532:65532
WORKDIR /

FROM base AS prebuilt-agent
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY Cargo.lock /usr/share/certwave/Cargo.lock
COPY certwave-agent /usr/bin/certwave-agent
ENTRYPOINT ["/usr/bin/certwave-agent"]

FROM base AS prebuilt
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
# What it was made of, for scanners: they read this file.
COPY Cargo.lock /usr/share/certwave/Cargo.lock
COPY certwave kubectl-certwave /usr/bin/
EXPOSE 8080
ENTRYPOINT ["/usr/bin/certwave"]
CMD ["run"]

# Each platform is built on itself or in emulation: a C compiler for another one is more trouble than it saves.
FROM rust:1.95-bookworm AS build
ARG BUILDKIT_SBOM_SCAN_STAGE=true
RUN apt-get update && apt-get install -y --no-install-recommends cmake && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# Static, so that nothing but the program is needed. With --target, build scripts and macros stay as the compiler wants them.
RUN host=$(rustc -vV | sed -n 's/^host: //p') && \
    RUSTFLAGS="-C target-feature=+crt-static" cargo build --locked --release --target "$host" \
      -p certwave-controller -p certwave-cli -p certwave-agent --bins && \
    mkdir /out && cd "target/$host/release" && cp certwave kubectl-certwave certwave-agent /out/

FROM base AS agent
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY Cargo.lock /usr/share/certwave/Cargo.lock
COPY --from=build /out/certwave-agent /usr/bin/certwave-agent
ENTRYPOINT ["/usr/bin/certwave-agent"]

FROM base
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY Cargo.lock /usr/share/certwave/Cargo.lock
COPY --from=build /out/certwave /out/kubectl-certwave /usr/bin/
EXPOSE 8080
ENTRYPOINT ["/usr/bin/certwave"]
CMD ["run"]

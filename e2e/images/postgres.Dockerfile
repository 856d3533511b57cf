# The database of `make e2e`, from the distribution, for a network that is trusted: a password, and no TLS.
# Without what compiles queries, which takes more room than all the rest.
FROM debian:bookworm-slim
RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends postgresql \
  && rm -rf /var/lib/apt/lists/* /usr/lib/x86_64-linux-gnu/libLLVM* /usr/share/locale /usr/share/doc /usr/share/man
RUN useradd --system --uid 65532 --user-group --no-create-home database
COPY postgres.sh /usr/bin/postgres.sh
USER 65532:65532
ENTRYPOINT ["/usr/bin/postgres.sh"]

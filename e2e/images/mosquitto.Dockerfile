# The broker of `make e2e`, from the distribution.
FROM debian:bookworm-slim
RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends mosquitto && rm -rf /var/lib/apt/lists/*
USER 65532:65532
ENTRYPOINT ["/usr/sbin/mosquitto"]

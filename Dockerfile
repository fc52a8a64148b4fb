# The same files as `make image` packs without a builder: static programs, CA certificates and time zones on nothing.
#   docker build -t kubervisor.test/kubervisor:dev .
#   docker buildx build --platform linux/amd64,linux/arm64 .
FROM rust:1.95-bookworm AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends protobuf-compiler libprotobuf-dev ca-certificates tzdata python3 jq
WORKDIR /src
COPY . .
RUN scripts/image "$(uname -m)" && mkdir -p /layout /root-fs && tar -xf target/image/kubervisor.tar -C /layout \
    && blob() { echo "/layout/blobs/$(tr ':' '/')"; } \
    && manifest=$(jq -r '.manifests[0].digest' /layout/index.json | blob) \
    && tar -xzf "$(jq -r '.layers[0].digest' "$manifest" | blob)" -C /root-fs

FROM scratch
COPY --from=build /root-fs /
USER 65532:65532
ENV PATH=/usr/local/bin SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
EXPOSE 8086
ENTRYPOINT ["/usr/local/bin/kubervisor"]

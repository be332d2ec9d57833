# A static binary and the models, nothing else: no shell, no library, no user database.
#
#   docker build -t lepton .
#   docker run --rm -p 8080:8080 --read-only --memory 256m lepton

# Any image with cargo and a C compiler.
ARG BUILDER=rust:1.95-bookworm
FROM ${BUILDER} AS build
WORKDIR /src

COPY . .
# Without a libc the image needs no update for one. Naming the target keeps the flag from build
# scripts and procedural macros, which cannot be static.
RUN target="$(rustc -vV | sed -n 's/^host: //p')" \
    && RUSTFLAGS="-C target-feature=+crt-static" \
       cargo build --profile dist --locked --bin lepton --target "$target" \
    && install -D "target/$target/dist/lepton" /image/lepton \
    && cp -r models LICENSE-MIT LICENSE-APACHE /image/ \
    && chmod -R a+rX,go-w /image

FROM scratch
LABEL org.opencontainers.image.title="Lepton" \
      org.opencontainers.image.description="An inference server for CPUs" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
COPY --from=build /image /
WORKDIR /
# Nobody by number: an image without /etc/passwd has no names.
USER 65532:65532
ENV LEPTON_SERVER_LISTEN=0.0.0.0:8080 \
    LEPTON_MODELS_DIR=/models
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=2s --retries=3 CMD ["/lepton", "health"]
ENTRYPOINT ["/lepton"]
CMD ["serve"]

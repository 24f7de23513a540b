FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends prometheus-alertmanager && rm -rf /var/lib/apt/lists/* \
    && mkdir /alertmanager && chown nobody:nogroup /alertmanager
USER nobody
ENTRYPOINT ["prometheus-alertmanager"]

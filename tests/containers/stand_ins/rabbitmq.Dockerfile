FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends rabbitmq-server && rm -rf /var/lib/apt/lists/* \
    && rm -rf /var/lib/rabbitmq/* /var/lib/rabbitmq/.erlang.cookie
RUN echo '[rabbitmq_management].' > /etc/rabbitmq/enabled_plugins && mkdir -p /etc/rabbitmq/conf.d \
    && echo 'loopback_users.guest = false' > /etc/rabbitmq/conf.d/10-defaults.conf
ENV RABBITMQ_LOGS=- HOME=/var/lib/rabbitmq LANG=C.UTF-8 PATH=/usr/lib/rabbitmq/bin:$PATH
COPY rabbitmq.sh /usr/local/bin/entrypoint
ENTRYPOINT ["entrypoint"]
CMD ["rabbitmq-server"]

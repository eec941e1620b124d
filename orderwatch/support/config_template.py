"""The file that `orderwatch config init` writes: for real servers and providers, without a default for any of them."""

TEMPLATE = """\
# Orderwatch, for real. Every key, its default and meaning: docs/configuration.md.
# ${NAME} reads the environment and has no default here on purpose: a variable that is missing is refused by
# `orderwatch config check` and by every worker, instead of being replaced by a bundled server or a demo credential.

kafka:
  bootstrap_servers: ${KAFKA_BOOTSTRAP_SERVERS}   # host:port,host:port
  topic_prefix: ""            # the same for all workers of one installation, another one for the next
  partitions: 4               # the most workers that can share the work; growing it later moves keys
  replication_factor: 3       # 1 only on a single broker
  security: {}                # e.g. {protocol: SASL_SSL, mechanism: SCRAM-SHA-512, username: ..., password: "${KAFKA_PASSWORD}"}

database:
  url: ${DATABASE_URL}        # postgresql://user:password@host/name; one database for all workers

web: {host: 127.0.0.1, port: 8080}   # session_key: "${WEB_SESSION_KEY}" keeps log-ins over a restart

checks:
  first_after: 60s
  backoff: {base: 30s, factor: 2, max: 10m}
  deadline: 24h
  on_deadline: attention

# Keys that PINs are sealed with come from ORDERWATCH_PIN_KEYS, never from here.
# `orderwatch config import` stores the next three lists; the workers follow the stored copy.

integrations:                 # one account at one provider
  - id: znet-main
    tenant_id: myshop
    provider: znet
    base_url: ${ZNET_URL}
    currency: TRY
    credentials: {kod: "${ZNET_KOD}", sifre: "${ZNET_SIFRE}"}
    limits: {rate: 10/s, concurrency: 50, connect_timeout: 5s, timeout: 20s}

#  - id: barakat-1            # a second account, as fallback
#    tenant_id: myshop
#    provider: barakat
#    base_url: ${BARAKAT_URL}
#    currency: USD
#    credentials: {token: "${BARAKAT_TOKEN}"}

routes: []                    # - {tenant_id: myshop, package_id: pubg-60, mode: auto, provider_type: external, primary: znet-main}

mappings: []                  # - {tenant_id: myshop, package_id: pubg-60, integration: znet-main, provider_package_id: "12345", oyun: "100", kupur: UC60, delivers_pin: true}
"""  # noqa: E501 - two examples that stand on one line
